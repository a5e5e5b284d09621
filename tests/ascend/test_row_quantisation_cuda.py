"""npu_dequant_swiglu_quant and npu_dynamic_quant on a GPU: the bits of the CPU, replayed and repeated."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from support.ascend import Inputs, on_device
from support.random_calls import check_same, describe, dynamic_quant_call, swiglu_call

import moe_jit

pytestmark = pytest.mark.cuda

F16, BF16, F32, I32 = torch.float16, torch.bfloat16, torch.float32, torch.int32
Result = tuple[torch.Tensor, torch.Tensor]
# Widths of y: those read in vectors (with one or both runs of a thread's elements), and others.
HALVES = [1, 5, 8, 12, 16, 77, 130, 384, 768, 1000, 1536, 2048, 2052, 4096]


@pytest.fixture
def inputs() -> Inputs:
    return Inputs("cpu")


def bits(inputs: Inputs, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Any bits: subnormal numbers, infinities and NaN among them."""
    if dtype.itemsize == 2:
        return inputs.integers(*shape, low=-(2**15), high=2**15 - 1, dtype=torch.int16).view(dtype)
    return inputs.integers(*shape, low=-(2**31), high=2**31 - 1, dtype=I32).view(dtype)


@pytest.mark.parametrize("swiglu_mode", [0, 1, 2, 3])
@pytest.mark.parametrize("quant_mode", [0, 1])
@pytest.mark.parametrize("dtype", [I32, BF16, F16])
def test_swiglu_has_the_bits_of_the_cpu(
    inputs: Inputs, dtype: torch.dtype, quant_mode: int, swiglu_mode: int
):
    for half in HALVES:
        rows = inputs.random.choice([1, 2, 33, 700])
        arguments = swiglu_call(inputs, rows, half, dtype, quant_mode=quant_mode, swiglu_mode=swiglu_mode)
        check_same(moe_jit.npu_dequant_swiglu_quant, arguments, describe(arguments, inputs.note))


@pytest.mark.parametrize("dtype", [I32, BF16])
@pytest.mark.parametrize(
    ("rows", "width"),
    [(30000, 512), (20000, 1536), (9000, 1536), (4000, 1536), (2000, 1536), (4100, 3072), (4100, 4096)],
)
def test_swiglu_of_many_rows(inputs: Inputs, rows: int, width: int, dtype: torch.dtype):
    """One, two, three or more for each CTA that runs at once, of which some may be of no group."""
    arguments = swiglu_call(inputs, rows, width // 2, dtype, quant_mode=1, swiglu_mode=0)
    check_same(moe_jit.npu_dequant_swiglu_quant, arguments, describe(arguments, inputs.note))


@pytest.mark.parametrize("quant_mode", [0, 1])
@pytest.mark.parametrize("dtype", [BF16, F16])
def test_swiglu_of_any_bits(inputs: Inputs, dtype: torch.dtype, quant_mode: int):
    for half in (1, 8, 24, 256):
        x = bits(inputs, dtype, 400, 2 * half)
        x[100:200] = torch.where(x[100:200].isnan(), 1, x[100:200]).clamp(-100, 100)
        x[200:300, : 2 * half - 1] = 0
        check_same(
            moe_jit.npu_dequant_swiglu_quant,
            {"x": x, "quant_mode": quant_mode, "activate_left": inputs.random.random() < 0.5},
            f"{inputs.note} {dtype} {half}",
        )


@pytest.mark.parametrize("recipe", ["grouped", "ungrouped"])
def test_swiglu_of_extreme_scales(inputs: Inputs, recipe: str):
    """Rows whose magnitudes lie anywhere in the range of float32, subnormal numbers included."""
    rows, half = 600, 64
    exponents = inputs.integers(rows, low=-149, high=110, dtype=F32)
    arguments = {
        "x": inputs.integers(rows, 2 * half, low=-60000, high=60000, dtype=I32),
        "weight_scale": inputs.positive(1, 2 * half),
        "activation_scale": torch.ldexp(torch.ones(rows), exponents),
        "quant_mode": 1,
        "group_index": torch.tensor([rows]) if recipe == "grouped" else None,
    }
    check_same(moe_jit.npu_dequant_swiglu_quant, arguments, inputs.note)
    arguments["quant_scale"] = torch.ldexp(torch.ones(1, half), inputs.integers(1, half, low=-140, high=120))
    check_same(moe_jit.npu_dequant_swiglu_quant, arguments, inputs.note)


def test_swiglu_of_large_gates(inputs: Inputs):
    """Gates far below zero, where the sigmoid vanishes, beside large linear values."""
    gate = -torch.rand(300, 128, generator=inputs.gen) * 200
    linear = torch.ldexp(inputs.normal(300, 128), inputs.integers(300, 128, low=-20, high=100))
    x = torch.cat([gate, linear], dim=1).bfloat16()
    check_same(
        moe_jit.npu_dequant_swiglu_quant, {"x": x, "activate_left": True, "quant_mode": 1}, inputs.note
    )


def test_swiglu_of_unaligned_tensors(inputs: Inputs):
    x = inputs.normal(41, 64, dtype=BF16).cuda()
    shifted = torch.empty(x.numel() + 1, dtype=BF16, device="cuda")[1:].view(41, 64).copy_(x)
    for a, b in zip(
        moe_jit.npu_dequant_swiglu_quant(shifted, quant_mode=1),
        moe_jit.npu_dequant_swiglu_quant(x, quant_mode=1),
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dst_type", [torch.int8, torch.quint4x2])
@pytest.mark.parametrize("dtype", [F32, F16, BF16])
def test_dynamic_quant_has_the_bits_of_the_cpu(inputs: Inputs, dtype: torch.dtype, dst_type: torch.dtype):
    step = 8 if dst_type == torch.quint4x2 else 1
    for width in (8, 16, 136, 2048, 4096, 7168, 20000, *([] if step == 8 else [1, 7, 1001])):
        arguments = dynamic_quant_call(inputs, inputs.random.choice([1, 3, 90, 600]), width, dtype, dst_type)
        check_same(moe_jit.npu_dynamic_quant, arguments, describe(arguments, inputs.note))
    any_bits = {"input": bits(inputs, dtype, 500, 40), "dst_type": dst_type}
    check_same(moe_jit.npu_dynamic_quant, any_bits, f"{inputs.note} any bits")


def captured(function: Callable[[], Result]) -> tuple[torch.cuda.CUDAGraph, Result]:
    function()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = function()
    return graph, result


@pytest.mark.parametrize("rows", [1, 50, 2000])
def test_replay_follows_changed_inputs(inputs: Inputs, rows: int):
    groups, half = 20, 768
    x = inputs.integers(rows, 2 * half, low=-60000, high=60000, dtype=I32).cuda()
    scale, counts = inputs.positive(groups, 2 * half, high=1e-4).cuda(), inputs.counts(groups, rows).cuda()

    def quantise() -> Result:
        y, row_scale = moe_jit.npu_dequant_swiglu_quant(
            x, weight_scale=scale, group_index=counts, quant_mode=1, activate_left=True
        )
        return moe_jit.npu_dynamic_quant(y.float() * row_scale[:, None])

    graph, (y, row_scale) = captured(quantise)
    for change in ("nothing", "x", "counts", "no rows"):
        if change == "x":
            x.copy_(inputs.integers(rows, 2 * half, low=-9000, high=9000, dtype=I32))
        elif change == "counts":
            counts.copy_(inputs.counts(groups, max(1, rows // 3)))
        elif change == "no rows":
            counts.zero_()
        y.fill_(99)
        row_scale.fill_(99)
        graph.replay()
        expected = quantise()
        assert torch.equal(y, expected[0]), f"{inputs.note} {change}"
        assert torch.equal(row_scale, expected[1]), f"{inputs.note} {change}"
        assert change != "no rows" or not y.any()


def test_calls_do_not_synchronise(inputs: Inputs):
    x, counts = inputs.normal(64, 512, dtype=BF16).cuda(), torch.tensor([20, 30]).cuda()
    calls = [
        lambda: moe_jit.npu_dequant_swiglu_quant(x, group_index=counts, quant_mode=1),
        lambda: moe_jit.npu_dynamic_quant(x),
    ]
    for call in calls:
        call()
        torch.cuda.set_sync_debug_mode("error")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_results_repeat(inputs: Inputs):
    arguments = on_device(swiglu_call(inputs, 3000, 2048, I32, quant_mode=1, swiglu_mode=0), "cuda")
    first = moe_jit.npu_dequant_swiglu_quant(**arguments)
    for _ in range(5):
        again = moe_jit.npu_dequant_swiglu_quant(**arguments)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True)), inputs.note
