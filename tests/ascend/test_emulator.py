"""The operators through the emulator: bits of the CPU backend, errors and reports."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.ascend import Inputs
from support.ascend_calls import BASES, function_of
from support.matmul import I8, INT4, ROWS, Problem

import moe_jit
from moe_jit import use_backend
from moe_jit.ascend import EmulatorError, emulator_report, last_report
from moe_jit.ascend.launch import Kernel
from moe_jit.backends import EMULATOR
from moe_jit.jit import SourceTree, load
from moe_jit.jit.spec import package_sources

pytestmark = pytest.mark.ascend_emulator
INTEGERS = [name for name, row in ROWS.items() if row.x == row.w == I8]


@pytest.mark.parametrize("act_type", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("name", INTEGERS)
def test_integer_products_have_the_bits_of_the_cpu(name: str, act_type: int) -> None:
    act_type = act_type if ROWS[name].y not in (I8, torch.int32) else 0
    problem = Problem(Inputs(), ROWS[name], [3, 0, 21, 1], 75, 61, tail=2, act_type=act_type)
    (on_cpu,) = problem.call()
    for cores in (1, 24):
        with use_backend(EMULATOR, cores=cores):
            assert torch.equal(problem.call()[0], on_cpu), problem.inputs.note


@pytest.mark.parametrize("base", ["swiglu", "swiglu static", "swiglu bf16"])
def test_quantised_activations_have_the_bits_of_the_cpu(base: str) -> None:
    arguments = {**BASES[base]}
    inputs = Inputs()
    x = arguments["x"]
    if x.dtype == torch.int32:
        arguments["x"] = inputs.integers(*x.shape, low=-60000, high=60000, dtype=torch.int32)
        arguments["weight_scale"] = inputs.positive(*arguments["weight_scale"].shape, high=1e-4)
    else:
        arguments["x"] = inputs.normal(*x.shape, dtype=x.dtype, std=3.0)
    on_cpu = function_of(base)(**arguments)
    with use_backend(EMULATOR):
        for result, expected in zip(function_of(base)(**arguments), on_cpu, strict=True):
            assert torch.equal(result, expected), inputs.note


@pytest.mark.slow
@pytest.mark.parametrize("name", ["i8-i32", "i8-bf16-token", "i8i4-bf16", "bf16", "bf16-i8"])
def test_sizes_of_a_model(name: str) -> None:
    """Several tiles of k, n and rows for each of 24 cores."""
    inputs = Inputs()
    problem = Problem(inputs, ROWS[name], inputs.counts(64, 600).tolist(), 2048, 1536)
    with use_backend(EMULATOR, cores=24):
        problem.check(problem.call()[0])


def test_pairs_select_among_several_weights() -> None:
    inputs = Inputs()
    x, weights = inputs.integers(10, 64), list(inputs.integers(4, 64, 32).unbind(0))
    pairs = torch.tensor([[3, 2], [0, 3], [2, 3], [1, 0]])
    options = {"group_list": pairs, "group_list_type": 2, "group_type": 0, "split_item": 3}
    (on_cpu,) = moe_jit.npu_grouped_matmul([x], weights, output_dtype=torch.int32, **options)
    with use_backend(EMULATOR, cores=3):
        (y,) = moe_jit.npu_grouped_matmul([x], weights, output_dtype=torch.int32, **options)
    assert torch.equal(y, on_cpu), inputs.note


@pytest.mark.parametrize(
    "quantisation",
    [
        {"quant_scale": (1, 1), "quant_mode": 1},
        {"quant_scale": (1, 1)},
        {"quant_offset": (1, 1)},
        {"quant_scale": (1,), "quant_offset": (1,)},
    ],
)
@pytest.mark.parametrize("half", [1, 9])
def test_parameters_of_one_column(half: int, quantisation: dict[str, Any]) -> None:
    inputs = Inputs()
    if half > 1 and "quant_mode" in quantisation:
        quantisation = quantisation | {"quant_scale": (1, half)}
    given = {k: inputs.positive(*v) if isinstance(v, tuple) else v for k, v in quantisation.items()}
    x = inputs.normal(7, 2 * half, dtype=torch.bfloat16, std=3.0)
    on_cpu = moe_jit.npu_dequant_swiglu_quant(x, **given)
    with use_backend(EMULATOR, cores=3):
        for result, expected in zip(moe_jit.npu_dequant_swiglu_quant(x, **given), on_cpu, strict=True):
            assert torch.equal(result, expected), inputs.note


# ---- what has no kernel


def test_products_that_split_k_raise() -> None:
    message = r"group_type must be -1 or 0 on an Ascend kernel \(2 splits k\), got 2"
    with use_backend(EMULATOR), pytest.raises(ValueError, match=message):
        moe_jit.npu_grouped_matmul(**BASES["depth"])


def test_small_blocks_of_int4_are_not_copied_silently() -> None:
    problem = Problem(Inputs(), ROWS["i4-bf16"], [4, 3], 64, 64)
    blocked = moe_jit.npu_convert_weight_to_int4pack(moe_jit.npu_format_cast(problem.w.int(), 29))
    with use_backend(EMULATOR), pytest.raises(ValueError, match="weight must be in blocks of 32 bytes"):
        problem.call(weight=[blocked])
    assert ROWS["i4-bf16"].w == INT4


# ---- reports


def test_report_of_a_call() -> None:
    problem = Problem(Inputs(), ROWS["i8-i32"], [20, 12], 256, 128, bias=False)
    with use_backend(EMULATOR, cores=2), emulator_report() as report:
        problem.call()
        assert last_report() is report.launches[0]
        problem.call(weight=list(problem.w.unbind(0)))
    kernels = [launch.kernel for launch in report.launches]
    assert kernels == ["grouped_matmul_i8_i32"] * 3  # a stacked weight at once, a list one by one
    first = report.launches[0]
    assert first.cube_operations["i8"] == 2 * (32 + 16) * 256 * 128  # whole fractals of 16 rows
    assert set(first.cores) == {"AIC 0", "AIC 1", *(f"AIV {i}" for i in range(4))}
    assert first.bytes["GM_L1"] >= 32 * 256 + 2 * 256 * 128
    assert first.seconds >= first.bound_seconds >= first.memory_seconds > 0
    assert report.seconds == sum(launch.seconds for launch in report.launches)
    assert report.bytes["GM_L1"] == sum(launch.bytes["GM_L1"] for launch in report.launches)


def test_nothing_is_reported_outside() -> None:
    problem = Problem(Inputs(), ROWS["i8-i32"], [4], 32, 32)
    with emulator_report() as report:
        problem.call()
    assert report.launches == []


# ---- errors, with a kernel that breaks a rule

_KERNEL = """
#include "kernel_operator.h"
extern "C" __global__ __aicore__ void halves(GM_ADDR x, GM_ADDR y) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    AscendC::TPipe pipe;
    AscendC::TQue<AscendC::TPosition::VECIN, 1> queue;
    pipe.InitBuffer(queue, 1, 256);
    AscendC::GlobalTensor<float> in;
    in.SetGlobalBuffer(reinterpret_cast<__gm__ float*>(x));
    auto local = queue.AllocTensor<float>();
    AscendC::DataCopy(local, in, 64);  // beyond x
    queue.FreeTensor(local);
}
"""


def test_violations_name_file_core_and_tensor(tmp_path: Any, cache_dir: Any) -> None:
    from moe_jit.ascend import emulator
    from moe_jit.ascend.launch import Argument, Role

    sources = package_sources()
    (tmp_path / "csrc" / "ascend").mkdir(parents=True)
    (tmp_path / "include").symlink_to(sources.include)
    (tmp_path / "csrc" / "ascend" / "launch").symlink_to(sources.csrc / "ascend" / "launch")
    (tmp_path / "csrc" / "ascend" / "halves.cpp").write_text(_KERNEL)
    kernel = Kernel("ascend/halves.cpp", "halves", 2)
    function = load(kernel.module(EMULATOR), SourceTree(tmp_path))["launch"]
    arguments = [Argument("x", torch.ones(63)), Argument("y", torch.empty(64), Role.OUTPUT)]
    with pytest.raises(EmulatorError, match=r"halves: csrc/ascend/halves\.cpp:11: AIV 0: DataC") as caught:
        emulator.run(function, "halves", 1, arguments)
    assert caught.value.file == "csrc/ascend/halves.cpp"
    assert caught.value.line == 11
    assert caught.value.core == "AIV 0"
    assert "'x'" in caught.value.tensor
    assert caught.value.kernel == "halves"
