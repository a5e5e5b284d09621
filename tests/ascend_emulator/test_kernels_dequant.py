"""Kernel of npu_dequant_swiglu_quant: every option against the CPU backend's bits, widths that fill no
instruction, and rows that are wider than a core holds at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.ascend import Inputs

import moe_jit

pytestmark = pytest.mark.ascend_emulator
INT32, F16, BF16, F32 = torch.int32, torch.float16, torch.bfloat16, torch.float32


def call(inputs: Inputs, rows: int, half: int, dtype: torch.dtype, counts: list[int] | None, **options: Any):
    """Random arguments; ``options`` name the dtype of a bias, and what there is of quant_scale."""
    groups = 1 if counts is None else len(counts)
    is_integer = dtype == INT32
    x = inputs.integers(rows, 2 * half, low=-60000, high=60000, dtype=INT32) if is_integer else None
    given: dict[str, Any] = {
        "x": inputs.normal(rows, 2 * half, dtype=dtype, std=2.0) if x is None else x,
        "quant_mode": options.get("quant_mode", 1),
        "swiglu_mode": options.get("swiglu_mode", 0),
        "activate_left": options.get("activate_left", True),
    }
    given["x"][rows // 2] = 0
    if is_integer:
        given["weight_scale"] = inputs.positive(groups, 2 * half, high=1e-4)
        if options.get("activation_scale", True):
            given["activation_scale"] = inputs.positive(rows, high=1.0)
    bias = options.get("bias")
    if bias is not None:
        shape = (groups, 2 * half)
        is_int = bias == INT32
        given["bias"] = inputs.integers(*shape, dtype=INT32) if is_int else inputs.normal(*shape, dtype=bias)
    if "quant_scale" in options:
        given["quant_scale"] = inputs.positive(groups, *options["quant_scale"], high=1.0)
    if "quant_offset" in options:
        given["quant_offset"] = inputs.normal(groups, *options["quant_offset"], std=5.0)
    if counts is not None:
        given["group_index"] = torch.tensor(counts)
    return given


def check(given: dict[str, Any], note: str, cores: tuple[int, ...] = (1, 3)) -> None:
    expected = moe_jit.npu_dequant_swiglu_quant(**given)
    for count in cores:
        with moe_jit.use_backend("ascend-emulator", cores=count, seed=count):
            result = moe_jit.npu_dequant_swiglu_quant(**given)
        for ours, cpu in zip(result, expected, strict=True):
            assert torch.equal(ours, cpu), f"{note}: {(ours != cpu).sum()} differ on {count} cores"
    assert expected[0].any(), note


COUNTS: list[list[int] | None] = [None, [5, 0, 9], [0, 14, 0, 1]]


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("dtype", "counts"), [(F16, None), *((dtype, counts) for dtype in (INT32, BF16) for counts in COUNTS)]
)
def test_activations(dtype: torch.dtype, mode: int, counts: list[int] | None) -> None:
    inputs = Inputs()
    left = inputs.random.choice((False, True))
    check(call(inputs, 17, 45, dtype, counts, swiglu_mode=mode, activate_left=left), inputs.note)


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("bias", [INT32, F32, F16, BF16])
def test_biases(bias: torch.dtype, counts: list[int] | None) -> None:
    inputs = Inputs()
    mode = inputs.random.choice((0, 1))
    scaled = inputs.random.choice((False, True))
    given = call(inputs, 17, 71, INT32, counts, bias=bias, swiglu_mode=mode, activation_scale=scaled)
    check(given, inputs.note)


@pytest.mark.parametrize("counts", COUNTS)
def test_smoothing_before_dynamic_scales(counts: list[int] | None) -> None:
    inputs = Inputs()
    check(call(inputs, 17, 64, INT32, counts, quant_scale=(64,)), inputs.note)


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("scale", [{}, {"quant_scale": (77,)}, {"quant_scale": (1,)}])
@pytest.mark.parametrize("has_offset", [False, True])
def test_static_scales(counts: list[int] | None, scale: dict[str, Any], has_offset: bool) -> None:
    inputs = Inputs()
    if has_offset:
        scale = scale | {"quant_offset": scale.get("quant_scale", (77,))}
    check(call(inputs, 17, 77, INT32, counts, quant_mode=0, **scale), inputs.note)


@pytest.mark.parametrize("mode", [0, 1])
@pytest.mark.parametrize("half", [1, 8, 2500, 5000])
@pytest.mark.parametrize("dtype", [INT32, BF16])
def test_widths(dtype: torch.dtype, half: int, mode: int) -> None:
    """Rows of a single value, and rows in several parts."""
    inputs = Inputs()
    given = call(inputs, 60 if half < 10 else 3, half, dtype, None, swiglu_mode=mode)
    check(given, inputs.note, cores=(2,))


def test_pairs_of_group_and_count() -> None:
    inputs = Inputs()
    given = call(inputs, 40, 32, INT32, [0, 0, 0])
    given["group_index"] = torch.tensor([[2, 12], [0, 9], [1, 0]])
    check(given, inputs.note)


@pytest.mark.parametrize("dtype", [INT32, BF16])
@pytest.mark.parametrize("num_groups", [1, 5, 64])
def test_many_groups(num_groups: int, dtype: torch.dtype) -> None:
    inputs = Inputs()
    counts = [3] + [inputs.random.choice((0, 1, 2, 7)) for _ in range(num_groups - 1)]
    given = call(inputs, sum(counts) + 5, 64, dtype, counts)
    check(given, inputs.note, cores=(1, 24))
