"""Candidate tactics: legal, few, the default first, never less exact than the default."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st
from shapes import H200, problem

from moe_jit.plan import TILE_TOKENS, candidates, default_tactic, plan
from moe_jit.problem import Device


@given(
    num_tokens=st.integers(1, 200_000), top_k=st.sampled_from([1, 2, 8, 22]), experts=st.integers(22, 2048)
)
def test_default_is_the_first_of_distinct_compiled_tactics(num_tokens: int, top_k: int, experts: int) -> None:
    given = problem(num_tokens=num_tokens, top_k=top_k, num_experts=experts, num_local_experts=experts)
    found = candidates(given)
    assert found[0] == default_tactic(given)
    assert len(set(found)) == len(found) <= 3
    assert {tactic.tile_tokens for tactic in found} <= set(TILE_TOKENS)
    assert all(t.has_fast_accumulation <= found[0].has_fast_accumulation for t in found)


def test_every_tile_is_a_candidate_somewhere() -> None:
    seen = {t.tile_tokens for i in range(18) for t in candidates(problem(num_tokens=2**i))}
    assert seen == set(TILE_TOKENS)


def test_plan_takes_the_tactic_it_is_given() -> None:
    call = problem(num_tokens=64)
    modules = {plan(call, tactic).module for tactic in candidates(call)}
    assert len(modules) == len(candidates(call)) > 1
    assert plan(call).module == plan(call, default_tactic(call)).module
    for tactic in candidates(call):
        assert plan(call, tactic).tactic == tactic


def test_the_cpu_has_one_tactic() -> None:
    assert len(candidates(problem(num_tokens=64, device=Device("cpu")))) == 1
    assert len(candidates(problem(num_tokens=64, device=dataclasses.replace(H200, sm_count=78)))) > 1
