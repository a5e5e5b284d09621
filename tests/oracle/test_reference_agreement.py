"""Mutation tests of the acceptance criterion: it accepts emulated hardware and rejects every mistake.

"fp32" stands for the CPU backend, "hopper" and "hopper fast" for FP8 tensor cores with and without promotion.
A mutant is computed with the same emulated accumulation as the honest result, so that it has the legitimate
deviations on top of its mistake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from support.hopper import fp32_matmul, hopper_matmul
from support.problems import fresh_seed, generator, random_e4m3, random_layer, random_routing

from moe_jit import layouts
from moe_jit.reference import (
    FP32,
    HOPPER_FP8,
    HOPPER_FP8_FAST,
    Accumulation,
    compare_output,
    compare_routing,
    compare_rows,
    experts,
    fp8_moe,
    route,
)
from moe_jit.reference.rounding import e4m3_step, round_bf16

EMULATED = {
    "fp32": (FP32, fp32_matmul),
    "hopper": (HOPPER_FP8, hopper_matmul),
    "hopper fast": (HOPPER_FP8_FAST, partial(hopper_matmul, promote=1 << 30)),
}
LOADS = {"dense load": (48, 4, 2, 256, 128), "sparse load": (64, 16, 4, 128, 96)}
SHAPES = {  # num_tokens, num_experts, top_k, hidden_size, intermediate_size
    "one token": (1, 8, 2, 512, 256),
    "dense": (12, 4, 2, 256, 128),
    "sparse": (16, 32, 4, 128, 96),
    "single expert": (6, 4, 1, 192, 160),
    "wide": (8, 4, 2, 96, 1024),
}


@dataclass
class Case:
    arguments: dict
    accumulation: Accumulation
    matmul: experts.MatMul
    seed: int

    def reference(self) -> experts.Reference:
        return fp8_moe(**self.arguments, accumulation=self.accumulation)

    def result(self, **changes) -> experts.Reference:
        return fp8_moe(**(self.arguments | {"matmul": self.matmul} | changes))

    def output(self, **changes) -> torch.Tensor:
        return self.result(**changes).output.bfloat16()


def make_case(emulated: str, shape: str = "dense", activation: int = 3, layout: str = "shuffled") -> Case:
    seed = fresh_seed()
    gen = generator(seed, "cpu")
    num_tokens, num_experts, top_k, hidden_size, intermediate_size = (SHAPES | LOADS)[shape]
    layer = random_layer(
        gen,
        num_experts=num_experts,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        activation=activation,
        weight_layout=layout,
    )
    routing = random_routing(gen, num_tokens, num_experts, method=1, top_k=top_k)
    ids, weights = route(routing.logits, None, **routing.settings())
    arguments = {"hidden": random_e4m3(gen, num_tokens, hidden_size), "ids": ids, "weights": weights}
    return Case(arguments | layer.experts(), *EMULATED[emulated], seed)


@pytest.fixture(params=list(EMULATED))
def emulated(request) -> str:
    return request.param


@pytest.mark.parametrize("activation", [0, 3, 4, 6, 7])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_honest_results_agree(emulated, shape, activation):
    for _ in range(3):
        case = make_case(emulated, shape, activation)
        reference, result = case.reference(), case.result()
        compare_output(result.output.bfloat16(), reference).check(f"seed {case.seed}")
        compare_rows(result.rows.bfloat16(), result.pair_to_row.int().flatten(), reference).check(
            f"seed {case.seed}"
        )


def test_expected_deviation_is_small(emulated):
    """What the bounds are made of: a fraction of a percent, so 2 % cannot hide."""
    cases = [make_case(emulated, "dense load") for _ in range(5)]
    agreements = [compare_output(case.output(), case.reference()) for case in cases]
    expected = sorted(agreement.expected_relative_l2 for agreement in agreements)[2]
    assert expected < {"fp32": 0.004, "hopper": 0.008, "hopper fast": 0.012}[emulated]
    assert sorted(agreement.relative_l2 for agreement in agreements)[2] < expected


def scaled(name: str, factor: float = 1.02, expert: int | None = None) -> Callable[[Case], dict]:
    def change(case: Case) -> dict:
        scale = case.arguments[name].clone()
        scale[slice(None) if expert is None else expert] *= factor
        return {name: scale}

    return change


def swapped_halves(case: Case) -> dict:
    plain = layouts.unshuffle_gemm1(case.arguments["w1"], gated=True)
    return {"w1": layouts.shuffle_gemm1(plain, gated=True, source="w1_w3")}


def not_unshuffled(case: Case) -> dict:
    return {"weight_layout": "w3_w1"}


def only_gemm2_not_unshuffled(case: Case) -> dict:
    return {"w2": layouts.shuffle_gemm2(case.arguments["w2"])}


def swapped_scales(case: Case) -> dict:
    return {"sc": case.arguments["sg"], "sg": case.arguments["sc"]}


def scales_of_the_next_expert(case: Case) -> dict:
    return {name: case.arguments[name].roll(1) for name in ("sc", "sg", "s2")}


def busiest(case: Case) -> int:
    return int(case.arguments["ids"].flatten().mode().values)


def dropped_expert(case: Case) -> dict:
    ids = case.arguments["ids"]
    return {"ids": torch.where(ids == busiest(case), -1, ids)}


def dropped_pair(case: Case) -> dict:
    ids = case.arguments["ids"].clone()
    ids[-1, 0] = -1
    return {"ids": ids}


def weights_left_out(case: Case) -> dict:
    return {"weights": torch.ones_like(case.arguments["weights"])}


def weights_exchanged(case: Case) -> dict:
    return {"weights": case.arguments["weights"].flip(1)}


def weight_on_the_input(case: Case) -> dict:
    return {"use_routing_scales_on_input": True}


def tokens_exchanged(case: Case) -> dict:
    return {"hidden": case.arguments["hidden"].roll(1, 0)}


def k_tail_of(name: str) -> Callable[[Case], dict]:
    def change(case: Case) -> dict:
        weight = case.arguments[name].double()
        weight[..., -16:] = 0
        return {name: weight}

    return change


MISTAKES = {
    "sc 2 %": scaled("sc"),
    "sg 2 %": scaled("sg"),
    "s2 2 %": scaled("s2"),
    "s2 -2 %": scaled("s2", 0.98),
    "halves swapped": swapped_halves,
    "rows not unshuffled": not_unshuffled,
    "gemm2 not unshuffled": only_gemm2_not_unshuffled,
    "SC and SG swapped": swapped_scales,
    "scales of the next expert": scales_of_the_next_expert,
    "dropped expert": dropped_expert,
    "dropped pair": dropped_pair,
    "no weights": weights_left_out,
    "weights in the wrong order": weights_exchanged,
    "weight on the input": weight_on_the_input,
    "tokens exchanged": tokens_exchanged,
    "last 16 of H ignored": k_tail_of("w1"),
    "last 16 of I ignored": k_tail_of("w2"),
    "gelu instead of silu": lambda case: {"activation": 4},
}


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_mistakes_are_rejected(emulated, mistake):
    for shape in ("dense", "sparse"):
        case = make_case(emulated, shape)
        output = case.output(**MISTAKES[mistake](case))
        agreement = compare_output(output, case.reference())
        assert not agreement.ok, f"accepted with seed {case.seed}, {shape}: {agreement}"


@pytest.mark.parametrize("activation", [0, 4, 6, 7])
@pytest.mark.parametrize("scale", ["sc", "sg", "s2"])
def test_scale_errors_are_rejected_for_every_activation(emulated, activation, scale):
    case = make_case(emulated, "dense", activation)
    agreement = compare_output(case.output(**scaled(scale)(case)), case.reference())
    assert agreement.ok == (activation == 7 and scale == "sg"), f"seed {case.seed}: {agreement}"


@pytest.mark.parametrize("scale", ["sc", "s2"])
def test_a_scale_error_of_one_expert_is_rejected(emulated, scale):
    """Diluted by the other experts of its tokens, it is small in the output but whole in its alpha."""
    for shape, factor in (("dense load", 1.05), ("sparse load", 1.1)):
        case = make_case(emulated, shape)
        result = case.result(**scaled(scale, factor, busiest(case))(case))
        reference = case.reference()
        assert compare_output(result.output.bfloat16(), reference).ratios["expert"] > 1, f"seed {case.seed}"
        rows = compare_rows(result.rows, result.pair_to_row, reference)
        assert rows.ratios["expert"] > 1, f"seed {case.seed}"


correct_e4m3 = experts.round_e4m3


def truncated(value: torch.Tensor) -> torch.Tensor:
    step = e4m3_step(value)
    return (torch.trunc(value / step) * step).clamp(-448, 448)


def unsaturated(value: torch.Tensor) -> torch.Tensor:
    return torch.where(value.abs() > 464, torch.nan, correct_e4m3(value))


def clamped_to_240(value: torch.Tensor) -> torch.Tensor:
    return correct_e4m3(value).clamp(-240, 240)


def unrounded(value: torch.Tensor) -> torch.Tensor:
    return value.clamp(-448, 448)


@pytest.mark.parametrize("rounding", [truncated, unsaturated, clamped_to_240, unrounded])
def test_wrong_e4m3_roundings_are_rejected(emulated, rounding, monkeypatch):
    case = make_case(emulated)
    case.arguments["sc"] = 3 * case.arguments["sc"]  # about one value in ten saturates
    reference = case.reference()
    monkeypatch.setattr(experts, "round_e4m3", rounding)
    agreement = compare_output(case.output(), reference)
    assert not agreement.ok, f"accepted with seed {case.seed}: {agreement}"


class TestIdenticalElements:
    """With fp32 accumulation errors below the bounds still show in the share of identical elements."""

    def identical(self, activation: int) -> Callable[[], float]:
        case = make_case("fp32", "wide", activation)
        reference = case.reference()
        return lambda: compare_rows(case.result().rows, reference.pair_to_row, reference).identical

    @pytest.mark.parametrize("activation", [0, 3, 4, 6, 7])
    def test_honest_results_are_nearly_all_identical(self, activation):
        assert self.identical(activation)() > 0.97

    def test_a_second_rounding_to_bf16_is_visible(self, monkeypatch):
        identical = self.identical(3)
        monkeypatch.setattr(experts, "round_e4m3", lambda value: correct_e4m3(round_bf16(value)))
        assert identical() < 0.8

    def test_tanh_gelu_is_visible(self, monkeypatch):
        identical = self.identical(4)
        monkeypatch.setattr(experts, "_gelu", lambda z: torch.nn.functional.gelu(z, approximate="tanh"))
        assert identical() < 0.8


class TestSingleElements:
    def corrupt(self, emulated: str, change: Callable[[torch.Tensor], None]) -> bool:
        case = make_case(emulated)
        output = case.output()
        change(output)
        return compare_output(output, case.reference()).ok

    def test_one_wrong_element(self, emulated):
        def change(output):
            row = output[5].abs()
            output[5, row.argmin()] = row.max()

        assert not self.corrupt(emulated, change)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
    def test_one_special_element(self, emulated, value):
        def change(output):
            output[5, output[5].abs().argmax()] = value

        assert not self.corrupt(emulated, change)

    def test_neighbouring_elements_exchanged(self, emulated):
        def change(output):
            output[:, 64:72] = output[:, 64:72].flip(1)

        assert not self.corrupt(emulated, change)

    def test_stale_row(self, emulated):
        def change(output):
            output[3] = output[2]

        assert not self.corrupt(emulated, change)


class TestSpecialValues:
    def test_nan_of_the_reference_is_required_and_confined(self, emulated):
        case = make_case(emulated)
        weights = case.arguments["weights"].clone()
        weights[4] = torch.nan
        case.arguments["weights"] = weights
        reference, output = case.reference(), case.output()
        assert reference.output[4].isnan().all()
        assert compare_output(output, reference).ok
        output[4] = 0
        assert not compare_output(output, reference).ok

    def test_a_token_without_local_experts_must_be_zero(self, emulated):
        case = make_case(emulated)
        case.arguments["ids"] = case.arguments["ids"].clone()
        case.arguments["ids"][7] = -1
        reference, output = case.reference(), case.output()
        assert not reference.output[7].any()
        assert compare_output(output, reference).ok
        output[7, 3] = 1e-6
        assert not compare_output(output, reference).ok


class TestIndexVector:
    def test_any_row_order_is_accepted_when_the_index_follows(self):
        case = make_case("fp32")
        reference, result = case.reference(), case.result()
        order = torch.randperm(result.rows.shape[0])
        assert compare_rows(result.rows[order], order.argsort()[result.pair_to_row], reference).ok
        assert not compare_rows(result.rows[order], result.pair_to_row, reference).ok

    def test_wrong_indices(self):
        case = make_case("fp32")
        reference, result = case.reference(), case.result()
        missing, repeated, outside = (result.pair_to_row.clone() for _ in range(3))
        missing[0, 0] = -1
        repeated[0, 0] = repeated[0, 1]
        outside[0, 0] = result.rows.shape[0]
        for index in (missing, repeated, outside):
            assert not compare_rows(result.rows, index, reference).ok


class TestRoutingComparison:
    def routed(self, **changes):
        gen = generator(fresh_seed(), "cpu")
        routing = random_routing(gen, 64, 64, method=2, top_k=4, n_group=4, topk_group=2, factor=2.5)
        expected = route(routing.logits, routing.bias, **routing.settings())
        bias = changes.pop("bias", routing.bias)
        return compare_routing(*route(routing.logits, bias, **(routing.settings() | changes)), *expected)

    def test_the_same_routing_agrees(self):
        assert self.routed() == []

    @pytest.mark.parametrize(
        "mistake",
        [
            {"bias": None},
            {"routed_scaling_factor": None},
            {"routed_scaling_factor": 2.5 * 1.02},
            {"n_group": None},
            {"topk_group": 3},
            {"method": 7},
            {"method": 1},
            {"method": 6},
            {"method": 8},
        ],
    )
    def test_mistakes_are_reported(self, mistake):
        assert self.routed(**mistake)

    @pytest.mark.parametrize("method", [0, 1, 5, 6, 8, 10])
    def test_wrong_tie_rule_is_reported(self, method):
        logits = torch.randn(64, 128, generator=generator(fresh_seed(), "cpu")).bfloat16()
        expected_ids, weights = route(logits, None, method=method, top_k=8)
        ids = 127 - route(logits.flip(1), None, method=method, top_k=8)[0]
        assert compare_routing(ids, weights, expected_ids, weights)

    def test_bias_in_bf16_is_reported(self):
        bias = torch.tensor([1.0, 1 + 2.0**-10])
        expected = route(torch.zeros(1, 2), bias, method=2, top_k=1)
        assert compare_routing(*route(torch.zeros(1, 2), bias.bfloat16(), method=2, top_k=1), *expected)

    def test_exactly_one_ulp_is_allowed(self):
        ids, weights = torch.zeros(1, 1).long(), torch.tensor([[1.0]])
        assert compare_routing(ids, weights + 2**-7, ids, weights.double()) == []
        assert compare_routing(ids, weights + 2**-6, ids, weights.double())
        assert compare_routing(ids, weights * torch.nan, ids, weights.double())
