"""Calls on an NPU: what is compiled and what a kernel is launched with. No NPU and no CANN are needed: a
stand-in for bisheng produces libraries that write down their arguments."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from support.cann import STREAM, Cann, FakeTorchNpu

import moe_jit
from moe_jit.ascend import backends, kernel_calls, kernel_launch, kernel_matmul, launch, npu
from moe_jit.ascend.launch import Role
from moe_jit.jit import ToolchainError


class NpuDevice(NamedTuple):
    """torch.device knows the name only after torch_npu's import."""

    type: str


def swiglu(**changes: Any) -> dict[str, Any]:
    """Arguments of the module, all of different sizes."""
    return {
        "x": torch.zeros(6, 64, dtype=torch.int32),
        "weight_scale": torch.zeros(3, 64),
        "activation_scale": torch.zeros(6),
        "bias": torch.zeros(3, 64),
        "quant_scale": torch.zeros(3, 32),
        "quant_offset": None,
        "group_index": torch.tensor([1, 2, 3]),
        "y": torch.zeros(6, 32, dtype=torch.int8),
        "scale": torch.zeros(6),
    } | changes


def call(operator: str, tensors: dict[str, Any], *settings: Any) -> None:
    kernel_calls.FUNCTIONS[operator]("npu", *tensors.values(), *settings)


def test_addresses_stream_and_blocks(cann: Cann) -> None:
    tensors = swiglu()
    call("dequant_swiglu_quant", tensors, True, True, 0, 7.0, 1.702, 1.0)
    ((blocks, stream, *addresses, workspace, tiling),) = cann.launches
    assert blocks == 40  # vector cores of a chip with 20 cube cores
    assert stream == STREAM
    assert addresses == [0 if t is None else t.data_ptr() for t in tensors.values()]
    assert workspace == 0  # this kernel needs none
    assert tiling != 0


def test_the_kernel_is_the_source_of_the_command(cann: Cann) -> None:
    call("dequant_swiglu_quant", swiglu(), True, True, 0, 7.0, 1.702, 1.0)
    (command,) = cann.commands
    assert "-DMOE_JIT_ENTRY=dequant_swiglu_quant_i32" in command
    assert '-DMOE_JIT_SOURCE="ascend/dequant_swiglu_quant_i32.cpp"' in command
    (arguments,) = (word for word in command if word.startswith("-DMOE_JIT_ARGUMENTS(at)="))
    assert arguments.split("=")[1].split(",") == [f"at({i})" for i in range(11)]
    assert command[-3].endswith("csrc/ascend/launch/npu.cpp")
    assert "--npu-arch=dav-2201" in command


def test_repeated_calls_reuse_module_and_tiling(cann: Cann) -> None:
    for _ in range(2):
        call("dequant_swiglu_quant", swiglu(), True, True, 0, 7.0, 1.702, 1.0)
    call("dequant_swiglu_quant", swiglu(), False, True, 0, 7.0, 1.702, 1.0)
    first, second, other = (launched[-1] for launched in cann.launches)
    assert first == second != other
    assert len(cann.commands) == 1


def test_tiling_holds_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = []
    monkeypatch.setattr(kernel_calls, "run", lambda kind, plan, device, arguments: plans.append(plan))
    monkeypatch.setattr(launch, "num_cores", lambda kind, device: 20)
    monkeypatch.setitem(sys.modules, "torch_npu", FakeTorchNpu())
    call("dequant_swiglu_quant", swiglu(), True, True, 2, 3.5, 1.25, 0.5)
    words = struct.unpack("<11i3f2i4i", plans[0].tiling)
    assert words[:2] == (6, 32)
    assert words[4:11] == (0, 3, 0, 1, 1, 1, 2)  # bias, parameters, activation, dynamic, recipe, mode
    assert words[11:14] == (3.5, 1.25, 0.5)
    assert words[14:] == (1, 0, 3, 1, 3, -1)


def test_cores(cann: Cann, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    assert npu.num_cores(device) == 20
    npu.num_cores.cache_clear()
    monkeypatch.setitem(sys.modules, "torch_npu", FakeTorchNpu())
    assert npu.num_cores(device) == 20  # every chip has as many
    npu.num_cores.cache_clear()
    monkeypatch.setenv("MOE_JIT_ASCEND_CORES", "24")
    assert npu.num_cores(device) == 24
    npu.num_cores.cache_clear()
    monkeypatch.setenv("MOE_JIT_ASCEND_CORES", "many")
    with pytest.raises(ValueError, match="MOE_JIT_ASCEND_CORES: given 'many'"):
        npu.num_cores(device)


def test_workspace_is_aligned() -> None:
    for size in (1, 513, 4096):
        memory = kernel_launch._workspace(size, torch.device("cpu"))
        assert memory is not None
        assert memory.numel() == size
        assert memory.data_ptr() % 512 == 0


def test_missing_torch_npu_is_named(cann: Cann, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_npu", None)
    with pytest.raises(ImportError, match="tensors of an NPU need torch_npu"):
        call("dequant_swiglu_quant", swiglu(), True, True, 0, 7.0, 1.702, 1.0)


def test_missing_toolkit_is_named(cann: Cann, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASCEND_HOME_PATH")
    with pytest.raises(ToolchainError, match="ASCEND_HOME_PATH is not set"):
        call("dequant_swiglu_quant", swiglu(), True, True, 0, 7.0, 1.702, 1.0)


# ---- products


def tiling_words(plan: Any) -> tuple[int, ...]:
    return struct.unpack(f"<{len(plan.tiling) // 4}i", plan.tiling)


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Plans and arguments of launches, which are not made."""
    launched: list[Any] = []
    monkeypatch.setattr(
        kernel_matmul, "run", lambda kind, plan, device, given: launched.append((plan, given))
    )
    monkeypatch.setattr(launch, "num_cores", lambda kind, device: 20)
    monkeypatch.setitem(sys.modules, "torch_npu", FakeTorchNpu())
    return launched


def multiply(x: list[Any], weight: list[Any], y: list[Any], groups: Any, **changes: Any) -> None:
    settings = {
        "kind": 2,
        "group_type": 0,
        "group_list_type": 1,
        "act_type": 5,
        "transposed": False,
        "scale": None,
    } | changes
    kernel_calls.FUNCTIONS["grouped_matmul"](
        "npu",
        x,
        weight,
        None,
        settings.pop("scale"),
        None,
        None,
        None,
        None,
        groups,
        y,
        settings.pop("kind"),
        settings.pop("group_type"),
        settings.pop("group_list_type"),
        settings.pop("act_type"),
        settings.pop("transposed"),
        **settings,
    )


I8 = torch.int8
COUNTS = torch.tensor([2, 3, 1])


def test_a_stacked_weight_is_one_launch_without_copies(planned: list[Any]) -> None:
    x, y = torch.zeros(7, 48, dtype=I8), torch.zeros(7, 33, dtype=torch.bfloat16)
    stored, scale = torch.zeros(3, 33, 48, dtype=I8), torch.zeros(3, 33)
    multiply([x], [stored.mT], [y], COUNTS, transposed=True, scale=[scale])
    ((plan, given),) = planned
    addresses = {argument.name: argument.tensor for argument in given}
    assert plan.entry == "grouped_matmul_i8_bf16"
    assert addresses["weight"].data_ptr() == stored.data_ptr()
    assert addresses["x"] is x
    assert addresses["y"] is y
    assert addresses["scale"] is scale
    assert addresses["bias"] is None
    words = tiling_words(plan)
    assert words[:4] == (7, 48, 33, 1)  # rows, k, n, [n, k]
    assert words[-4:] == (3, 1, 3, -1)  # groups, counts, experts, all


def test_a_list_of_weights_is_one_launch_for_each(planned: list[Any]) -> None:
    x, y = torch.zeros(7, 32, dtype=I8), torch.zeros(7, 32, dtype=torch.int32)
    weights = [torch.zeros(32, 32, dtype=I8) for _ in range(3)]
    multiply([x], weights, [y], COUNTS)
    assert [tiling_words(plan)[-1] for plan, _ in planned] == [0, 1, 2]
    assert [tiling_words(plan)[11] for plan, _ in planned] == [
        1,
        0,
        0,
    ]  # the first one writes rows of no group
    assert [given[-1].role for _, given in planned] == [Role.OUTPUT, Role.IN_OUT, Role.IN_OUT]
    assert [given[1].tensor.data_ptr() for _, given in planned] == [w.data_ptr() for w in weights]


def test_one_output_for_each_group_takes_slices(planned: list[Any]) -> None:
    x = torch.zeros(6, 32, dtype=I8)
    outputs = [torch.zeros(rows, 32, dtype=torch.int32) for rows in (2, 0, 4)]
    multiply([x], [torch.zeros(32, 32, dtype=I8)] * 3, outputs, COUNTS)
    assert [given[0].tensor.data_ptr() - x.data_ptr() for _, given in planned] == [0, 2 * 32]
    assert [tiling_words(plan)[0] for plan, _ in planned] == [2, 4]
    assert all(given[-2].tensor is None for _, given in planned)  # no group list


def test_the_blocked_format_of_an_npu_is_recognised(
    planned: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeTorchNpu()
    fake.get_npu_format = lambda tensor: 29
    monkeypatch.setitem(sys.modules, "torch_npu", fake)
    x, y = torch.zeros(6, 32, dtype=I8), torch.zeros(6, 64, dtype=torch.int32)
    weight = torch.zeros(3, 32, 64, dtype=I8)
    multiply([x], [weight], [y], COUNTS)
    assert tiling_words(planned[0][0])[3] == 2
    assert planned[0][1][1].tensor is weight


def test_expected_rows_choose_the_tile(planned: list[Any]) -> None:
    x, y = torch.zeros(512, 256, dtype=I8), torch.zeros(512, 512, dtype=torch.int32)
    weight = torch.zeros(3, 256, 512, dtype=I8)
    for expected in (16, 128):
        multiply([x], [weight], [y], COUNTS, expected_rows=expected)
    assert [tiling_words(plan)[4] for plan, _ in planned] == [16, 128]


def test_tensors_of_an_npu_are_dispatched_here() -> None:
    device: Any = NpuDevice("npu")
    for operator in kernel_calls.FUNCTIONS:
        function = backends.function_for(operator, device, "x")
        assert function.func is kernel_calls.FUNCTIONS[operator]
        assert function.args == ("npu",)
    with pytest.raises(ValueError, match="input must be on a device that npu_dynamic_quant supports"):
        backends.function_for("dynamic_quant", device, "input")


_TRACED = """
import sys, types, torch
torch.utils.rename_privateuse1_backend("npu")
module = types.ModuleType("npu")
module.is_available, module.current_device, module.device_count = (lambda: True), (lambda: 0), (lambda: 1)
module._is_in_bad_fork = lambda: False
torch._register_device_module("npu", module)
import moe_jit
with torch._subclasses.FakeTensorMode():
    x = torch.empty(12, 64, dtype=torch.int32, device="npu:0")
    scale = torch.empty(64, device="npu:0")
    y, row_scale = moe_jit.npu_dequant_swiglu_quant(x, weight_scale=scale, quant_mode=1)
print(y.device, tuple(y.shape), tuple(row_scale.shape))
"""


def test_tensors_of_an_npu_are_traced() -> None:
    path = str(Path(moe_jit.__file__).parents[1])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([path, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", _TRACED], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "npu:0 (12, 32) (12,)", done.stderr
