"""Synthetic inputs for measuring: the caller's weights and scales, and nothing else of the caller's."""

from __future__ import annotations

import torch

from ..problem import MoEProblem
from ..validate import Arguments

_SEED = 20


def expert_logits(
    generator: torch.Generator, num_tokens: int, num_experts: int, skew: float = 0.0
) -> torch.Tensor:
    """float32 [num_tokens, num_experts] whose top-k draws experts without replacement by their popularity.

    The r-th most popular expert has a popularity proportional to r ** -skew (Zipf); 0 is uniform. Which
    experts are popular is random. Adding Gumbel noise to log-probabilities makes the largest values such a
    draw.
    """
    device = generator.device
    order = torch.randperm(num_experts, generator=generator, device=device) + 1
    uniform = torch.rand(num_tokens, num_experts, generator=generator, device=device).clamp_(1e-9, 1 - 1e-7)
    return -skew * order.log() - (-uniform.log()).log()


def synthesize(problem: MoEProblem, args: Arguments, copies: int, skew: float) -> list[Arguments]:
    """``copies`` calls for ``problem.num_tokens`` random tokens, which write no tensor of the caller.

    torch's global random state is neither used nor changed. A bias counts as zeros: it corrects the model's
    own logits, and would unbalance random ones.
    """
    device = args.hidden_states.device
    generator = torch.Generator(device).manual_seed(_SEED)
    bias = None if args.routing_bias is None else torch.zeros_like(args.routing_bias)
    calls = []
    for _ in range(copies):
        shape = problem.num_tokens, problem.hidden_size
        hidden = torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16)
        logits = expert_logits(generator, problem.num_tokens, problem.num_experts, skew)
        call = args._replace(
            hidden_states=hidden.to(args.hidden_states.dtype),
            routing_bias=bias,
            routing_replay_out=None,
            output=None,
            do_finalize=True,
        )
        if problem.is_pre_routed:
            ids = logits.topk(problem.top_k).indices.int()
            weights = torch.full_like(ids, 1, dtype=torch.bfloat16).div_(problem.top_k)
            calls.append(call._replace(topk_ids=ids, topk_weights=weights))
        else:
            calls.append(call._replace(routing_logits=logits.to(problem.logits_dtype)))
    return calls
