"""What one call of an expert layer gets: tokens, logits of a chosen skew, and the routing they lead to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from models import Model

from moe_jit.reference import route, selection_margin

ROUTINGS = ("uniform", "zipf", "hot")
ZIPF_EXPONENT = 1.0
HOT_LOGIT = 8.0
ZIPF_TEMPERATURE = 0.25


@dataclass(frozen=True)
class Inputs:
    """hidden e4m3 [T, H]; logits fp32 [T, E]; their global ids int32 and weights fp32 [T, top_k]."""

    hidden: torch.Tensor
    logits: torch.Tensor
    ids: torch.Tensor
    weights: torch.Tensor

    @property
    def num_tokens(self) -> int:
        return self.hidden.shape[0]


def make_inputs(model: Model, num_tokens: int, routing: str = "uniform") -> Inputs:
    """Fresh random inputs. ``routing`` is one of ROUTINGS:

    uniform: independent normal logits;
    zipf: experts drawn without replacement with probability ~ 1 / rank, ranks shuffled per model;
    hot: one expert takes part in every token, the others are uniform.
    """
    hidden = torch.randn(num_tokens, model.hidden_size, device="cuda").to(torch.float8_e4m3fn)
    logits = _logits(model, num_tokens, routing)
    ids, weights = route(logits, None, **_settings(model), routed_scaling_factor=1.0)
    return Inputs(hidden, logits, ids.int(), weights.float())


def unambiguous_tokens(model: Model, inputs: Inputs, count: int) -> torch.Tensor:
    """Up to ``count`` tokens whose choice of experts does not hinge on the last bits of exp or tanh."""
    margin = selection_margin(inputs.logits, None, **_settings(model))
    candidates = (margin > 2e-6).nonzero()[:, 0]
    some = torch.linspace(0, candidates.numel() - 1, min(count, candidates.numel()))
    return candidates[some.long().to(candidates.device)]


def _settings(model: Model) -> dict[str, int | None]:
    return {
        "method": int(model.routing),
        "top_k": model.top_k,
        "n_group": model.n_group,
        "topk_group": model.topk_group,
    }


def _logits(model: Model, num_tokens: int, routing: str) -> torch.Tensor:
    shape = (num_tokens, model.num_experts)
    logits = torch.randn(shape, device="cuda")
    if routing == "hot":
        logits[:, model.num_experts // 2] += HOT_LOGIT
    elif routing == "zipf":
        order = torch.randperm(model.num_experts, generator=torch.Generator().manual_seed(0)).to("cuda")
        gumbel = -torch.empty(shape, device="cuda").exponential_().log()
        logits = (gumbel - ZIPF_EXPONENT * (order + 1.0).log()) * ZIPF_TEMPERATURE
    elif routing != "uniform":
        raise ValueError(f"routing must be one of {', '.join(ROUTINGS)}; got {routing!r}")
    return logits
