"""Launches of every Ascend kernel on the shapes of DeepSeek-V3, with the emulator's estimates.

Eight of the 256 experts; the gate and up projection is [HIDDEN, 2 * INNER], the down projection [INNER,
HIDDEN].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import moe_jit
from moe_jit.ascend import emulator_report
from moe_jit.ascend.emulator import LaunchReport

EXPERTS, HIDDEN, INNER = 8, 7168, 2048
GROUP = 256  # of k


def launch(function: Callable[..., Any], *args: Any, count_only: bool = True, **kwargs: Any) -> LaunchReport:
    with moe_jit.use_backend("ascend-emulator"), emulator_report(count_only) as report:
        function(*args, **kwargs)
    (one,) = report.launches
    return one


def product(
    x: torch.dtype, w: torch.dtype, y: torch.dtype, **tables: torch.dtype
) -> Callable[[int], LaunchReport]:
    """Gate and up projection; ``tables`` are the dtypes of scales of shape [E, n]."""

    def run(rows: int) -> LaunchReport:
        n = 2 * INNER
        given = {name: [torch.ones(EXPERTS, n, dtype=dtype)] for name, dtype in tables.items()}
        if "scale" in given and y == torch.bfloat16:
            given["per_token_scale"] = [torch.ones(rows)]
        return launch(
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


def product_with_int8(x: torch.dtype) -> Callable[[int], LaunchReport]:
    """The same with 16-bit x."""
    return product(x, torch.int8, x, antiquant_scale=x, antiquant_offset=x)


def product_with_int4(x: torch.dtype, k_groups: int = 1) -> Callable[[int], LaunchReport]:
    """The same with two weights in a byte; int32 holds eight int4 of x."""
    packed = x == torch.int32

    def run(rows: int) -> LaunchReport:
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
        return launch(
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


def swiglu(dtype: torch.dtype) -> Callable[[int], LaunchReport]:
    def run(rows: int) -> LaunchReport:
        scales = {"weight_scale": torch.ones(EXPERTS, 2 * INNER), "activation_scale": torch.ones(rows)}
        return launch(
            moe_jit.npu_dequant_swiglu_quant,
            torch.empty(rows, 2 * INNER, dtype=dtype),
            group_index=torch.full((EXPERTS,), rows // EXPERTS),
            activate_left=True,
            quant_mode=1,
            **(scales if dtype == torch.int32 else {}),
        )

    return run


def finalize(rows: int, k_groups: int = 0) -> LaunchReport:
    """Down projection and weighted sum of two experts for each token; int4 weights with groups of k. Not only
    counted: which products belong to a token is computed."""
    if k_groups:
        weight = torch.zeros(EXPERTS, INNER, HIDDEN // 8, dtype=torch.int32)
        scale = torch.ones(EXPERTS, k_groups, HIDDEN, dtype=torch.int64)
        tables = {"scale": scale, "bias": torch.ones(EXPERTS, HIDDEN)}
    else:
        weight = torch.zeros(EXPERTS, INNER, HIDDEN, dtype=torch.int8)
        tables = {"scale": torch.ones(EXPERTS, HIDDEN)}
    return launch(
        moe_jit.npu_grouped_matmul_finalize_routing,
        torch.zeros(rows, INNER, dtype=torch.int8),
        weight,
        torch.full((EXPERTS,), rows // EXPERTS),
        **tables,
        pertoken_scale=torch.ones(rows),
        logit=torch.ones(rows),
        row_index=torch.arange(rows) % (rows // 2),
        output_bs=rows // 2,
        count_only=False,
    )


KERNELS = {
    "int8 to int32": product(torch.int8, torch.int8, torch.int32),
    "int8 to int8": product(torch.int8, torch.int8, torch.int8, scale=torch.int64),
    "int8 to bfloat16": product(torch.int8, torch.int8, torch.bfloat16, scale=torch.float32),
    "bfloat16": product(torch.bfloat16, torch.bfloat16, torch.bfloat16),
    "float32": product(torch.float32, torch.float32, torch.float32),
    "bfloat16 by int8": product_with_int8(torch.bfloat16),
    "float16 by int8": product_with_int8(torch.float16),
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
