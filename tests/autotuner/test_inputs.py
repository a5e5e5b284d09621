"""Synthetic inputs: the requested skew, the caller's weights, and nothing that the caller would see."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from moe_jit.autotuner.inputs import expert_logits, synthesize
from moe_jit.problem import Device
from moe_jit.validate import Arguments, validate

E4M3 = torch.float8_e4m3fn


def arguments(pre_routed: bool = False, **changes: object) -> Arguments:
    tokens, experts, top_k, hidden, inner = 5, 16, 4, 64, 32
    values = dict.fromkeys(Arguments._fields) | {
        "routing_logits": None if pre_routed else torch.zeros(tokens, experts, dtype=torch.bfloat16),
        "routing_bias": None if pre_routed else torch.full((experts,), 5.0),
        "topk_ids": torch.zeros(tokens, top_k, dtype=torch.int32) if pre_routed else None,
        "topk_weights": torch.zeros(tokens, top_k, dtype=torch.bfloat16) if pre_routed else None,
        "hidden_states": torch.zeros(tokens, hidden).to(E4M3),
        "gemm1_weights": torch.zeros(experts, 2 * inner, hidden).to(E4M3),
        "output1_scales_scalar": torch.ones(experts),
        "output1_scales_gate_scalar": torch.ones(experts),
        "gemm2_weights": torch.zeros(experts, hidden, inner).to(E4M3),
        "output2_scales_scalar": torch.ones(experts),
        "routing_replay_out": torch.zeros(tokens, top_k, dtype=torch.int16),
        "output": torch.zeros(tokens, hidden, dtype=torch.bfloat16),
        "num_experts": experts,
        "top_k": top_k,
        "intermediate_size": inner,
        "local_expert_offset": 0,
        "local_num_experts": experts,
        "use_routing_scales_on_input": False,
        "routing_method_type": 2,
        "do_finalize": True,
        "tune_max_num_tokens": 8192,
        "activation_type": 3,
        "norm_topk_prob": True,
        "weight_layout": "shuffled",
        "fast_accum": True,
        "pre_routed": pre_routed,
    }
    return Arguments(**(values | changes))


@pytest.mark.parametrize("pre_routed", [False, True])
@pytest.mark.parametrize("num_tokens", [1, 100])
def test_calls_are_valid_and_write_nothing_of_the_caller(pre_routed: bool, num_tokens: int) -> None:
    args = arguments(pre_routed)
    problem = dataclasses.replace(validate(args), num_tokens=num_tokens)
    calls = synthesize(problem, args, 3, 0.0)
    assert len(calls) == 3
    for call in calls:
        described = validate(call)
        assert described == dataclasses.replace(problem, has_replay=False, do_finalize=True)
        assert call.output is None
        assert call.routing_replay_out is None
        for name in ("gemm1_weights", "gemm2_weights", "output1_scales_scalar", "output2_scales_scalar"):
            assert getattr(call, name) is getattr(args, name), "the caller's weights are measured with"
        inputs = ("hidden_states", "routing_logits", "routing_bias", "topk_ids", "topk_weights")
        assert all(getattr(call, n) is not getattr(args, n) for n in inputs if getattr(call, n) is not None)
    assert not torch.equal(calls[0].hidden_states.float(), calls[1].hidden_states.float())


def test_the_bias_does_not_unbalance_the_measurement() -> None:
    args = arguments()
    (call,) = synthesize(validate(args), args, 1, 0.0)
    assert call.routing_bias is not None
    assert call.routing_bias.dtype == torch.float32
    assert not call.routing_bias.any()
    (call,) = synthesize(validate(args), args._replace(routing_bias=None), 1, 0.0)
    assert call.routing_bias is None


def test_pre_routed_ids_are_distinct_experts_with_weights() -> None:
    args = arguments(pre_routed=True)
    problem = dataclasses.replace(validate(args), num_tokens=200)
    (call,) = synthesize(problem, args, 1, 1.0)
    assert call.topk_ids is not None
    assert call.topk_weights is not None
    assert call.topk_ids.dtype == torch.int32
    assert all(len(set(row)) == 4 for row in call.topk_ids.tolist())
    assert 0 <= int(call.topk_ids.min()) <= int(call.topk_ids.max()) < 16
    assert torch.equal(call.topk_weights, torch.full((200, 4), 0.25, dtype=torch.bfloat16))


def test_the_global_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    args = arguments()
    first = synthesize(validate(args), args, 2, 0.5)
    assert torch.equal(torch.rand(4), expected)
    again = synthesize(validate(args), args, 2, 0.5)
    assert torch.equal(first[1].routing_logits, again[1].routing_logits), "all ranks measure the same"


@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0, 2.0])
def test_the_popularity_of_experts_follows_the_skew(skew: float) -> None:
    """Shares of first choices against the Zipf law, within five standard deviations."""
    tokens, experts = 200_000, 16
    logits = expert_logits(torch.Generator().manual_seed(1), tokens, experts, skew)
    shares = logits.argmax(1).bincount(minlength=experts).double().sort(descending=True).values / tokens
    law = torch.arange(1, experts + 1, dtype=torch.float64) ** -skew
    law /= law.sum()
    assert ((shares - law).abs() <= 5 * (law / tokens).sqrt()).all(), shares


def test_which_experts_are_popular_is_random() -> None:
    logits = expert_logits(torch.Generator().manual_seed(1), 2000, 64, 2.0)
    counts = logits.argmax(1).bincount(minlength=64)
    assert counts.argsort(descending=True)[:4].tolist() != [0, 1, 2, 3]
    assert torch.isfinite(logits).all()


def test_device_of_the_inputs_is_that_of_the_call() -> None:
    args = arguments()
    assert validate(args).device == Device("cpu")
    (call,) = synthesize(validate(args), args, 1, 0.0)
    assert {t.device.type for t in call.tensors if t is not None} == {"cpu"}
