"""Random calls of the operators on rows, and the comparison of a GPU's results with the CPU's bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from support.ascend import Inputs, on_device
from support.calls import poisoned_allocations

F16, BF16, F32, I32 = torch.float16, torch.bfloat16, torch.float32, torch.int32
FINALIZED_DEPTH, FINALIZED_COLUMNS = 64, 288


def check_same(function: Callable[..., Any], arguments: dict[str, Any], note: str) -> None:
    """``arguments`` are on the CPU; NaN equals NaN."""
    expected = function(**arguments)
    with poisoned_allocations():
        actual = function(**on_device(arguments, "cuda"))
    check_same_bits(actual, expected, note)


def check_same_bits(actual: Any, expected: Any, note: str) -> None:
    """Of a tensor, or of several."""
    if isinstance(expected, torch.Tensor):
        actual, expected = [actual], [expected]
    for i, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert a.dtype == e.dtype
        a, e = a.cpu(), e.cpu()
        different = (a != e) & ~(a.isnan() & e.isnan()) if e.is_floating_point() else a != e
        where = different.nonzero()[:3].tolist()
        shown = [(w, a[tuple(w)].item(), e[tuple(w)].item()) for w in where]
        assert not different.any(), f"{note}: result {i} differs {int(different.sum())} times: {shown}"


def describe(arguments: dict[str, Any], note: str) -> str:
    settings = {
        name: f"{v.dtype} {tuple(v.shape)}" if isinstance(v, torch.Tensor) else v
        for name, v in arguments.items()
        if v is not None
    }
    return f"{note} {settings}"


def swiglu_call(
    inputs: Inputs, rows: int, half: int, dtype: torch.dtype, *, quant_mode: int, swiglu_mode: int
) -> dict[str, Any]:
    pick = inputs.random
    groups = None if dtype == F16 else pick.choice([None, 1, 3, 40, 300])
    table = (groups or 1, 2 * half)
    arguments: dict[str, Any] = {
        "quant_mode": quant_mode,
        "swiglu_mode": swiglu_mode,
        "activate_left": pick.random() < 0.5,
        "clamp_limit": pick.uniform(0.5, 9.0),
        "glu_alpha": pick.uniform(0.5, 2.0),
        "glu_bias": pick.uniform(-1.0, 1.0),
        "group_index": None
        if groups is None
        else inputs.counts(groups, pick.randint(max(1, rows // 2), rows)),
    }
    if dtype == I32:
        bias = pick.choice([None, I32, F32, F16, BF16])
        arguments |= {
            "x": inputs.integers(rows, 2 * half, low=-60000, high=60000, dtype=I32),
            "weight_scale": inputs.positive(*table, high=1e-4),
            "activation_scale": inputs.positive(rows) if pick.random() < 0.7 else None,
        }
        if bias is not None:
            of_all = (1, 2 * half) if groups == 1 else table
            integers = inputs.integers(*of_all, low=-30000, high=30000, dtype=I32)
            arguments["bias"] = integers if bias == I32 else inputs.normal(*of_all, dtype=bias)
    else:
        arguments["x"] = inputs.normal(rows, 2 * half, dtype=dtype, std=pick.choice([1.0, 3.0, 30.0]))
    if pick.random() < 0.5:
        arguments["quant_scale"] = inputs.positive(table[0], half, high=2.0)
        if quant_mode == 0 and pick.random() < 0.5:
            arguments["quant_offset"] = inputs.normal(table[0], half)
    return arguments


def dynamic_quant_call(
    inputs: Inputs, rows: int, width: int, dtype: torch.dtype, dst_type: torch.dtype
) -> dict[str, Any]:
    groups = inputs.random.choice([None, 1, 7, 200])
    arguments: dict[str, Any] = {"input": inputs.normal(rows, width, dtype=dtype), "dst_type": dst_type}
    if groups is not None:
        factors = inputs.random.choice([F32, dtype])
        arguments["smooth_scales"] = inputs.positive(groups, width, dtype=factors)
        arguments["group_index"] = inputs.counts(groups, rows).cumsum(0).int()
    return arguments


def finalize_call(
    inputs: Inputs, rows: int, output_rows: int, *, live: int | None = None, groups: int = 5, **options: Any
) -> dict[str, Any]:
    """A call with int8 weights on the CPU; indices outside the output are among the rows."""
    live = rows if live is None else live
    index_dtype = options.get("index_dtype", torch.int64)
    logit = inputs.normal(rows)
    logit[live:] = float("nan")
    given = {
        "x": inputs.integers(rows, FINALIZED_DEPTH),
        "w": inputs.integers(groups, FINALIZED_DEPTH, FINALIZED_COLUMNS),
        "group_list": inputs.counts(groups, live),
        "scale": inputs.positive(groups, FINALIZED_COLUMNS, high=1e-3),
        "pertoken_scale": inputs.positive(rows),
        "logit": logit,
        "row_index": inputs.integers(rows, low=-1, high=output_rows, dtype=index_dtype),
        "output_bs": output_rows,
    }
    return given | options.get("changes", {})
