"""One small configuration of every GPU kernel, for compute-sanitizer.

    python tests/sanitize.py --list
    python tests/sanitize.py                                    # compiles the modules
    compute-sanitizer --tool racecheck --error-exitcode 1 --kernel-name kernel_substring=moe_jit \\
        python tests/sanitize.py 'fp8-tile8*' finalize-index    # names, or patterns of names

Every result is compared with a reference as well. Tensors get allocations of their own, so that memcheck
sees an access beyond one of them. ``--part 1/4`` runs every fourth configuration, from the first one.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "python"))

import torch
from support.ascend import Inputs, on_device
from support.grouped_depth import check_product, multiply, operands
from support.matmul import ROWS, Problem
from support.matmul_kernels import KERNELS, Kernel, planned_for
from support.random_calls import (
    check_same_bits,
    dynamic_quant_call,
    finalize_call,
    swiglu_call,
)
from support.tiles import forced_tile
from test_fuzz import Case, Variant, check_case

import moe_jit
from moe_jit.enums import ActivationType, RoutingMethodType
from moe_jit.plan import TILE_TOKENS

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
BF16, F16, F32, I32 = torch.bfloat16, torch.float16, torch.float32, torch.int32
Run = Callable[[], None]

# ---- the FP8 layer

LISTED_TOKENS = 5  # the GEMMs start while routing runs
ONE_BLOCK_TOKENS = 20  # routed by one kernel of one block
SEVERAL_BLOCK_TOKENS = 70  # routed by two kernels
ODD_SIZES = {"weight_layout": "w1_w3", "hidden_size": 208, "intermediate_size": 176, "num_local": 5}

CASE = Case(
    seed=0,
    num_tokens=SEVERAL_BLOCK_TOKENS,
    hidden_size=256,
    intermediate_size=160,
    weight_layout="shuffled",
    num_experts=8,
    top_k=3,
    num_local=8,
)


def run_fp8(variant: Variant, case: Case) -> None:
    with forced_tile(variant.tile_tokens):
        check_case(case, variant, DEVICE)


def fp8_configurations() -> dict[str, Run]:
    """All routing paths and tails in every dimension for each tile; the other kernels once."""
    few = replace(CASE, num_tokens=ONE_BLOCK_TOKENS)
    listed = replace(CASE, num_tokens=LISTED_TOKENS)
    grouped = replace(CASE, settings={"n_group": 4, "topk_group": 2}, bias_dtype=torch.float32)
    first = Variant(RoutingMethodType.Renormalize, 32, ActivationType.Swiglu, TILE_TOKENS[0])
    routed, deepseek = replace(first, method=None), replace(first, method=RoutingMethodType.DeepSeekV3)
    table = {}
    for tile in TILE_TOKENS:
        several = replace(CASE, hot_expert=True, num_tokens=max(SEVERAL_BLOCK_TOKENS, tile + 10))
        table[f"tile{tile}"] = (replace(first, tile_tokens=tile), several)
        table[f"tile{tile}-odd"] = (replace(first, tile_tokens=tile), replace(few, **ODD_SIZES, offset=2))
    for tile in TILE_TOKENS[:2]:
        odd = replace(listed, **ODD_SIZES, offset=2)
        table[f"tile{tile}-listed"] = (replace(first, tile_tokens=tile), odd)
    table |= {
        "relu2": (replace(first, activation=ActivationType.Relu2), few),
        "routed": (routed, CASE),
        "routed-few": (routed, replace(few, scale_input=True)),
        "routed-listed": (routed, replace(listed, scale_input=True)),
        "parts-of-k": (first, replace(listed, hidden_size=96, intermediate_size=8208, weight_layout="w1_w3")),
        "groups": (deepseek, grouped),
        "groups-few": (deepseek, replace(grouped, num_tokens=ONE_BLOCK_TOKENS)),
        "groups-listed": (deepseek, replace(grouped, num_tokens=LISTED_TOKENS)),
    }
    return {f"fp8-{name}": partial(run_fp8, *entry) for name, entry in table.items()}


# ---- the operators of Ascend

DEPTH = 1600  # of k, about: more than a ring of stages holds
COLUMNS = 300  # a tail after two tiles of weights


def run_product(kernel: Kernel, counts: list[int], depth: int, columns: int) -> None:
    steps = kernel.steps(depth, columns)
    problem = kernel.problem(Inputs(), counts, *steps, tail=2)
    arguments = on_device(problem.arguments(), DEVICE)
    with planned_for(kernel):
        (y,) = moe_jit.npu_grouped_matmul(**arguments)
    problem.check(y)


def product_configurations() -> dict[str, Run]:
    table = {}
    for kernel in KERNELS:
        direct = kernel.tile is None
        counts = [3, 0, 5 if direct else kernel.tile // 2 + 3]
        sizes = (70, 40) if direct else (DEPTH, COLUMNS)
        table[f"product-{kernel}"] = partial(run_product, kernel, counts, *sizes)
    # More tiles than CTAs run at once.
    many = next(kernel for kernel in KERNELS if kernel.row == "i8-i32" and kernel.tile == 16)
    table["product-many-tiles"] = partial(run_product, many, [1] * 100, 256, COLUMNS)
    table |= {f"product-separate-{row}": partial(run_separate, row) for row in ("bf16", "f16-i8")}
    table["product-depth-narrow"] = partial(run_depth, 56, [70, 0, 300, 1, 64], BF16)
    table["product-depth-wide"] = partial(run_depth, 328, [1, 0, 700, 30], F16)
    table["product-depth-many-groups"] = partial(run_depth, 72, [3, 0] * 150, BF16)
    return table


def run_separate(row: str) -> None:
    """Every x, weight and y is a tensor of its own."""
    problem = Problem(Inputs(DEVICE), ROWS[row], [3, 0, 70], 256, COLUMNS + 4, stacked=False)
    arguments = problem.arguments() | {"x": list(problem.x.split(problem.counts))}
    arguments |= {"split_item": 0, "group_type": -1, "group_list": None}
    problem.check(torch.cat(moe_jit.npu_grouped_matmul(**arguments)))


def run_depth(columns: int, counts: list[int], dtype: torch.dtype) -> None:
    """Groups of k; ``columns`` of x."""
    x, w = operands(Inputs(DEVICE), dtype, sum(counts) + 5, columns, COLUMNS + 4)
    check_product(multiply(x, [w], counts), x, w, counts, "")


def run_bitwise(function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    check_same_bits(function(**on_device(arguments, DEVICE)), function(**arguments), "")


def run_swiglu(rows: int, half: int, dtype: torch.dtype, quant_mode: int, swiglu_mode: int) -> None:
    settings = {"quant_mode": quant_mode, "swiglu_mode": swiglu_mode}
    run_bitwise(moe_jit.npu_dequant_swiglu_quant, swiglu_call(Inputs(), rows, half, dtype, **settings))


def run_finalize(rows: int, output_rows: int) -> None:
    inputs = Inputs()
    given = finalize_call(inputs, rows, output_rows, live=rows - 5)
    given["bias"] = inputs.normal(*given["scale"].shape, dtype=BF16)
    given["shared_input"] = inputs.normal(output_rows, given["w"].shape[2])
    with planned_for(Kernel("i8-f16-token", "nd", 16)):
        run_bitwise(moe_jit.npu_grouped_matmul_finalize_routing, given)


def run_dynamic_quant(width: int, dtype: torch.dtype, dst_type: torch.dtype) -> None:
    run_bitwise(moe_jit.npu_dynamic_quant, dynamic_quant_call(Inputs(), 300, width, dtype, dst_type))


def row_configurations() -> dict[str, Run]:
    """Streamed kernels get several rows for each CTA that runs at once."""
    return {
        "swiglu-streamed-int32": partial(run_swiglu, 4000, 1536, I32, 1, 0),
        "swiglu-streamed-bf16": partial(run_swiglu, 7000, 1032, BF16, 1, 2),
        "swiglu-streamed-interleaved": partial(run_swiglu, 15000, 264, F16, 1, 1),
        "swiglu-direct": partial(run_swiglu, 300, 77, I32, 1, 3),
        "swiglu-static": partial(run_swiglu, 300, 128, BF16, 0, 0),
        "finalize-search": partial(run_finalize, 200, 40),
        "finalize-index": partial(run_finalize, 1100, 300),
        "finalize-crowded": partial(run_finalize, 1100, 2),
        "dynamic-quant-streamed": partial(run_dynamic_quant, 2056, BF16, torch.int8),
        "dynamic-quant-int4": partial(run_dynamic_quant, 1024, F16, torch.quint4x2),
        "dynamic-quant-direct": partial(run_dynamic_quant, 1001, F32, torch.int8),
    }


def configurations() -> dict[str, Run]:
    return fp8_configurations() | product_configurations() | row_configurations()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", default=["*"])
    parser.add_argument("--list", action="store_true", help="print the names and run nothing")
    parser.add_argument("--part", default="1/1", help="which one of how many shares")
    given = parser.parse_args()
    table = configurations()
    part, parts = map(int, given.part.split("/"))
    unknown = [name for name in given.names if not any(fnmatchcase(known, name) for known in table)]
    if unknown:
        parser.error(f"no configuration is named {', '.join(unknown)}; --list prints the names")
    chosen = [name for name in table if any(fnmatchcase(name, pattern) for pattern in given.names)]
    for name in chosen[part - 1 :: parts]:
        if given.list:
            print(name)
            continue
        start = time.monotonic()
        table[name]()
        print(f"{name}: {time.monotonic() - start:.1f} s", flush=True)
    if DEVICE == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
