"""The experts of one MoE layer in float64, step by step as the specification orders the roundings.

Both matrix products are exact: products of e4m3 numbers are multiples of 2**-18 and their sums stay
below 2**53 of those units. Roundings happen only where the contract has them: e4m3 (nearest even,
saturating) between the products, bfloat16 for each row of the second product and for the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from moe_jit.enums import ActivationType, WeightLayout
from moe_jit.layouts import plain_rows_in_shuffled_order
from moe_jit.reference.rounding import bf16_ulp, e4m3_step, round_bf16, round_e4m3

MatMul = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(activations [n, K], weights [N, K]), both float64 holding e4m3 numbers -> accumulators [n, N]."""


def exact_matmul(activations: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """activations @ weights.T without rounding."""
    return activations @ weights.T


@dataclass(frozen=True)
class Accumulation:
    """Expected error of one accumulator of an implementation.

    relative_rms: root mean square error of a sum of K products x_i * w_i as a fraction of |x| * |w| / sqrt(K)
    (the size of such a sum for unrelated x and w); times sqrt(K) if it ``grows``.
    """

    name: str
    relative_rms: float
    grows: bool = False

    def error(self, terms: int) -> float:
        """The fraction for sums of ``terms`` products."""
        return self.relative_rms * (math.sqrt(terms) if self.grows else 1.0)


FP32 = Accumulation("fp32", 5e-7)
"""fp32 additions in any order: a random walk of K roundings, and fp32 arithmetic in the activation."""

HOPPER_FP8 = Accumulation("hopper fp8", 2e-4)
"""FP8 wgmma: 13 fraction bits below the largest of 32 products and the sum, promoted every 128 of K."""

HOPPER_FP8_FAST = Accumulation("hopper fp8, fast accumulation", 3e-5, grows=True)
"""The same without promotion: each of the K / 32 running sums is truncated."""


@dataclass(frozen=True)
class Reference:
    """Result of ``fp8_moe``; P is the number of (token, rank) pairs whose expert is local.

    output: float64 [T, H], weighted sum before its rounding to bfloat16; zero without a local expert.
    rows: float64 [P, H], rows of the second product after their rounding to bfloat16, by local expert,
        then token, then rank.
    pair_to_row: int64 [T, top_k], index into rows, or -1.
    row_weight: float64 [P], factor of each row in output (1 when the weight was applied on the input).
    row_expert: int64 [P], local expert of each row.
    row_variance: float64 [P], expected squared L2 distance of an implementation's row from this one.
    row_flip: float64 [P], squared L2 effect of the largest single rounding that may legitimately differ.
    degrees: min(H, I), the number of independent roundings behind one row.
    See ``moe_jit.reference.agreement`` for the last three.
    """

    output: torch.Tensor
    rows: torch.Tensor
    pair_to_row: torch.Tensor
    row_weight: torch.Tensor
    row_expert: torch.Tensor
    row_variance: torch.Tensor
    row_flip: torch.Tensor
    degrees: int


@dataclass(frozen=True)
class _Pairs:
    token: torch.Tensor
    rank: torch.Tensor
    expert: torch.Tensor


def fp8_moe(
    hidden: torch.Tensor,
    w1: torch.Tensor,
    sc: torch.Tensor,
    sg: torch.Tensor,
    w2: torch.Tensor,
    s2: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    *,
    activation: int,
    weight_layout: str | WeightLayout,
    intermediate_size: int,
    local_expert_offset: int = 0,
    local_num_experts: int | None = None,
    use_routing_scales_on_input: bool = False,
    accumulation: Accumulation = FP32,
    matmul: MatMul = exact_matmul,
) -> Reference:
    """Compute the experts chosen by ``ids`` for the tokens ``hidden``.

    hidden: [T, H] e4m3. w1: [>= E_local, 2I or I, H] and w2: [>= E_local, H, I] e4m3, in ``weight_layout``.
    sc, sg, s2: fp32 [E_local]. ids: integers [T, k], global; an id that is not local, or repeats an earlier
    one of its token, has no row. weights: [T, k], used as given. ``local_num_experts`` None means len(sc).

    ``accumulation`` says which deviation to expect of an implementation; ``matmul`` replaces the exact
    product, for emulating one. Tensors may live on any one device; the result does too.
    """
    kind = ActivationType.parse(activation)
    layout = WeightLayout.parse(weight_layout)
    num_local = sc.shape[0] if local_num_experts is None else local_num_experts
    num_tokens, hidden_size = hidden.shape
    pairs, pair_to_row = _sort_pairs(ids, local_expert_offset, num_local)
    pair_weight = weights.double()[pairs.token, pairs.rank]
    first_rows, second_rows = _logical_rows(kind, layout, intermediate_size, hidden_size, hidden.device)

    shape = (pairs.token.numel(), hidden_size)
    rows = torch.zeros(shape, dtype=torch.float64, device=hidden.device)
    variance = torch.zeros_like(pair_weight)
    flip = torch.zeros_like(pair_weight)
    for expert in torch.unique(pairs.expert).tolist():
        mine = (pairs.expert == expert).nonzero()[:, 0]
        x = hidden[pairs.token[mine]].double()
        input_scale = pair_weight[mine, None] if use_routing_scales_on_input else None
        first = _take(w1[expert], first_rows)
        value, deviation = _intermediate(
            x, first, kind, sc[expert], sg[expert], input_scale, accumulation, matmul
        )
        quantised = round_e4m3(value)
        second = _take(w2[expert], second_rows)
        scale = s2[expert].double()
        result = scale * matmul(quantised, second)
        rows[mine] = round_bf16(result)
        flip_energy, largest = _flips(value, quantised, deviation, (second * second).sum(dim=0))
        noise = accumulation.error(intermediate_size) ** 2 * (second * second).sum() / intermediate_size
        propagated = flip_energy + noise * (quantised * quantised).sum(dim=1)
        variance[mine] = scale**2 * propagated + (bf16_ulp(result) ** 2).sum(dim=1) / 6
        flip[mine] = scale**2 * largest

    row_weight = torch.ones_like(pair_weight) if use_routing_scales_on_input else pair_weight
    output = torch.zeros(num_tokens, hidden_size, dtype=torch.float64, device=hidden.device)
    output.index_add_(0, pairs.token, row_weight[:, None] * rows)
    return Reference(
        output,
        rows,
        pair_to_row,
        row_weight,
        pairs.expert,
        variance,
        flip,
        min(hidden_size, intermediate_size),
    )


def _sort_pairs(ids: torch.Tensor, offset: int, num_local: int) -> tuple[_Pairs, torch.Tensor]:
    """Local (token, rank) pairs ordered by expert, token, rank, and the row of every pair or -1."""
    ids = ids.long()
    local = ids - offset
    earlier = (ids[:, :, None] == ids[:, None, :]).tril(-1).any(dim=2)
    token, rank = ((local >= 0) & (local < num_local) & ~earlier).nonzero(as_tuple=True)
    order = torch.sort(local[token, rank], stable=True).indices
    token, rank = token[order], rank[order]
    pair_to_row = torch.full_like(ids, -1)
    pair_to_row[token, rank] = torch.arange(token.numel(), device=ids.device)
    return _Pairs(token, rank, local[token, rank]), pair_to_row


def _logical_rows(
    kind: ActivationType, layout: WeightLayout, intermediate_size: int, hidden_size: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stored row indices of gemm1 in the order [linear; gate] and of gemm2 in output order."""
    num_rows = intermediate_size * (2 if kind.is_gated else 1)
    if layout is WeightLayout.Shuffled:
        first = plain_rows_in_shuffled_order(num_rows, gated=kind.is_gated, device=device).argsort()
        second = plain_rows_in_shuffled_order(hidden_size, gated=False, device=device).argsort()
        return first, second
    first = torch.arange(num_rows, device=device)
    if kind.is_gated and layout is WeightLayout.W1W3:
        first = first.roll(intermediate_size)
    return first, torch.arange(hidden_size, device=device)


def _take(weight: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    return weight.double()[rows]


def _intermediate(
    x: torch.Tensor,
    first: torch.Tensor,
    kind: ActivationType,
    sc: torch.Tensor,
    sg: torch.Tensor,
    input_scale: torch.Tensor | None,
    accumulation: Accumulation,
    matmul: MatMul,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Value before its rounding to e4m3, and the expected error of an implementation's value."""
    accumulators = matmul(x, first)
    size = x.norm(dim=1)[:, None] * first.norm(dim=1) / math.sqrt(x.shape[1])
    error = accumulation.error(x.shape[1]) * size
    if input_scale is not None:
        accumulators, error = accumulators * input_scale, error * input_scale.abs()
    linear, *gate = accumulators.chunk(2, dim=1) if kind.is_gated else (accumulators,)
    linear_error, *gate_error = error.chunk(2, dim=1) if kind.is_gated else (error,)
    value = activate(kind, linear, gate[0] if gate else None, sc.double(), sg.double())
    shifted = activate(kind, linear + linear_error, gate[0] if gate else None, sc.double(), sg.double())
    squared = (shifted - value) ** 2
    if gate:
        shifted = activate(kind, linear, gate[0] + gate_error[0], sc.double(), sg.double())
        squared = squared + (shifted - value) ** 2
    return value, squared.sqrt()


def activate(
    kind: ActivationType, linear: torch.Tensor, gate: torch.Tensor | None, sc: torch.Tensor, sg: torch.Tensor
) -> torch.Tensor:
    """Scaled activation of raw accumulators; ``gate`` is None exactly when ``kind`` is not gated."""
    if gate is not None:
        z = sg * gate
        return sc * linear * (z * torch.sigmoid(z) if kind is ActivationType.Swiglu else _gelu(z))
    if kind is ActivationType.Identity:
        return sc * linear
    z = sg * linear
    return sc * (z.clamp(min=0) ** 2 if kind is ActivationType.Relu2 else _gelu(z))


def _gelu(z: torch.Tensor) -> torch.Tensor:
    """z * phi(z) with the exact normal CDF, accurate for large negative z."""
    return z * 0.5 * torch.erfc(-z / math.sqrt(2))


def _flips(
    value: torch.Tensor, quantised: torch.Tensor, deviation: torch.Tensor, column_energy: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Per row: expected squared effect of roundings that may go the other way, and the largest of them."""
    step = e4m3_step(value)
    to_boundary = step / 2 - (value - quantised).abs()
    saturated = value.abs() > 448
    to_boundary = torch.where(saturated, value.abs() - 432, to_boundary).clamp(min=0)
    reach = torch.where(deviation > 0, to_boundary / deviation, torch.inf)
    probability = 0.5 * torch.erfc(reach / math.sqrt(2))
    blur = torch.where(saturated, 0.0, deviation**2)
    expected = ((step**2 * probability + blur) * column_energy).nan_to_num(0.0).sum(dim=1)
    possible = torch.where(reach < 6, step**2 * column_energy, 0.0)
    return expected, possible.amax(dim=1)
