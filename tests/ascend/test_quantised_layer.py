"""A W8A8 expert layer as vllm-ascend and SGLang build it from the operators, against float64.

The oracle quantises where the layer does, so that only roundings of the last bit separate the two; the layer
without quantisation bounds what quantisation itself costs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import pytest
import torch
from support.ascend import Inputs, devices
from support.calls import poisoned_allocations

import moe_jit
from moe_jit.reference import ascend as reference

OPERATORS = (
    "dynamic_quant",
    "grouped_matmul",
    "dequant_swiglu_quant",
    "grouped_matmul_finalize_routing",
)
CUDA = [d for d in devices(*OPERATORS) if not isinstance(d, str) and d.values[0] == "cuda"]
SPARE = 9  # rows of no expert behind the live ones, as in a receive buffer
LAST_BITS = 4e-3  # relative L2: an int8 or bf16 value next to a tie may round the other way
QUANTISATION = 0.02


@dataclass
class Layer:
    """Operands, and the routing as rows sorted by expert."""

    x: torch.Tensor  # bf16 [tokens, hidden]
    w13: torch.Tensor  # int8 [experts, hidden, 2 * inner], gate first
    w2: torch.Tensor  # int8 [experts, inner, hidden]
    w13_scale: torch.Tensor
    w2_scale: torch.Tensor  # values of bf16
    weights: torch.Tensor  # [rows]
    tokens: torch.Tensor  # [rows]
    experts: torch.Tensor  # [rows]
    counts: torch.Tensor
    shared: torch.Tensor  # bf16 [tokens, hidden], output of a shared expert
    note: str

    def on(self, device: str) -> Layer:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in values.items() if isinstance(v, torch.Tensor)})

    def spread(self, per_token: torch.Tensor) -> torch.Tensor:
        """A row for each routed row, and poisoned ones behind them."""
        rows = per_token[self.tokens]
        return torch.cat([rows, torch.full_like(rows[:1], 77).expand(SPARE, *rows.shape[1:])])

    @property
    def groups(self) -> dict[str, object]:
        return {"group_type": 0, "group_list": self.counts, "group_list_type": 1}


def make_layer(inputs: Inputs, tokens: int = 40, top_k: int = 3, experts: int = 7) -> Layer:
    hidden, inner = 256, 96
    weights, ids = inputs.normal(tokens, experts).softmax(dim=1).topk(top_k, dim=1)
    order = ids.flatten().argsort(stable=True)
    return Layer(
        x=inputs.normal(tokens, hidden, dtype=torch.bfloat16),
        w13=inputs.integers(experts, hidden, 2 * inner),
        w2=inputs.integers(experts, inner, hidden),
        w13_scale=inputs.positive(experts, 2 * inner, high=2e-3),
        w2_scale=inputs.positive(experts, hidden, high=2e-3).bfloat16().float(),
        weights=weights.flatten()[order],
        tokens=order // top_k,
        experts=ids.flatten()[order],
        counts=torch.bincount(ids.flatten(), minlength=experts),
        shared=inputs.normal(tokens, hidden, dtype=torch.bfloat16),
        note=inputs.note,
    )


# ---- the layer, from the operators


def first_half(layer: Layer, blocked: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Sums without a scale, then dequantisation in groups: decoding in both engines."""
    x, scale = moe_jit.npu_dynamic_quant(layer.x)
    (sums,) = moe_jit.npu_grouped_matmul(
        [layer.spread(x)],
        [moe_jit.npu_format_cast(layer.w13, 29) if blocked else layer.w13],
        split_item=3,
        output_dtype=torch.int32,
        **layer.groups,
    )
    return moe_jit.npu_dequant_swiglu_quant(
        sums,
        weight_scale=layer.w13_scale,
        activation_scale=layer.spread(scale),
        group_index=layer.counts,
        activate_left=True,
        quant_mode=1,
    )


def first_half_in_bf16(layer: Layer) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled sums and a cumulative list: SGLang's prefill."""
    x, scale = moe_jit.npu_dynamic_quant(layer.x)
    (h,) = moe_jit.npu_grouped_matmul(
        [layer.spread(x)],
        [layer.w13],
        scale=[layer.w13_scale.bfloat16()],
        per_token_scale=[layer.spread(scale)],
        split_item=2,
        group_type=0,
        group_list=layer.counts.cumsum(0),
        group_list_type=0,
        output_dtype=torch.bfloat16,
    )
    return moe_jit.npu_dequant_swiglu_quant(h, activate_left=True, quant_mode=1)


def combined(layer: Layer, h: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Second product in bf16, then a weighted sum."""
    (rows,) = moe_jit.npu_grouped_matmul(
        [h],
        [layer.w2],
        scale=[layer.w2_scale.bfloat16()],
        per_token_scale=[scale],
        split_item=2,
        output_dtype=torch.bfloat16,
        **layer.groups,
    )
    assert not rows[-SPARE:].any()
    weighed = rows[:-SPARE].float() * layer.weights[:, None]
    return layer.shared.float().index_add(0, layer.tokens, weighed)


def finalised(layer: Layer, h: torch.Tensor, scale: torch.Tensor, blocked: bool) -> torch.Tensor:
    behind = torch.full((SPARE,), float("nan"), device=h.device)
    return moe_jit.npu_grouped_matmul_finalize_routing(
        h,
        moe_jit.npu_format_cast(layer.w2, 29) if blocked else layer.w2,
        layer.counts,
        scale=layer.w2_scale,
        pertoken_scale=scale,
        shared_input=layer.shared,
        logit=torch.cat([layer.weights, behind]),
        row_index=torch.cat([layer.tokens, layer.tokens.new_zeros(SPARE)]),
        output_bs=layer.x.shape[0],
    )


# ---- the oracle


def oracle(layer: Layer, quantised: bool, w13_scale: torch.Tensor | None = None) -> torch.Tensor:
    """float64 [tokens, hidden]; each row's own scales, rounded values where the layer rounds."""

    def rounded(values: torch.Tensor) -> torch.Tensor:
        if not quantised:
            return values
        quantised_rows = reference.dynamic_quant(values.float())
        return quantised_rows.rounded().double() * quantised_rows.scale[:, None]

    first = layer.w13_scale if w13_scale is None else w13_scale
    rows = rounded(layer.x.double())[layer.tokens]
    w13 = layer.w13.double() * first.double()[:, None]
    gate, up = torch.einsum("mk,mkn->mn", rows, w13[layer.experts]).chunk(2, dim=1)
    h = rounded(torch.nn.functional.silu(gate) * up)
    w2 = layer.w2.double() * layer.w2_scale.double()[:, None]
    out = torch.einsum("mk,mkn->mn", h, w2[layer.experts]) * layer.weights.double()[:, None]
    return layer.shared.double().index_add(0, layer.tokens, out)


def check(y: torch.Tensor, layer: Layer, last_bits: float = LAST_BITS, whole: float = QUANTISATION) -> None:
    for quantised, tolerance in ((True, last_bits), (False, whole)):
        expected = oracle(layer, quantised)
        error = ((y.cpu().double() - expected).norm() / expected.norm()).item()
        assert error < tolerance, f"{layer.note}: {error} from the oracle, quantised: {quantised}"


@pytest.fixture(params=["cpu", *CUDA])
def device(request) -> str:
    return request.param


@pytest.fixture
def layer() -> Layer:
    return make_layer(Inputs())


@pytest.mark.parametrize("blocked", [False, True])
def test_sums_then_a_separate_combination(layer: Layer, device: str, blocked: bool):
    given = layer.on(device)
    with poisoned_allocations():
        y = combined(given, *first_half(given, blocked))
    check(y, layer, last_bits=2 * LAST_BITS)  # the rows that are combined are bf16


def test_scaled_products_then_a_separate_combination(layer: Layer, device: str):
    given = layer.on(device)
    with poisoned_allocations():
        y = combined(given, *first_half_in_bf16(given))
    in_bf16 = replace(layer, w13_scale=layer.w13_scale.bfloat16().float())
    check(y, in_bf16, last_bits=3 * LAST_BITS)  # the operands of the activation are bf16


@pytest.mark.parametrize("blocked", [False, True])
def test_sums_then_finalize_routing(layer: Layer, device: str, blocked: bool):
    given = layer.on(device)
    with poisoned_allocations():
        y = finalised(given, *first_half(given, blocked), blocked)
    check(y, layer)


def test_one_token(device: str):
    layer = make_layer(Inputs(), tokens=1)
    given = layer.on(device)
    y = finalised(given, *first_half(given, False), False)
    check(y, layer, last_bits=5 * LAST_BITS, whole=3 * QUANTISATION)  # only three rows share the deviations


@pytest.mark.parametrize("device", CUDA)
def test_a_gpu_has_the_bits_of_the_cpu(layer: Layer, device: str):
    results = [finalised(given, *first_half(given, False), False) for given in (layer, layer.on(device))]
    assert torch.equal(results[0], results[1].cpu()), layer.note
