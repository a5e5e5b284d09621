"""Hand-computed routing results. s(0) = 1/2, s(ln 3) = 3/4, s(-ln 3) = 1/4, s(ln 7) = 7/8."""

from __future__ import annotations

import math

import pytest
import torch

from moe_jit.reference import route, selection_keys, selection_margin
from moe_jit.reference.routing import packed_key

LN3, LN7 = math.log(3), math.log(7)
NAN, INF = math.nan, math.inf
NEGATIVE_NAN = float(torch.tensor(-1, dtype=torch.int32).view(torch.float32))


def row(*logits: float) -> torch.Tensor:
    return torch.tensor([logits])


def bits(*patterns: int) -> torch.Tensor:
    return torch.tensor([patterns], dtype=torch.int64).to(torch.int32).view(torch.float32)


def ids_of(
    logits: torch.Tensor, method: int, top_k: int, bias: torch.Tensor | None = None, **kwargs
) -> list[int]:
    return route(logits, bias, method=method, top_k=top_k, **kwargs)[0][0].tolist()


def weights_of(
    logits: torch.Tensor, method: int, top_k: int, bias: torch.Tensor | None = None, **kwargs
) -> list[float]:
    return route(logits, bias, method=method, top_k=top_k, round_weights=False, **kwargs)[1][0].tolist()


class TestWeights:
    def test_default_keeps_the_full_softmax(self):
        # exp = 1, 2, 4, 1; sum 8
        logits = row(0.0, math.log(2), math.log(4), 0.0)
        assert ids_of(logits, 0, 2) == [2, 1]
        assert weights_of(logits, 0, 2) == pytest.approx([1 / 2, 1 / 4], rel=1e-6)

    @pytest.mark.parametrize("method", [1, 4])
    @pytest.mark.parametrize("norm", [True, False])
    def test_renormalize_is_a_softmax_over_the_selected(self, method, norm):
        # exp of the two best = 4, 2
        logits = row(0.0, math.log(2), math.log(4), 0.0)
        assert ids_of(logits, method, 2, norm_topk_prob=norm) == [2, 1]
        assert weights_of(logits, method, 2, norm_topk_prob=norm) == pytest.approx([2 / 3, 1 / 3], rel=1e-6)

    @pytest.mark.parametrize(("factor", "scale"), [(None, 1.0), (2.5, 2.5), (0.0, 0.0), (1.0, 1.0)])
    @pytest.mark.parametrize("method", [2, 7])
    def test_scaled_sum_uses_the_bias_for_selection_only(self, method, factor, scale):
        # s = 3/4, 1/2, 1/4, 1/2; keys 0.75, 0.5, 1.05, 0.9; chosen 2 then 3; weights 1/4, 1/2 over 3/4
        logits, bias = row(LN3, 0.0, -LN3, 0.0), torch.tensor([0.0, 0.0, 0.8, 0.4])
        kwargs = {"bias": bias, "routed_scaling_factor": factor}
        assert ids_of(logits, method, 2, **kwargs) == [2, 3]
        assert weights_of(logits, method, 2, **kwargs) == pytest.approx([scale / 3, scale * 2 / 3], rel=1e-6)

    def test_llama4_takes_the_sigmoid_of_the_largest(self):
        assert ids_of(row(-LN3, LN3, 0.0), 3, 1) == [1]
        assert weights_of(row(-LN3, LN3, 0.0), 3, 1) == pytest.approx([3 / 4], rel=1e-6)

    def test_top_k_returns_the_logit(self):
        assert ids_of(row(-1.0, -0.5, -3.0), 5, 2) == [1, 0]
        assert weights_of(row(-1.0, -0.5, -3.0), 5, 2) == [-0.5, -1.0]

    @pytest.mark.parametrize(("norm", "expected"), [(True, [3 / 5, 2 / 5]), (False, [3 / 4, 1 / 2])])
    def test_sigmoid_renorm_honours_norm_topk_prob(self, norm, expected):
        assert ids_of(row(-LN3, 0.0, LN3), 6, 2) == [2, 1]
        assert weights_of(row(-LN3, 0.0, LN3), 6, 2, norm_topk_prob=norm) == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("method", [8, 10])
    @pytest.mark.parametrize("norm", [True, False])
    def test_sigmoid_is_never_normalised(self, method, norm):
        weights = weights_of(row(-LN3, 0.0, LN7), method, 3, norm_topk_prob=norm)
        assert weights == pytest.approx([7 / 8, 1 / 2, 1 / 4], rel=1e-6)

    def test_bias_and_factor_are_ignored_by_the_other_methods(self):
        logits, bias = row(0.3, -0.2, 0.9, 0.1), torch.tensor([9.0, -9.0, -9.0, 9.0])
        for method in (0, 1, 3, 4, 5, 6, 8, 10):
            top_k = 1 if method == 3 else 2
            plain = route(logits, None, method=method, top_k=top_k)
            other = route(logits, bias, method=method, top_k=top_k, routed_scaling_factor=3.0, n_group=2)
            assert torch.equal(plain[0], other[0])
            assert torch.equal(plain[1], other[1])

    def test_weights_are_rounded_to_bfloat16_after_the_sum(self):
        # bf16 has 8 significant bits: 2/3 = 0.10101010|1010..b -> 171 * 2^-8, 1/3 -> 171 * 2^-9
        weights = route(row(math.log(2), 0.0), None, method=1, top_k=2)[1]
        assert weights.tolist() == [[171 / 256, 171 / 512]]

    def test_unspecified_names_both_meanings(self):
        with pytest.raises(ValueError, match=r"9 = Unspecified here.*TopKSigmoid"):
            route(row(0.0, 1.0), None, method=9, top_k=1)


class TestOrder:
    def test_image_orders_every_kind_of_float(self):
        ordered = bits(
            0xFFFFFFFF, 0xFFC00000, 0xFF800000, 0xFF7FFFFF, 0xBF800000, 0x80000001, 0x80000000,
            0x00000000, 0x00000001, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0x7FFFFFFF,
        )  # fmt: skip
        key = packed_key(ordered)[0] >> 16
        assert key.tolist() == sorted(set(key.tolist()))
        assert key[7] == 1 << 31

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("method", [0, 1, 2, 4, 5, 6, 7, 8, 10])
    def test_ties_go_to_the_lower_index(self, method, dtype):
        logits = torch.tensor([[-1.0, 2.0, 0.5, 2.0, 0.5, 2.0, -1.0, 0.5]], dtype=dtype)
        assert ids_of(logits, method, 7) == [1, 3, 5, 2, 4, 7, 0]
        assert ids_of(torch.zeros(1, 8, dtype=dtype), method, 8) == list(range(8))

    @pytest.mark.parametrize("method", [1, 4, 5, 10])
    def test_negative_zero_is_below_positive_zero(self, method):
        assert ids_of(row(-0.0, 0.0, -0.0, 0.0), method, 4) == [1, 3, 0, 2]

    @pytest.mark.parametrize("method", [0, 2, 6, 7, 8])
    def test_zeros_tie_once_they_are_probabilities(self, method):
        assert ids_of(row(-0.0, 0.0, -0.0, 0.0), method, 4) == [0, 1, 2, 3]

    @pytest.mark.parametrize("method", [0, 1, 2, 4, 5, 6, 7, 8, 10])
    def test_negative_logits_are_not_beaten_by_padding(self, method):
        assert ids_of(row(-9.0, -7.0, -8.0, -10.0, -6.0), method, 3) == [4, 1, 2]

    @pytest.mark.parametrize("method", [8, 6, 2, 7])
    def test_saturated_sigmoids_tie(self, method):
        # s(40) = s(50) = s(60) = 1 in fp32 and s(-40) = s(-50) = 0
        assert ids_of(row(40.0, 50.0, -40.0, 60.0, -50.0), method, 5) == [0, 1, 3, 2, 4]

    def test_top_k_sigmoid_still_ranks_saturated_logits(self):
        assert ids_of(row(40.0, 50.0, -40.0, 60.0, -50.0), 10, 5) == [3, 1, 0, 2, 4]
        assert weights_of(row(40.0, 50.0, -40.0, 60.0, -50.0), 10, 5) == [1, 1, 1, 0, 0]

    def test_underflowed_probabilities_tie(self):
        # exp(-200) and exp(-300) are both 0 in fp32
        assert ids_of(row(-300.0, 0.0, -200.0, -1.0), 0, 4) == [1, 3, 0, 2]


class TestSpecialLogits:
    @pytest.mark.parametrize(
        ("method", "weight"),
        [(0, NAN), (1, NAN), (4, NAN), (2, 0.0), (7, 0.0), (5, -INF), (6, 0.0), (8, 0.0), (10, 0.0)],
    )
    def test_row_of_minus_infinity(self, method, weight):
        ids, weights = route(torch.full((1, 6), -INF), None, method=method, top_k=3)
        assert ids.tolist() == [[0, 1, 2]]
        torch.testing.assert_close(weights, torch.full((1, 3), weight).double(), equal_nan=True)

    @pytest.mark.parametrize("method", [1, 2, 4, 5, 6, 7, 8, 10])
    def test_a_masked_expert_is_chosen_last(self, method):
        assert ids_of(row(-INF, 1.0, -INF, 2.0), method, 3) == [3, 1, 0]

    @pytest.mark.parametrize("method", [1, 2, 4, 5, 6, 7, 8, 10])
    def test_a_nan_is_chosen_first_and_spoils_normalised_weights(self, method):
        logits = row(1.0, 5.0, NAN, INF if method not in (1, 4) else 7.0)
        ids, weights = route(logits, None, method=method, top_k=2)
        assert ids.tolist() == [[2, 3]]
        assert weights[0, 0].isnan()
        assert bool(weights[0, 1].isnan()) == (method in (1, 2, 4, 6, 7))

    @pytest.mark.parametrize("method", [1, 2, 6])
    def test_a_nan_that_is_not_selected_is_harmless(self, method):
        # only a raw negative NaN can lose; a sigmoid of it is a positive NaN
        logits = row(1.0, 5.0, NEGATIVE_NAN, 0.0)
        if method == 1:
            assert ids_of(logits, method, 2) == [1, 0]
            assert weights_of(logits, method, 2) == pytest.approx(
                [1 / (1 + math.exp(-4)), 1 / (1 + math.exp(4))]
            )
        else:
            assert ids_of(logits, method, 2) == [2, 1]

    def test_negative_nan_is_below_minus_infinity(self):
        assert ids_of(row(NEGATIVE_NAN, -INF, -1.0), 1, 3) == [2, 1, 0]

    def test_default_spreads_nan_over_the_row(self):
        ids, weights = route(row(1.0, NAN, 3.0, 2.0), None, method=0, top_k=2)
        assert ids.tolist() == [[0, 1]]
        assert weights.isnan().all()

    def test_other_rows_are_unaffected(self):
        logits = torch.tensor([[1.0, NAN, 3.0], [1.0, 2.0, 3.0], [-INF, -INF, -INF]])
        for method in (0, 1, 2, 4, 5, 6, 7, 8, 10):
            alone = route(logits[1:2], None, method=method, top_k=2)
            together = route(logits, None, method=method, top_k=2)
            assert torch.equal(together[0][1], alone[0][0])
            assert torch.equal(together[1][1], alone[1][0])


class TestLlama4:
    def test_nan_never_wins(self):
        logits = torch.full((1, 70), -2.0)
        logits[0, [0, 32, 64]] = NAN
        logits[0, 33] = -1.0
        assert ids_of(logits, 3, 1) == [33]

    @pytest.mark.parametrize("value", [NAN, -INF, NEGATIVE_NAN])
    @pytest.mark.parametrize("num_experts", [4, 32, 128])
    def test_a_row_without_a_winner_gives_expert_0_with_weight_0(self, value, num_experts):
        ids, weights = route(torch.full((1, num_experts), value), None, method=3, top_k=1)
        assert ids.tolist() == [[0]]
        assert weights.tolist() == [[0.0]]

    def test_ties_within_and_across_lanes_go_to_the_lower_index(self):
        logits = torch.zeros(1, 128)
        logits[0, [37, 69, 5 + 96]] = 1.0
        assert ids_of(logits, 3, 1) == [37]
        logits[0, 36 + 32] = 1.0
        assert ids_of(logits, 3, 1) == [37]
        logits[0, 36] = 1.0
        assert ids_of(logits, 3, 1) == [36]

    def test_signed_zeros_tie_inside_a_lane_only(self):
        # lane 0 scans experts 0 and 32: 0.0 > -0.0 is false; across lanes the packed key prefers +0.0
        logits = torch.full((1, 64), -1.0)
        logits[0, 0], logits[0, 32] = -0.0, 0.0
        assert ids_of(logits, 3, 1) == [0]
        logits[0, 33] = 0.0
        assert ids_of(logits, 3, 1) == [33]


class TestGroups:
    def test_two_best_keys_score_a_group(self):
        # keys = s: group 0 .75 + .25 = 1, group 1 .5 + .5625 = 1.0625, group 2 .5 + .5 = 1, group 3 .25
        s = [0.75, 0.25, 0.5, 0.5625, 0.5, 0.5, 0.125, 0.125]
        logits = torch.tensor([[math.log(p / (1 - p)) for p in s]])
        assert ids_of(logits, 2, 2, n_group=4, topk_group=1) == [3, 2]
        assert ids_of(logits, 2, 4, n_group=4, topk_group=4) == [0, 3, 2, 4]
        assert ids_of(logits, 2, 4, n_group=1, topk_group=1) == [0, 3, 2, 4]
        assert ids_of(logits, 2, 4, n_group=None, topk_group=None) == [0, 3, 2, 4]

    def test_the_best_expert_is_lost_with_its_group(self):
        # group scores: {.875, .125} = 1.0 against {.75, .75} = 1.5
        logits = row(LN7, -LN7, LN3, LN3)
        assert ids_of(logits, 2, 1, n_group=2, topk_group=1) == [2]
        assert weights_of(logits, 2, 2, n_group=2, topk_group=1) == pytest.approx([0.5, 0.5])

    def test_only_the_two_best_of_a_large_group_count(self):
        # sums of all: 2.0 against 1.75; of the two best: 1.0 against 1.5
        logits = row(0.0, 0.0, 0.0, 0.0, LN3, LN3, -LN7, -LN7)
        assert ids_of(logits, 2, 4, n_group=2, topk_group=1) == [4, 5, 6, 7]

    def test_groups_tie_to_the_lower_index(self):
        logits = torch.zeros(1, 16)
        assert ids_of(logits, 2, 4, n_group=4, topk_group=2) == [0, 1, 2, 3]
        logits[0, 12:] = 1.0
        assert ids_of(logits, 2, 8, n_group=4, topk_group=2) == [12, 13, 14, 15, 0, 1, 2, 3]

    def test_bias_moves_groups_but_not_weights(self):
        bias = torch.tensor([0.0, 0.0, 0.5, 0.0])
        logits = row(LN3, LN3, -LN3, 0.0)  # group scores .75 + .75 and .75 + bias[3] + .5
        assert ids_of(logits, 2, 2, bias, n_group=2, topk_group=1) == [0, 1]
        bias[3] = 0.5
        assert ids_of(logits, 2, 2, bias, n_group=2, topk_group=1) == [3, 2]
        weights = weights_of(logits, 2, 2, bias, n_group=2, topk_group=1)
        assert weights == pytest.approx([2 / 3, 1 / 3], rel=1e-6)

    def test_negative_keys_of_a_kept_group_beat_every_dropped_group(self):
        bias = torch.tensor([-2.0, -2.0, -2.0, -9.0, -9.0, -9.0])
        logits = row(0.0, LN3, -LN3, LN7, LN7, LN7)
        assert ids_of(logits, 2, 3, bias, n_group=2, topk_group=1) == [1, 0, 2]

    def test_fp32_bias_is_not_rounded_to_bfloat16(self):
        # 1 + 2^-10 is 1 in bf16, which would leave a tie
        bias = torch.tensor([1.0, 1.0, 1.0, 1 + 2.0**-10])
        assert ids_of(torch.zeros(1, 4), 2, 1, bias, n_group=2, topk_group=1) == [3]
        assert ids_of(torch.zeros(1, 4), 2, 1, bias) == [3]
        assert ids_of(torch.zeros(1, 4), 2, 1, bias.bfloat16(), n_group=2, topk_group=1) == [0]

    def test_row_of_minus_infinity(self):
        ids, weights = route(torch.full((1, 8), -INF), None, method=2, top_k=3, n_group=4, topk_group=2)
        assert ids.tolist() == [[0, 1, 2]]
        assert weights.tolist() == [[0.0, 0.0, 0.0]]

    def test_a_group_with_nan_is_kept_first(self):
        assert ids_of(row(LN7, LN7, 0.0, 0.0, NAN, -LN3), 2, 2, n_group=3, topk_group=1) == [4, 5]

    def test_topk_group_is_required(self):
        with pytest.raises(ValueError, match="topk_group"):
            route(torch.zeros(1, 8), None, method=2, top_k=1, n_group=2)


class TestMargin:
    def test_raw_keys_need_no_margin(self):
        logits = row(1.0, 1.0 + 2.0**-23, 1.0)
        for method in (1, 3, 4, 5, 10):
            assert selection_margin(logits, None, method=method, top_k=1).item() == INF

    def test_gap_between_deciding_keys(self):
        logits = row(LN7, LN3, 0.0, -LN7)  # keys 7/8, 3/4, 1/2, 1/8
        assert selection_margin(logits, None, method=8, top_k=1).item() == pytest.approx(1 / 8, rel=1e-5)
        assert selection_margin(logits, None, method=8, top_k=3).item() == pytest.approx(1 / 8, rel=1e-5)
        assert selection_margin(row(LN7, -LN7), None, method=8, top_k=1).item() == pytest.approx(3 / 4)

    def test_equal_inputs_are_no_near_tie_but_different_ones_are(self):
        assert selection_margin(row(1.0, 1.0, -1.0), None, method=8, top_k=1).item() == INF
        near = row(1.0, 1.0 + 2.0**-23, -1.0)
        assert selection_margin(near, None, method=8, top_k=1).item() < 1e-6
        bias = torch.tensor([0.25, 0.0])
        assert selection_margin(row(0.0, LN3), bias, method=2, top_k=1).item() < 1e-6

    def test_group_scores_count(self):
        logits = row(LN3, LN3, 0.0, LN3)  # 1.5 against 1.25
        margin = selection_margin(logits, None, method=2, top_k=2, n_group=2, topk_group=1)
        assert margin.item() == pytest.approx(0.25, rel=1e-5)


def test_keys_are_fp32():
    logits = torch.randn(5, 33)
    for method in (0, 1, 2, 6, 8):
        assert selection_keys(logits.bfloat16(), torch.zeros(33), method).dtype == torch.float32
    assert torch.equal(selection_keys(logits, None, 1), logits)
