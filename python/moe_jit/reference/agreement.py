"""When does a result agree with the reference? A criterion derived from the roundings of the contract.

An implementation that rounds exactly where the contract says can still differ from the float64 reference,
because its accumulators are inexact. With sigma the expected error of one value h before its rounding to
e4m3 (from ``Accumulation.error``, propagated through the activation), step the local e4m3 spacing
and d the distance of the reference's h from the nearest rounding boundary:

* h rounds to the neighbour with probability P = erfc(d / (sigma * sqrt 2)) / 2, which moves the row of the
  second product by S2 * step * W2[:, i]. Independent over i, the expected squared L2 change of a row is
  S2^2 * sum_i P_i * step_i^2 * |W2[:, i]|^2.
* The second product's own accumulation adds S2^2 * error(I)^2 * |m|^2 * |W2|_F^2 / I.
* Rounding a row to bfloat16 adds ulp^2 / 12 per element on either side, the final rounding ulp^2 / 12.

These add up to V, the expected squared L2 deviation of a row; for a token V = sum_k w_k^2 V_k + final
rounding. F is the squared effect of the largest single flip that is possible at all (d < 6 sigma); it
matters only where few flips are expected. The relative L2 error sqrt(V) / |out| comes to about 0.2 % for
fp32 accumulation, 0.3 % to 0.8 % for Hopper's FP8 accumulation promoted every 128 of K, and up to 2.5 %
(K = 7168) without promotion.

A result agrees when, with D its difference from the reference,

* total:   |D|^2 <= 1.5^2 * sum_t V_t + max_t F_t;
* token:   |D_t|^2 <= 3^2 * V_t + 4 F_t for every token;
* element: |D_th| <= 10 * sqrt((V_t + 4 F_t) / H) + 2^-7 |out_th|;
* expert:  |alpha_e| <= 0.5 % + 5 sigma(alpha_e), where alpha solves least squares D = sum_e alpha_e * c_e
  over the experts' contributions c_e: any scale error of one expert, however diluted by the other experts,
  is its alpha. Roundings average out: with g the inverse of the Gram matrix of the c_e,
  sigma(alpha_e)^2 = 4 / min(H, I) * sum_t (V_t + F_t) |c_te|^2 * g_ee^2;
* zeros, NaN and infinities are where the reference has them.

A 2 % scale error thus fails "expert" as soon as 5 sigma(alpha_e) < 1.5 %; with fp32 or promoted accumulation
2 % in the S2 of all experts fails "total" too, for any size. The factors 1.5 and 3 cover that sigma is a root
mean square over all accumulators and that flips are rare events; the mutation tests show both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from moe_jit.reference.experts import Reference
from moe_jit.reference.rounding import bf16_ulp, round_bf16

TOTAL_FACTOR = 1.5
TOKEN_FACTOR = 3.0
ELEMENT_FACTOR = 10.0
SCALE_FLOOR = 0.005
SCALE_SIGMAS = 5.0


@dataclass
class Agreement:
    """Outcome of a comparison; every ratio is observed / allowed, so that agreement means <= 1.

    relative_l2 and expected_relative_l2 are |D| / |out| and sqrt(sum V) / |out|; identical is the fraction of
    elements that equal the reference rounded to bfloat16. With fp32 accumulation nearly all rows do.
    """

    relative_l2: float
    expected_relative_l2: float
    ratios: dict[str, float]
    identical: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems

    def check(self, context: str = "") -> Agreement:
        """Raise AssertionError listing every violated bound; ``context`` is put first. Returns self."""
        if self.problems:
            raise AssertionError(
                "\n  ".join([context or "result differs from the reference", *self.problems, str(self)])
            )
        return self

    def __str__(self) -> str:
        ratios = ", ".join(f"{name} {ratio:.2f}" for name, ratio in self.ratios.items())
        return (
            f"relative L2 {self.relative_l2:.3%} (expected {self.expected_relative_l2:.3%}), "
            f"{self.identical:.1%} of elements identical; "
            f"observed / allowed: {ratios}"
        )


def compare_output(output: torch.Tensor, reference: Reference) -> Agreement:
    """Compare a finalised bfloat16 ``output`` [T, H] with ``reference.output``."""
    top_k = reference.pair_to_row.shape[1]
    live = reference.pair_to_row >= 0
    row = reference.pair_to_row.clamp(min=0)
    weight = torch.where(live, _take(reference.row_weight, row), 0.0)
    variance = (weight**2 * _take(reference.row_variance, row)).sum(dim=1)
    variance += (bf16_ulp(reference.output) ** 2 / 12 * (reference.output != 0)).sum(dim=1)
    flip = (weight**2 * _take(reference.row_flip, row)).amax(dim=1) if top_k else variance * 0
    return _compare(output, reference.output, variance, flip, reference, row, weight)


def compare_rows(rows: torch.Tensor, pair_to_row: torch.Tensor, reference: Reference) -> Agreement:
    """Compare the unfinalised ``rows`` [P, H], found through the index vector [T * k], pair by pair.

    The index vector must mark the same pairs as absent as the reference and must not use a row twice.
    """
    index = pair_to_row.reshape(reference.pair_to_row.shape).long()
    live = reference.pair_to_row >= 0
    used = index[live]
    if not torch.equal(index >= 0, live) or torch.unique(used).numel() != used.numel():
        return Agreement(
            torch.inf, 0.0, {}, problems=["the index vector marks other pairs as local, or repeats a row"]
        )
    if used.numel() and int(used.max()) >= rows.shape[0]:
        return Agreement(
            torch.inf, 0.0, {}, problems=[f"row {int(used.max())} does not exist, there are {rows.shape[0]}"]
        )
    expected_row = reference.pair_to_row[live]
    one_per_row = torch.ones(expected_row.numel(), 1, dtype=torch.float64, device=rows.device)
    return _compare(
        rows[used],
        reference.rows[expected_row],
        reference.row_variance[expected_row],
        reference.row_flip[expected_row],
        reference,
        expected_row[:, None],
        one_per_row,
    )


def compare_routing(
    ids: torch.Tensor, weights: torch.Tensor, expected_ids: torch.Tensor, expected_weights: torch.Tensor
) -> list[str]:
    """Describe how chosen ids [T, k] and bfloat16 weights [T, k] differ from ``reference.route``'s result.

    Ids must match exactly and in order; a weight may be one bfloat16 ulp off, NaN must match NaN. The list
    is empty when they agree.
    """
    problems = []
    wrong = (ids.long() != expected_ids).any(dim=1).nonzero()[:, 0]
    if wrong.numel():
        token = int(wrong[0])
        problems.append(
            f"{wrong.numel()} tokens chose other experts; token {token}: {ids[token].tolist()}, "
            f"expected {expected_ids[token].tolist()}"
        )
    actual = weights.double()
    close = (actual - expected_weights).abs() <= torch.maximum(bf16_ulp(actual), bf16_ulp(expected_weights))
    off = ~(close | (actual == expected_weights) | (actual.isnan() & expected_weights.isnan()))
    if bool(off.any()):
        token, rank = off.nonzero()[0].tolist()
        problems.append(
            f"{int(off.sum())} weights are off; token {token} rank {rank}: {float(actual[token, rank])}, "
            f"expected {float(expected_weights[token, rank])}"
        )
    return problems


def _take(values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return (
        values[index] if values.numel() else torch.zeros(index.shape, dtype=values.dtype, device=index.device)
    )


def _compare(
    actual: torch.Tensor,
    expected: torch.Tensor,
    variance: torch.Tensor,
    flip: torch.Tensor,
    reference: Reference,
    row: torch.Tensor,
    weight: torch.Tensor,
) -> Agreement:
    """``row`` and ``weight`` [T, k] say of which reference rows, times what, ``expected`` consists."""
    if actual.shape != expected.shape:
        return Agreement(
            torch.inf, 0.0, {}, problems=[f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"]
        )
    actual = actual.double()
    problems = _special_values(actual, expected)
    same = (actual == round_bf16(expected)) | (actual.isnan() & expected.isnan())
    identical = float(same.double().mean()) if same.numel() else 1.0
    finite = expected.isfinite() & actual.isfinite()
    difference = torch.where(finite, actual - expected, 0.0)
    expected = torch.where(finite, expected, 0.0)
    whole = finite.all(dim=1)
    variance, flip = torch.where(whole, variance, 0.0), torch.where(whole, flip, 0.0)
    difference = difference * whole[:, None]

    squared = (difference**2).sum(dim=1)
    ratios = {
        "total": _root_ratio(squared.sum(), TOTAL_FACTOR**2 * variance.sum() + _max(flip)),
        "token": _max(_root_ratios(squared, TOKEN_FACTOR**2 * variance + 4 * flip)),
        "element": _element_ratio(difference, expected, variance, flip),
        "expert": _expert_ratio(difference, variance + flip, reference, row, weight * whole[:, None]),
    }
    problems += [
        f"{name} deviation is {ratio:.2f} times the bound" for name, ratio in ratios.items() if not ratio <= 1
    ]
    size = float((expected * whole[:, None]).norm()) or 1.0
    return Agreement(
        relative_l2=float(squared.sum().sqrt()) / size,
        expected_relative_l2=float(variance.sum().sqrt()) / size,
        ratios=ratios,
        identical=identical,
        problems=problems,
    )


def _special_values(actual: torch.Tensor, expected: torch.Tensor) -> list[str]:
    problems = []
    if not torch.equal(actual.isnan(), expected.isnan()):
        problems.append(
            f"{int((actual.isnan() != expected.isnan()).sum())} elements are NaN on one side only"
        )
    infinite = expected.isinf() | actual.isinf()
    if not torch.equal(actual[infinite].nan_to_num(0), expected[infinite].nan_to_num(0)):
        problems.append("infinities differ")
    absent = (expected == 0).all(dim=1)
    if bool((actual[absent] != 0).any()):
        problems.append("a row that must be zero is not")
    return problems


def _element_ratio(
    difference: torch.Tensor, expected: torch.Tensor, variance: torch.Tensor, flip: torch.Tensor
) -> float:
    spread = ((variance + 4 * flip) / expected.shape[1]).sqrt()[:, None]
    return _max(_ratios(difference.abs(), ELEMENT_FACTOR * spread + expected.abs() / 128))


def _expert_ratio(
    difference: torch.Tensor,
    variance: torch.Tensor,
    reference: Reference,
    row: torch.Tensor,
    weight: torch.Tensor,
) -> float:
    """Largest |alpha_e| relative to its bound."""
    num_experts = int(reference.row_expert.max()) + 1 if reference.row_expert.numel() else 0
    gram = difference.new_zeros(num_experts, num_experts)
    projection, spread = difference.new_zeros(num_experts), difference.new_zeros(num_experts)
    for token in (weight != 0).any(dim=1).nonzero()[:, 0].tolist():
        live = weight[token] != 0
        part = weight[token, live, None] * reference.rows[row[token, live]]
        expert = reference.row_expert[row[token, live]]
        gram[expert[:, None], expert] += part @ part.T
        projection[expert] += part @ difference[token]
        spread[expert] += variance[token] * (part * part).sum(dim=1)
    energy = gram.diagonal()
    present = energy > 0
    if not bool(present.any()):
        return 0.0
    ridge = torch.diag(1e-9 * energy[present])
    inverse = torch.linalg.inv(gram[present][:, present] + ridge)
    alpha = inverse @ projection[present]
    sigma = (4 / reference.degrees * spread[present]).sqrt() * inverse.diagonal()
    return _max(alpha.abs() / (SCALE_FLOOR + SCALE_SIGMAS * sigma))


def _ratios(observed: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    return torch.where(observed == 0, 0.0, observed / allowed)


def _root_ratios(observed: torch.Tensor, allowed: torch.Tensor) -> torch.Tensor:
    return _ratios(observed, allowed).sqrt()


def _root_ratio(observed: torch.Tensor, allowed: torch.Tensor) -> float:
    return float(_root_ratios(observed, allowed))


def _max(values: torch.Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0
