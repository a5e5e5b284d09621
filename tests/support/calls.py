"""Calls of the public functions from test problems, and their comparison with the reference."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

import moe_jit
from moe_jit.plan import default_tactic
from moe_jit.problem import Device, MoEProblem
from moe_jit.reference import (
    FP32,
    HOPPER_FP8,
    HOPPER_FP8_FAST,
    Accumulation,
    Reference,
    compare_routing,
    fp8_moe,
    route,
)
from support.problems import Layer, Routing

REPLAY_POISON = -7
SPARE_ROWS = 3


def accumulation(ids: torch.Tensor, num_experts: int, layer: Layer) -> Accumulation:
    """The deviation to allow for: that of the tile which the plan takes by default."""
    if ids.device.type == "cpu":
        return FP32
    problem = MoEProblem(
        device=Device("cuda", sm_count=132),
        num_tokens=ids.shape[0],
        hidden_size=layer.hidden_size,
        intermediate_size=layer.intermediate_size,
        num_experts=num_experts,
        num_local_experts=layer.gemm2.shape[0],
        top_k=ids.shape[1],
        routing_method=None,
    )
    return HOPPER_FP8_FAST if default_tactic(problem).has_fast_accumulation else HOPPER_FP8


@contextmanager
def poisoned_allocations() -> Iterator[None]:
    """Memory from torch's allocators starts as NaN, or as the largest integer."""
    before, warn = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warn)


def _expert_arguments(layer: Layer, hidden: torch.Tensor, num_experts: int, offset: int) -> dict[str, Any]:
    return {
        "hidden_states": hidden,
        "gemm1_weights": layer.gemm1,
        "output1_scales_scalar": layer.sc,
        "output1_scales_gate_scalar": layer.sg,
        "gemm2_weights": layer.gemm2,
        "output2_scales_scalar": layer.s2,
        "num_experts": num_experts,
        "intermediate_size": layer.intermediate_size,
        "local_expert_offset": offset,
        "local_num_experts": layer.sc.shape[0],
        "activation_type": layer.activation,
        "weight_layout": layer.weight_layout,
    }


def call(
    layer: Layer,
    hidden: torch.Tensor,
    routing: Routing,
    *,
    offset: int = 0,
    poison: bool = True,
    **options: Any,
) -> Any:
    """trtllm_fp8_per_tensor_scale_moe; ``options`` are further parameters of it."""
    arguments = {
        "routing_logits": routing.logits,
        "routing_bias": routing.bias,
        "top_k": routing.top_k,
        "n_group": routing.n_group,
        "topk_group": routing.topk_group,
        "routed_scaling_factor": routing.factor,
        "routing_method_type": routing.method,
        "norm_topk_prob": routing.norm_topk_prob,
        "use_routing_scales_on_input": False,
        **_expert_arguments(layer, hidden, routing.logits.shape[1], offset),
    }
    with poisoned_allocations() if poison else nullcontext():
        return moe_jit.trtllm_fp8_per_tensor_scale_moe(**(arguments | options))


def call_routed(
    layer: Layer,
    hidden: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    *,
    num_experts: int,
    offset: int = 0,
    poison: bool = True,
    **options: Any,
) -> Any:
    """trtllm_fp8_per_tensor_scale_routed_moe."""
    arguments = {
        "topk_ids": ids.int(),
        "topk_weights": weights.bfloat16(),
        "top_k": ids.shape[1],
        **_expert_arguments(layer, hidden, num_experts, offset),
    }
    with poisoned_allocations() if poison else nullcontext():
        return moe_jit.trtllm_fp8_per_tensor_scale_routed_moe(**(arguments | options))


@dataclass(frozen=True)
class Unfinalised:
    """What do_finalize=False returns, with the expert ids from the replay buffer."""

    rows: torch.Tensor
    weights: torch.Tensor
    pair_to_row: torch.Tensor
    ids: torch.Tensor


def call_unfinalised(layer: Layer, hidden: torch.Tensor, routing: Routing, **options: Any) -> Unfinalised:
    """Check shapes, dtypes and untouched replay rows on the way."""
    num_tokens, top_k = hidden.shape[0], routing.top_k
    replay = torch.full(
        (num_tokens + SPARE_ROWS, top_k), REPLAY_POISON, dtype=torch.int16, device=hidden.device
    )
    result = call(layer, hidden, routing, do_finalize=False, routing_replay_out=replay, **options)
    assert isinstance(result, list)
    rows, weights, pair_to_row = result
    assert rows.dtype == torch.bfloat16
    assert rows.shape[1] == layer.hidden_size
    assert weights.dtype == torch.bfloat16
    assert weights.shape == (num_tokens, top_k)
    assert pair_to_row.dtype == torch.int32
    assert pair_to_row.shape == (num_tokens * top_k,)
    assert (replay[num_tokens:] == REPLAY_POISON).all(), "replay rows of no token were written"
    return Unfinalised(rows, weights, pair_to_row, replay[:num_tokens].long())


def check_routing(result: Unfinalised, routing: Routing, context: str) -> None:
    """Compare the chosen experts and weights with the reference."""
    ids, weights = route(routing.logits, routing.bias, **routing.settings())
    problems = compare_routing(result.ids, result.weights, ids, weights)
    assert not problems, "\n  ".join([context, *problems])


def check_finalised(output: torch.Tensor, parts: Unfinalised, scale_input: bool = False) -> None:
    """The output is the bfloat16 rounding of the weighted sum of the rows, up to the order of an fp32 sum."""
    num_tokens, top_k = parts.ids.shape
    index = parts.pair_to_row.view(num_tokens, top_k).long()
    terms = output.new_zeros(num_tokens, top_k, output.shape[1], dtype=torch.float64)
    live = index >= 0
    factor = torch.ones_like(parts.weights) if scale_input else parts.weights
    terms[live] = parts.rows[index[live]].double() * factor[live].double()[:, None]
    expected = terms.sum(dim=1)
    rounding = expected.abs() * 2.0**-8 * (1 + 2.0**-10) + terms.abs().sum(dim=1) * top_k * 2.0**-24
    actual = output.double()
    good = (
        ((actual - expected).abs() <= rounding) | (actual == expected) | (actual.isnan() & expected.isnan())
    )
    assert good.all(), f"{int((~good).sum())} elements are not the weighted sum of the rows"


def reference_for(
    layer: Layer,
    hidden: torch.Tensor,
    routing: Routing,
    *,
    weights: torch.Tensor | None = None,
    scale_input: bool = False,
    **options: Any,
) -> Reference:
    """``weights``: those of the call, where check_routing has compared them. They may be one ulp off."""
    ids, expected_weights = route(routing.logits, routing.bias, **routing.settings())
    return fp8_moe(
        hidden,
        ids=ids,
        weights=expected_weights if weights is None else weights,
        use_routing_scales_on_input=scale_input,
        accumulation=accumulation(ids, routing.logits.shape[1], layer),
        **layer.experts(),
        **options,
    )
