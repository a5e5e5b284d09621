"""Routing in plain torch, written from the specification's formulas.

Selection keys are fp32 numbers: the raw logit, or a value computed from it in fp32. Of two experts the
one with the larger *packed key* wins: an order-preserving integer image of the fp32 key, then the lower
expert index. NaN therefore sorts by its sign bit above +inf or below -inf, and -0.0 sorts below +0.0.
A NaN that arithmetic produced (as opposed to a NaN logit used as the key) has its sign bit clear.

Where a key goes through exp or tanh the reference rounds the exact function to fp32. Two correct
implementations may differ by a few fp32 ulps there, so an exact comparison of the chosen experts needs
``selection_margin`` to be well above an ulp.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from moe_jit.enums import RoutingMethodType
from moe_jit.reference.rounding import round_bf16

EPSILON = 1e-20
_LANES = 32
_NEVER = -1
_Method = RoutingMethodType


@dataclass(frozen=True)
class _Groups:
    count: int
    kept: int


def route(
    logits: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    method: int,
    top_k: int,
    n_group: int | None = None,
    topk_group: int | None = None,
    routed_scaling_factor: float | None = None,
    norm_topk_prob: bool = True,
    round_weights: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose ``top_k`` experts per token.

    logits: [T, E] fp32 or bf16. bias: [E] fp32 or bf16, or None for zeros (read by methods 2 and 7 only).
    n_group and topk_group limit method 2 when n_group > 1. routed_scaling_factor None means 1.0.

    Returns ids int64 [T, top_k] in descending order of the selection key, and weights float64 [T, top_k],
    rounded to bfloat16 unless ``round_weights`` is false.
    """
    kind = _Method.parse(method)
    ids = _select(logits, bias, kind, top_k, _groups(kind, n_group, topk_group))
    factor = 1.0 if routed_scaling_factor is None else float(routed_scaling_factor)
    weights = _weights(logits, ids, kind, factor, norm_topk_prob)
    return ids, round_bf16(weights) if round_weights else weights


def selection_keys(logits: torch.Tensor, bias: torch.Tensor | None, method: int) -> torch.Tensor:
    """Return the fp32 keys [T, E] that ``method`` compares, before any group limit."""
    kind = _Method.parse(method)
    x = logits.float()
    if kind is _Method.Default:
        return _canonical_nan(_softmax(x).float())
    if kind in (_Method.SigmoidRenorm, _Method.Sigmoid):
        return _canonical_nan(_sigmoid(x))
    if kind.uses_bias:
        scores = _sigmoid(x)
        return _canonical_nan(scores if bias is None else scores + bias.float())
    return x


def selection_margin(
    logits: torch.Tensor,
    bias: torch.Tensor | None,
    *,
    method: int,
    top_k: int,
    n_group: int | None = None,
    topk_group: int | None = None,
) -> torch.Tensor:
    """Return float64 [T]: the smallest gap between two keys whose order decides the result.

    A gap is relative to the larger key for method 0 and absolute otherwise. Keys that are equal because
    their logit and bias are equal do not count: every implementation sees that tie. Equal keys with
    different inputs have margin 0. Methods that compare raw logits have an infinite margin.
    """
    kind = _Method.parse(method)
    if kind in (
        _Method.Renormalize,
        _Method.RenormalizeNaive,
        _Method.TopK,
        _Method.Llama4,
        _Method.TopKSigmoid,
    ):
        return torch.full((logits.shape[0],), torch.inf, dtype=torch.float64, device=logits.device)
    keys = selection_keys(logits, bias, method)
    groups = _groups(kind, n_group, topk_group)
    margin = torch.full((logits.shape[0],), torch.inf, dtype=torch.float64, device=logits.device)
    if groups is not None:
        scores = _group_scores(keys, groups).double().sort(dim=1, descending=True).values
        margin = (
            (scores[:, groups.kept - 1] - scores[:, groups.kept]).abs()
            if groups.kept < groups.count
            else margin
        )
        keys = _mask_groups(keys, groups)
    depth = min(top_k + 1, keys.shape[1])
    order = packed_key(keys).argsort(dim=1, descending=True)[:, :depth]
    near = keys.gather(1, order).double()
    gap = near[:, :-1] - near[:, 1:]
    if kind is _Method.Default:
        gap = gap / near[:, :-1]
    source = logits.float().gather(1, order)
    same = source[:, :-1] == source[:, 1:]
    if bias is not None and kind.uses_bias:
        offset = bias.float()[order]
        same = same & (offset[:, :-1] == offset[:, 1:])
    gap = torch.where(same | gap.isnan(), torch.inf, gap)
    return torch.minimum(margin, gap.min(dim=1).values) if depth > 1 else margin


def packed_key(keys: torch.Tensor) -> torch.Tensor:
    """Return int64 [..., E]: order-preserving image of fp32 ``keys`` with the lower index as tie breaker."""
    bits = keys.contiguous().view(torch.int32).long()
    image = torch.where(bits < 0, -1 - bits, bits + (1 << 31))
    index = torch.arange(keys.shape[-1], device=keys.device)
    return image * (1 << 16) + (65535 - index)


def _canonical_nan(keys: torch.Tensor) -> torch.Tensor:
    return torch.where(keys.isnan(), torch.full_like(keys, torch.nan).abs(), keys)


def _sigmoid(x: torch.Tensor) -> torch.Tensor:
    """fp32 sigmoid as the specification defines it: 0.5 * tanh(x / 2) + 0.5, tanh rounded correctly."""
    return 0.5 * torch.tanh(0.5 * x.double()).float() + 0.5


def _softmax(x: torch.Tensor) -> torch.Tensor:
    """float64 softmax; unlike torch.softmax a row of -inf becomes NaN explicitly."""
    exponential = torch.exp(x.double() - x.double().amax(dim=-1, keepdim=True))
    return exponential / exponential.sum(dim=-1, keepdim=True)


def _groups(kind: RoutingMethodType, n_group: int | None, topk_group: int | None) -> _Groups | None:
    if kind is not _Method.DeepSeekV3 or n_group is None or n_group <= 1:
        return None
    if topk_group is None:
        raise ValueError(f"topk_group must be given when n_group is {n_group}")
    return _Groups(n_group, topk_group)


def _select(
    logits: torch.Tensor,
    bias: torch.Tensor | None,
    kind: RoutingMethodType,
    top_k: int,
    groups: _Groups | None,
) -> torch.Tensor:
    if kind is _Method.Llama4:
        return _llama4_ids(logits.float())
    keys = selection_keys(logits, bias, kind)
    if groups is None:
        return packed_key(keys).topk(top_k, dim=1).indices
    packed = torch.where(_kept(keys, groups), packed_key(keys), _NEVER)
    return packed.topk(top_k, dim=1).indices


def _llama4_ids(x: torch.Tensor) -> torch.Tensor:
    """Lane l scans experts l, l + 32, ... from (-inf, l) with strict ">"; the lanes' packed maximum wins."""
    num_tokens, num_experts = x.shape
    lanes = torch.arange(_LANES, device=x.device)
    best = torch.full((num_tokens, _LANES), -torch.inf, device=x.device)
    index = lanes.expand(num_tokens, _LANES).clone()
    for start in range(0, num_experts, _LANES):
        chunk = x[:, start : start + _LANES]
        width = chunk.shape[1]
        wins = chunk > best[:, :width]
        best[:, :width] = torch.where(wins, chunk, best[:, :width])
        index[:, :width] = torch.where(wins, start + lanes[:width], index[:, :width])
    bits = packed_key(best) // (1 << 16)
    return index.gather(1, (bits * (1 << 16) + 65535 - index).argmax(dim=1, keepdim=True))


def _group_scores(keys: torch.Tensor, groups: _Groups) -> torch.Tensor:
    """Sum in fp32 of the two largest keys of each group: [T, n_group]."""
    grouped = keys.reshape(keys.shape[0], groups.count, keys.shape[1] // groups.count)
    best = packed_key(grouped).topk(2, dim=2).indices
    pair = grouped.gather(2, best)
    return _canonical_nan(pair[..., 0] + pair[..., 1])


def _kept(keys: torch.Tensor, groups: _Groups) -> torch.Tensor:
    """bool [T, E]: whether the expert's group is among the topk_group best, ties to the lower group."""
    best = packed_key(_group_scores(keys, groups)).topk(groups.kept, dim=1).indices
    kept = torch.zeros(keys.shape[0], groups.count, dtype=torch.bool, device=keys.device)
    kept.scatter_(1, best, True)
    return kept.repeat_interleave(keys.shape[1] // groups.count, dim=1)


def _mask_groups(keys: torch.Tensor, groups: _Groups) -> torch.Tensor:
    return torch.where(_kept(keys, groups), keys, -torch.inf)


def _weights(
    logits: torch.Tensor, ids: torch.Tensor, kind: RoutingMethodType, factor: float, norm_topk_prob: bool
) -> torch.Tensor:
    """float64 weights of the chosen experts; sums run over unrounded values."""
    x = logits.float()
    if kind is _Method.Default:
        return _softmax(x).gather(1, ids)
    if kind is _Method.Llama4:
        chosen = x.gather(1, ids)
        return _sigmoid(torch.where(chosen.isnan(), -torch.inf, chosen)).double()
    chosen = x.gather(1, ids)
    if kind in (_Method.Renormalize, _Method.RenormalizeNaive):
        return _softmax(chosen)
    if kind is _Method.TopK:
        return chosen.double()
    scores = _sigmoid(chosen).double()
    if kind.uses_bias:
        return scores * factor / (scores.sum(dim=1, keepdim=True) + EPSILON)
    if kind is _Method.SigmoidRenorm and norm_topk_prob:
        return scores / scores.sum(dim=1, keepdim=True).clamp(min=EPSILON)
    return scores
