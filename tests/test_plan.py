"""The plan is a pure function: what it names must be compilable and must cover every legal problem."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from moe_jit.enums import ActivationType, RoutingMethodType, WeightLayout
from moe_jit.plan import TILE_TOKENS, candidates, default_tactic, default_tile_tokens, plan
from moe_jit.problem import Device, MoEProblem

QWEN3_30B = MoEProblem(
    num_tokens=1,
    hidden_size=2048,
    intermediate_size=768,
    num_experts=128,
    num_local_experts=128,
    local_expert_offset=0,
    top_k=8,
    n_group=0,
    topk_group=0,
    routing_method=RoutingMethodType.Renormalize,
    activation=ActivationType.Swiglu,
    weight_layout=WeightLayout.Shuffled,
    logits_dtype=torch.float32,
    bias_dtype=None,
    do_finalize=True,
    scale_input=False,
    has_replay=False,
    enable_pdl=True,
    tune_max_num_tokens=8192,
    device=Device("cuda", 0, "sm_90a", 132),
)


def with_(**changes: object) -> MoEProblem:
    return dataclasses.replace(QWEN3_30B, **changes)  # type: ignore[arg-type]


def test_one_token_takes_the_narrowest_tile_that_streams_long_enough() -> None:
    assert default_tile_tokens(QWEN3_30B) == TILE_TOKENS[1]
    assert default_tile_tokens(with_(hidden_size=4096, intermediate_size=1536)) == TILE_TOKENS[0]


def test_one_full_wave_of_wide_tiles_is_taken() -> None:
    maverick = with_(hidden_size=5120, intermediate_size=8192, top_k=1)  # 128 tiles of 128 rows for 132 SMs
    assert default_tile_tokens(maverick) == TILE_TOKENS[1]
    assert default_tile_tokens(dataclasses.replace(maverick, num_tokens=2)) == TILE_TOKENS[0]
    smaller = dataclasses.replace(maverick, device=Device("cuda", 0, "sm_90a", 78))
    assert default_tile_tokens(smaller) == TILE_TOKENS[0]
    shard = with_(hidden_size=7168, intermediate_size=2048, num_experts=256, num_local_experts=32)
    assert default_tile_tokens(shard) == TILE_TOKENS[0]


def test_tile_grows_with_tokens_and_stays_compiled() -> None:
    tiles = [default_tile_tokens(with_(num_tokens=2**i)) for i in range(18)]
    assert tiles == sorted(tiles)
    assert set(tiles) <= set(TILE_TOKENS)
    assert tiles[-1] == TILE_TOKENS[-1]


@pytest.mark.parametrize("num_tokens", [1, 1024, 4096, 65536])
def test_fast_accumulation_can_be_refused(num_tokens: int) -> None:
    refused = with_(num_tokens=num_tokens, fast_accum=False)
    assert not any(tactic.has_fast_accumulation for tactic in candidates(refused))
    assert default_tactic(with_(num_tokens=num_tokens)).has_fast_accumulation == (num_tokens >= 1024)


@pytest.mark.parametrize("num_tokens", [16, 64, 256, 512])
def test_most_experts_fit_one_tile(num_tokens: int) -> None:
    mean = num_tokens * 8 / 128
    tile = default_tile_tokens(with_(num_tokens=num_tokens))
    assert tile >= mean + 3 * math.sqrt(mean)


@pytest.mark.parametrize("num_experts", [8, 128])
@pytest.mark.parametrize(("rows", "tile"), [(48, 128), (64, 160), (80, 160)])
def test_compute_bound_tiles_begin_at_the_same_rows_of_few_and_many_experts(
    num_experts: int, rows: int, tile: int
) -> None:
    problem = with_(num_experts=num_experts, num_local_experts=num_experts, top_k=2)
    assert default_tile_tokens(dataclasses.replace(problem, num_tokens=rows * num_experts // 2)) == tile


@pytest.mark.parametrize(
    ("rows", "tile"),
    [(128, 160), (144, 192), (168, 192), (200, 320), (256, 320), (340, 384), (512, 320), (1024, 384)],
)
def test_many_rows_take_the_tile_that_experts_need_fewest_of(rows: int, tile: int) -> None:
    assert default_tile_tokens(with_(num_tokens=rows * 128 // 8)) == tile


@pytest.mark.parametrize(
    ("num_experts", "tier"), [(1, 32), (32, 32), (33, 64), (128, 128), (129, 256), (2048, 2048)]
)
def test_route_unit_names_policy_and_tier(num_experts: int, tier: int) -> None:
    top_k = min(8, num_experts)
    problem = with_(num_experts=num_experts, num_local_experts=num_experts, top_k=top_k)
    unit = next(u for u in plan(problem).module.units if u.source == "cuda/route.cu")
    assert dict(unit.defines) == {
        "MOE_JIT_ROUTING": "Renormalize",
        "MOE_JIT_MAX_EXPERTS": str(tier),
    }


def test_pre_routed_problem_has_its_own_route_unit() -> None:
    module = plan(with_(routing_method=None, logits_dtype=None)).module
    assert any(("MOE_JIT_ROUTING", "PreRouted") in u.defines for u in module.units)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 4096},
        {"intermediate_size": 512},
        {"weight_layout": WeightLayout.W3W1},
        {"scale_input": True},
        {"do_finalize": False},
        {"logits_dtype": torch.bfloat16},
        {"local_expert_offset": 64, "num_local_experts": 64},
    ],
)
def test_run_time_facts_do_not_cost_a_compile(change: dict[str, object]) -> None:
    assert plan(with_(**change)).module == plan(QWEN3_30B).module


@pytest.mark.parametrize(
    "change",
    [
        {"activation": ActivationType.Geglu},
        {"routing_method": RoutingMethodType.Sigmoid},
        {"num_tokens": 8192},
        {"num_experts": 512, "num_local_experts": 512},
    ],
)
def test_compile_time_facts_select_another_module(change: dict[str, object]) -> None:
    assert plan(with_(**change)).module != plan(QWEN3_30B).module
