"""Calls on an NPU: what is compiled and what a kernel is launched with. No NPU and no CANN are needed: a
stand-in for bisheng produces libraries that write down their arguments."""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import cann as stand_in
from support.cann import Cann

from moe_jit.ascend import kernel_calls, kernel_launch, launch, npu
from moe_jit.jit import ToolchainError, loader

STREAM = 0x5EED


class FakeTorchNpu(SimpleNamespace):
    """What of torch_npu a launch uses."""

    def __init__(self, **properties: Any) -> None:
        stream = SimpleNamespace(npu_stream=STREAM)
        super().__init__(
            npu=SimpleNamespace(
                current_stream=lambda: stream,
                get_device_properties=lambda device: SimpleNamespace(**properties),
            ),
            get_npu_format=lambda tensor: 2,
        )


@pytest.fixture
def cann(tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "torch_npu", FakeTorchNpu(cube_core_num=20))
    caches = (npu.num_cores, launch._function)
    for cached in caches:
        cached.cache_clear()
    yield stand_in.install(tmp_path / "cann", monkeypatch)
    loader._modules.clear()
    for cached in caches:
        cached.cache_clear()


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
