"""Random configurations against the float64 reference, shrunk to a small one when they fail.

A GPU module is compiled for a routing method and a bound on the experts, an activation and a token tile:
VARIANTS fixes these to bound the compile time, and everything else is random. Inputs are fresh in every run;
MOE_JIT_TEST_SEED repeats one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from support.calls import call, call_routed, call_unfinalised, check_finalised, check_routing
from support.problems import Layer, Routing, fresh_seed, generator, random_e4m3, random_layer, random_routing
from support.setup import DEVICES
from support.tiles import forced_tile

from moe_jit.enums import ActivationType, RoutingMethodType
from moe_jit.plan import TILE_TOKENS, Tactic
from moe_jit.reference import (
    FP32,
    HOPPER_FP8,
    HOPPER_FP8_FAST,
    Accumulation,
    Reference,
    compare_output,
    compare_rows,
    fp8_moe,
    route,
)

EXAMPLES = {"cpu": 3, "cuda": 20}
MAX_TOKENS = {"cpu": 40, "cuda": 900}
MAX_STEPS = {"cpu": 8, "cuda": 48}  # of 16 or 32 elements, in hidden_size and intermediate_size
NAN_BYTE = 0x7F
METHODS = RoutingMethodType
ACTIVATIONS = ActivationType


@dataclass(frozen=True)
class Variant:
    """What a GPU module is compiled for. ``method`` None: the caller gives ids and weights."""

    method: RoutingMethodType | None
    max_experts: int
    activation: ActivationType
    tile_tokens: int

    def __str__(self) -> str:
        method = self.method.name if self.method is not None else "PreRouted"
        return f"{method}-{self.max_experts}-{self.activation.name}-{self.tile_tokens}"

    def accumulation(self, device: str) -> Accumulation:
        if device == "cpu":
            return FP32
        return HOPPER_FP8_FAST if Tactic(self.tile_tokens).has_fast_accumulation else HOPPER_FP8


def _variants() -> list[Variant]:
    """Every routing method and activation, every tile with and without a gate."""
    routes = [
        (METHODS.Default, 32),
        (METHODS.Renormalize, 128),
        (METHODS.DeepSeekV3, 256),
        (METHODS.Llama4, 128),
        (METHODS.RenormalizeNaive, 32),
        (METHODS.TopK, 64),
        (METHODS.SigmoidRenorm, 32),
        (METHODS.Sigmoid, 64),
        (METHODS.TopKSigmoid, 32),
        (None, 32),
        (METHODS.Renormalize, 1024),
        (METHODS.MiniMax2, 256),
        (METHODS.DeepSeekV3, 32),
        (METHODS.Default, 64),
        (METHODS.TopK, 32),
        (METHODS.Renormalize, 32),
    ]
    gated = [ACTIVATIONS.Swiglu, ACTIVATIONS.Geglu]
    others = [ACTIVATIONS.Relu2, ACTIVATIONS.Gelu, ACTIVATIONS.Identity]
    variants = []
    for i, (method, experts) in enumerate(routes):
        turn, at = divmod(i, len(TILE_TOKENS))
        activation = others[at % len(others)] if turn == 1 else gated[at % len(gated)]
        variants.append(Variant(method, experts, activation, TILE_TOKENS[at]))
    return variants


VARIANTS = _variants()


@dataclass(frozen=True)
class Case:
    """One configuration; together with a Variant it determines every input."""

    seed: int
    num_tokens: int
    hidden_size: int
    intermediate_size: int
    weight_layout: str
    num_experts: int
    top_k: int
    num_local: int
    offset: int = 0
    spare_experts: int = 0
    scales: str = "positive"
    scale_input: bool = False
    enable_pdl: bool | None = None
    hot_expert: bool = False
    logits_dtype: torch.dtype = torch.float32
    bias_dtype: torch.dtype | None = None
    settings: dict[str, Any] = field(default_factory=dict)


@st.composite
def cases(draw: st.DrawFn, variant: Variant, device: str) -> Case:
    layout = draw(st.sampled_from(["shuffled", "w3_w1", "w1_w3"]))
    step = 32 if layout == "shuffled" else 16
    inner_step = step if not variant.activation.is_gated else 16
    sizes = st.integers(1, MAX_STEPS[device])
    smallest = 1 if variant.max_experts == 32 else variant.max_experts // 2 + 1
    num_experts = draw(st.integers(smallest, variant.max_experts))
    settings = draw(_routing_settings(variant.method, num_experts))
    selectable = settings.pop("selectable", num_experts)
    top_k = 1 if variant.method is METHODS.Llama4 else draw(st.integers(1, min(selectable, 32)))
    offset = draw(st.one_of(st.just(0), st.integers(0, num_experts - 1)))
    compares_logits = variant.method in (METHODS.Renormalize, METHODS.RenormalizeNaive, METHODS.TopK)
    return Case(
        seed=draw(st.integers(0, 2**32 - 1)),
        num_tokens=draw(_token_counts(MAX_TOKENS[device])),
        hidden_size=step * draw(sizes),
        intermediate_size=inner_step * draw(sizes),
        weight_layout=layout,
        num_experts=num_experts,
        top_k=top_k,
        offset=offset,
        num_local=draw(st.integers(1, num_experts - offset)),
        spare_experts=draw(st.integers(0, 2)),
        scales=draw(st.sampled_from(["positive", "signed", "some zero"])),
        scale_input=draw(st.booleans()),
        enable_pdl=draw(st.sampled_from([None, True, False])),
        hot_expert=compares_logits and draw(st.booleans()),
        logits_dtype=draw(st.sampled_from([torch.float32, torch.bfloat16])),
        bias_dtype=draw(st.sampled_from([None, torch.float32, torch.bfloat16])),
        settings=settings,
    )


def _token_counts(largest: int) -> st.SearchStrategy[int]:
    """Small counts are as likely as large ones: other kernels and tiles run there."""
    return st.one_of(st.integers(1, 16), st.integers(1, min(130, largest)), st.integers(1, largest))


@st.composite
def _routing_settings(draw: st.DrawFn, method: RoutingMethodType | None, num_experts: int) -> dict[str, Any]:
    """Keyword arguments of random_routing; "selectable" bounds top_k when groups limit the choice."""
    settings: dict[str, Any] = {
        "factor": draw(st.sampled_from([None, 1.0, 2.5])),
        "norm_topk_prob": draw(st.booleans()),
    }
    counts = [n for n in (2, 4, 8, 16) if num_experts % n == 0 and num_experts >= 2 * n]
    if method is METHODS.DeepSeekV3 and counts and draw(st.booleans()):
        n_group = draw(st.sampled_from(counts))
        topk_group = draw(st.integers(1, n_group))
        selectable = num_experts // n_group * topk_group
        settings |= {"n_group": n_group, "topk_group": topk_group, "selectable": selectable}
    return settings


def make_layer(case: Case, variant: Variant, gen: torch.Generator) -> Layer:
    layer = random_layer(
        gen,
        num_experts=case.num_local,
        hidden_size=case.hidden_size,
        intermediate_size=case.intermediate_size,
        activation=int(variant.activation),
        weight_layout=case.weight_layout,
    )
    if case.scales != "positive":
        values = [-1.0, 1.0] if case.scales == "signed" else [0.0, 1.0, 1.0]
        for scale in (layer.sc, layer.sg, layer.s2):
            pick = torch.randint(len(values), scale.shape, generator=gen, device=gen.device)
            scale.mul_(torch.tensor(values, device=gen.device)[pick])
    return replace(
        layer,
        gemm1=_with_spare(layer.gemm1, case.spare_experts),
        gemm2=_with_spare(layer.gemm2, case.spare_experts),
    )


def _with_spare(weight: torch.Tensor, count: int) -> torch.Tensor:
    """``weight`` followed by ``count`` experts full of NaN, which nobody may read."""
    stored = weight.view(torch.uint8)
    spare = torch.full((count, *weight.shape[1:]), NAN_BYTE, dtype=torch.uint8, device=weight.device)
    return torch.cat([stored, spare]).view(weight.dtype)


def make_routing(case: Case, variant: Variant, gen: torch.Generator) -> Routing:
    assert variant.method is not None
    routing = random_routing(
        gen,
        case.num_tokens,
        case.num_experts,
        method=int(variant.method),
        top_k=case.top_k,
        dtype=case.logits_dtype,
        bias_dtype=case.bias_dtype,
        **case.settings,
    )
    if case.hot_expert:
        routing.logits[:, case.offset] = 30
    return routing


def make_routed(case: Case, gen: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids with repeats and ids outside [0, num_experts), and weights of either sign."""
    shape = (case.num_tokens, case.top_k)
    ids = torch.randint(-2, case.num_experts + 2, shape, generator=gen, device=gen.device)
    return ids, torch.randn(shape, generator=gen, device=gen.device).bfloat16()


def check_case(case: Case, variant: Variant, device: str) -> None:
    """Compare both forms of the result with the reference."""
    context = f"{variant} {case}"
    gen = generator(case.seed, device)
    layer = make_layer(case, variant, gen)
    hidden = random_e4m3(gen, case.num_tokens, case.hidden_size)
    expected = partial(
        fp8_moe,
        hidden,
        local_expert_offset=case.offset,
        use_routing_scales_on_input=case.scale_input,
        accumulation=variant.accumulation(device),
        **layer.experts(),
    )
    options = {
        "offset": case.offset,
        "use_routing_scales_on_input": case.scale_input,
        "enable_pdl": case.enable_pdl,
    }
    if variant.method is None:
        ids, weights = make_routed(case, gen)
        run = partial(call_routed, layer, hidden, ids, weights, num_experts=case.num_experts, **options)
        rows, returned, index = run(do_finalize=False)
        assert torch.equal(returned, weights), context
        reference = expected(ids=ids, weights=weights)
        check_values(run(), rows, index, reference, context)
        return
    routing = make_routing(case, variant, gen)
    parts = call_unfinalised(layer, hidden, routing, **options)
    check_routing(parts, routing, context)
    ids, _ = route(routing.logits, routing.bias, **routing.settings())
    poisoned = torch.full_like(hidden, math.nan, dtype=torch.bfloat16)
    output = call(layer, hidden, routing, output=poisoned, **options)
    check_values(output, parts.rows, parts.pair_to_row, expected(ids=ids, weights=parts.weights), context)
    check_finalised(output, parts, case.scale_input)


def check_values(
    output: torch.Tensor, rows: torch.Tensor, index: torch.Tensor, reference: Reference, context: str
) -> None:
    compare_rows(rows, index, reference).check(context)
    compare_output(output, reference).check(context)


def test_a_weight_one_ulp_off_scales_the_values():
    """Weights may be one ulp off; here one is, and its expert's input is scaled with it."""
    case = Case(
        seed=202,
        num_tokens=489,
        hidden_size=48,
        intermediate_size=656,
        weight_layout="w1_w3",
        num_experts=30,
        top_k=3,
        num_local=25,
        spare_experts=2,
        scale_input=True,
        logits_dtype=torch.bfloat16,
        bias_dtype=torch.float32,
        settings={"factor": None, "norm_topk_prob": False},
    )
    check_case(case, Variant(METHODS.Default, 32, ACTIVATIONS.Swiglu, 8), "cpu")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_random_configurations(variant: Variant, device: str) -> None:
    seed = fresh_seed()
    print(f"MOE_JIT_TEST_SEED={seed}")

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=EXAMPLES[device], deadline=None, database=None, report_multiple_bugs=False
    )
    @hypothesis.given(cases(variant, device))
    def check(case: Case) -> None:
        check_case(case, variant, device)

    with forced_tile(variant.tile_tokens):
        check()


def test_variants_cover_what_modules_are_compiled_for() -> None:
    assert {v.method for v in VARIANTS} == {None, *METHODS} - {METHODS.Unspecified}
    assert {v.activation for v in VARIANTS} == set(ACTIVATIONS)
    assert {v.tile_tokens for v in VARIANTS} == set(TILE_TOKENS)
    assert len(VARIANTS) * EXAMPLES["cuda"] >= 300
