"""One small configuration of every kernel variant, for compute-sanitizer.

    python tests/sanitize.py                                   # compiles the modules
    compute-sanitizer --tool memcheck --error-exitcode 1 python tests/sanitize.py
    compute-sanitizer --tool racecheck --error-exitcode 1 python tests/sanitize.py 8 160   # these tiles only

Every result is compared with the reference as well. Tensors get allocations of their own, so that memcheck
sees an access beyond one of them.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("PYTORCH_NO_CUDA_MEMORY_CACHING", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "python"))

import torch
from support.tiles import forced_tile
from test_fuzz import Case, Variant, check_case

from moe_jit.enums import ActivationType, RoutingMethodType
from moe_jit.plan import TILE_TOKENS

METHOD = RoutingMethodType.Renormalize
ONE_BLOCK_TOKENS = 20  # routed by one kernel of one block
SEVERAL_BLOCK_TOKENS = 150  # routed by two kernels
ODD_SIZES = {"weight_layout": "w1_w3", "hidden_size": 208, "intermediate_size": 176, "num_local": 5}

CASE = Case(
    seed=0,
    num_tokens=SEVERAL_BLOCK_TOKENS,
    hidden_size=256,
    intermediate_size=160,
    weight_layout="shuffled",
    num_experts=8,
    top_k=3,
    offset=0,
    num_local=8,
    spare_experts=0,
    scales="positive",
    scale_input=False,
    enable_pdl=None,
    hot_expert=False,
    logits_dtype=torch.float32,
    bias_dtype=None,
    settings={},
)


def runs(tiles: tuple[int, ...]) -> list[tuple[Variant, Case]]:
    """Both routing paths and tails in every dimension for each tile; the other kernels once."""
    chosen = []
    for tile in tiles:
        variant = Variant(METHOD, 32, ActivationType.Swiglu, tile)
        chosen.append((variant, replace(CASE, hot_expert=True)))
        chosen.append((variant, replace(CASE, num_tokens=ONE_BLOCK_TOKENS, **ODD_SIZES, offset=2)))
    first = Variant(METHOD, 32, ActivationType.Swiglu, tiles[0])
    groups = {"n_group": 4, "topk_group": 2}
    grouped = replace(CASE, settings=groups, bias_dtype=torch.float32)
    return [
        *chosen,
        (replace(first, activation=ActivationType.Relu2), replace(CASE, num_tokens=ONE_BLOCK_TOKENS)),
        (replace(first, method=None), CASE),
        (replace(first, method=None), replace(CASE, num_tokens=ONE_BLOCK_TOKENS, scale_input=True)),
        (replace(first, method=RoutingMethodType.DeepSeekV3), grouped),
        (replace(first, method=RoutingMethodType.DeepSeekV3), replace(grouped, num_tokens=ONE_BLOCK_TOKENS)),
    ]


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for variant, case in runs(tuple(map(int, sys.argv[1:])) or TILE_TOKENS):
        print(f"{variant}, {case.num_tokens} tokens, {case.weight_layout}", flush=True)
        with forced_tile(variant.tile_tokens):
            check_case(case, variant, device)
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
