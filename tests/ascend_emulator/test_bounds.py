"""Kernels on the shapes of DeepSeek-V3 take at most 1.3 times what their products and their memory need.

Counted, not computed, with the emulator's times (``chip.h`` names the sources of its rates). Eight of the 256
experts, with 4, 128 and 1024 rows each: a small batch, a large one, a prompt.

``OWN`` lists what is held to another bound, because the chip has no faster way to the same bits: a pipe,
which must be busy nearly all the time, and a limit on the multiple of products and memory all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import moe_jit
from moe_jit.ascend import emulator_report
from moe_jit.ascend.emulator import LaunchReport

pytestmark = pytest.mark.ascend_emulator

EXPERTS, HIDDEN, INNER = 8, 7168, 2048
ROWS = [EXPERTS * 4, EXPERTS * 128, EXPERTS * 1024]

# All pipes of a core, one after the other: a row for each core has nothing to overlap with.
CHAIN = "chain"
OWN = {
    ("swiglu of int32", ROWS[0]): (CHAIN, 1.4),
    ("swiglu of bfloat16", ROWS[0]): (CHAIN, 2.0),
}
GROUP = 256  # of k
# Columns, and groups of k with scales of their own: with many rows every sum of a group is stored, once.
STORED = {
    "int8 by int4, groups of k": (2 * INNER, HIDDEN // GROUP),
    "int4 by int4, groups of k": (2 * INNER, HIDDEN // GROUP),
    "finalize routing, groups of k": (HIDDEN, INNER // GROUP),
}


def launches(function: Callable[..., Any], *args: Any, **kwargs: Any) -> list[LaunchReport]:
    with moe_jit.use_backend("ascend-emulator"), emulator_report(count_only=True) as report:
        function(*args, **kwargs)
    return report.launches


def product(
    x: torch.dtype, w: torch.dtype, y: torch.dtype, **tables: torch.dtype
) -> Callable[[int], list[LaunchReport]]:
    """Gate and up projection; ``tables`` are the dtypes of scales of shape [E, n]."""

    def run(rows: int) -> list[LaunchReport]:
        n = 2 * INNER
        given = {name: [torch.ones(EXPERTS, n, dtype=dtype)] for name, dtype in tables.items()}
        if "scale" in given and y == torch.bfloat16:
            given["per_token_scale"] = [torch.ones(rows)]
        return launches(
            moe_jit.npu_grouped_matmul,
            [torch.empty(rows, HIDDEN, dtype=x)],
            [torch.empty(EXPERTS, HIDDEN, n, dtype=w)],
            output_dtype=y,
            group_list=torch.full((EXPERTS,), rows // EXPERTS),
            group_list_type=1,
            group_type=0,
            split_item=3,
            **given,
        )

    return run


def product_with_int4(x: torch.dtype, k_groups: int = 1) -> Callable[[int], list[LaunchReport]]:
    """The same with two weights in a byte; int32 holds eight int4 of x."""
    packed = x == torch.int32

    def run(rows: int) -> list[LaunchReport]:
        n = 2 * INNER
        if x == torch.int8:
            tables = {
                "bias": [torch.ones(EXPERTS, n)],
                "scale": [torch.ones(EXPERTS, k_groups, n, dtype=torch.int64)],
                "per_token_scale": [torch.ones(rows)],
            }
        elif packed:
            tables = {"scale": [torch.ones(EXPERTS, k_groups, n, dtype=torch.uint64)]}
        else:
            names = ("antiquant_scale", "antiquant_offset")
            tables = {name: [torch.ones(EXPERTS, n, dtype=x)] for name in names}
        return launches(
            moe_jit.npu_grouped_matmul,
            [torch.empty(rows, HIDDEN // 8 if packed else HIDDEN, dtype=x)],
            [torch.empty(EXPERTS, HIDDEN, n // 8, dtype=torch.int32)],
            output_dtype=x if x.is_floating_point else torch.bfloat16,
            group_list=torch.full((EXPERTS,), rows // EXPERTS),
            group_list_type=1,
            group_type=0,
            split_item=3,
            **tables,
        )

    return run


def swiglu(dtype: torch.dtype) -> Callable[[int], list[LaunchReport]]:
    def run(rows: int) -> list[LaunchReport]:
        scales = {"weight_scale": torch.ones(EXPERTS, 2 * INNER), "activation_scale": torch.ones(rows)}
        return launches(
            moe_jit.npu_dequant_swiglu_quant,
            torch.empty(rows, 2 * INNER, dtype=dtype),
            group_index=torch.full((EXPERTS,), rows // EXPERTS),
            activate_left=True,
            quant_mode=1,
            **(scales if dtype == torch.int32 else {}),
        )

    return run


def finalize(rows: int, k_groups: int = 0) -> list[LaunchReport]:
    """Down projection and weighted sum of two experts for each token; int4 weights with groups of k."""
    if k_groups:
        weight = torch.empty(EXPERTS, INNER, HIDDEN // 8, dtype=torch.int32)
        scale = torch.ones(EXPERTS, k_groups, HIDDEN, dtype=torch.int64)
        tables = {"scale": scale, "bias": torch.ones(EXPERTS, HIDDEN)}
    else:
        weight = torch.empty(EXPERTS, INNER, HIDDEN, dtype=torch.int8)
        tables = {"scale": torch.ones(EXPERTS, HIDDEN)}
    return launches(
        moe_jit.npu_grouped_matmul_finalize_routing,
        torch.empty(rows, INNER, dtype=torch.int8),
        weight,
        torch.full((EXPERTS,), rows // EXPERTS),
        **tables,
        pertoken_scale=torch.ones(rows),
        logit=torch.ones(rows),
        row_index=torch.arange(rows) % (rows // 2),
        output_bs=rows // 2,
    )


KERNELS = {
    "int8 to int32": product(torch.int8, torch.int8, torch.int32),
    "int8 to int8": product(torch.int8, torch.int8, torch.int8, scale=torch.int64),
    "int8 to bfloat16": product(torch.int8, torch.int8, torch.bfloat16, scale=torch.float32),
    "bfloat16": product(torch.bfloat16, torch.bfloat16, torch.bfloat16),
    "float32": product(torch.float32, torch.float32, torch.float32),
    "bfloat16 by int8": product(
        torch.bfloat16,
        torch.int8,
        torch.bfloat16,
        antiquant_scale=torch.bfloat16,
        antiquant_offset=torch.bfloat16,
    ),
    "float16 by int8": product(
        torch.float16,
        torch.int8,
        torch.float16,
        antiquant_scale=torch.float16,
        antiquant_offset=torch.float16,
    ),
    "int8 by int4": product_with_int4(torch.int8),
    "int8 by int4, groups of k": product_with_int4(torch.int8, HIDDEN // GROUP),
    "int4 by int4": product_with_int4(torch.int32),
    "int4 by int4, groups of k": product_with_int4(torch.int32, HIDDEN // GROUP),
    "float16 by int4": product_with_int4(torch.float16),
    "bfloat16 by int4": product_with_int4(torch.bfloat16),
    "finalize routing": finalize,
    "finalize routing, groups of k": partial(finalize, k_groups=INNER // GROUP),
    "swiglu of int32": swiglu(torch.int32),
    "swiglu of bfloat16": swiglu(torch.bfloat16),
}


def _case(name: str, rows: int) -> Any:
    counts_for_long = "float16 by" in name and rows == ROWS[-1]
    return pytest.param(name, rows, marks=pytest.mark.slow if counts_for_long else ())


@pytest.mark.parametrize(("name", "rows"), [_case(name, rows) for name in KERNELS for rows in ROWS])
def test_time_is_close_to_the_bound(name: str, rows: int) -> None:
    (launch,) = KERNELS[name](rows)
    assert launch.seconds >= launch.bound_seconds
    bound = launch.bound_seconds
    if name in STORED and rows > ROWS[0]:
        columns, groups = STORED[name]
        assert launch.bytes["L0C_GM"] == 4 * rows * columns * groups
        bound = max(bound, launch.store_seconds)
    pipe, limit = OWN.get((name, rows), ("", 1.3))
    assert launch.seconds <= limit * bound, launch
    if pipe:
        assert launch.seconds <= 1.1 * busiest(launch, pipe), launch


def busiest(launch: LaunchReport, pipe: str) -> float:
    """Seconds that the pipe of a core works, or all pipes of one together."""
    cores = launch.busy_seconds.values()
    return max(sum(busy.values()) if pipe == CHAIN else busy.get(pipe, 0.0) for busy in cores)


@pytest.mark.parametrize("rows", ROWS)
def test_weights_are_read_once_from_memory(rows: int) -> None:
    (launch,) = KERNELS["int8 to int32"](rows)
    weights, x, y = EXPERTS * HIDDEN * 2 * INNER, rows * HIDDEN, rows * 2 * INNER * 4
    assert launch.hbm_bytes == pytest.approx(weights + x + y, rel=1e-3)
    assert launch.cube_operations["i8"] >= 2 * rows * HIDDEN * 2 * INNER
    assert launch.bytes["L0C_GM"] == y
