"""Hand-computed results of the expert computation, and its roundings."""

from __future__ import annotations

import math

import pytest
import torch
from support.problems import generator, random_e4m3, random_layer

from moe_jit import layouts
from moe_jit.reference import fp8_moe
from moe_jit.reference.rounding import bf16_ulp, e4m3_step, round_bf16, round_e4m3

SIZE = 32
E4M3 = torch.float8_e4m3fn


def tiny(activation: int, up: float, gate: float, down: float, **overrides):
    """One token 2 * unit vector 0; one expert whose linear, gate and output row 0 read column 0 only."""
    gated = activation in (3, 4)
    w1 = torch.zeros(1, 2 * SIZE if gated else SIZE, SIZE)
    w1[0, 0, 0] = up
    if gated:
        w1[0, SIZE, 0] = gate
    w2 = torch.zeros(1, SIZE, SIZE)
    w2[0, 0, 0] = down
    hidden = torch.zeros(1, SIZE)
    hidden[0, 0] = 2
    arguments = {
        "hidden": hidden.to(E4M3),
        "w1": w1.to(E4M3),
        "sc": torch.tensor([4.0]),
        "sg": torch.tensor([0.5]),
        "w2": w2.to(E4M3),
        "s2": torch.tensor([0.25]),
        "ids": torch.tensor([[0]]),
        "weights": torch.tensor([[0.5]]),
        "activation": activation,
        "weight_layout": "w3_w1",
        "intermediate_size": SIZE,
    }
    return fp8_moe(**(arguments | overrides))


@pytest.mark.parametrize(
    ("activation", "row"),
    [
        # u = 2 * 3 = 6, g = 2 * 1 = 2, z = 0.5 * g = 1 when gated, z = 0.5 * u = 3 otherwise
        (3, 18 * 1.5 * 0.25),  # 4 * 6 * 1 * 0.731059 = 17.55 -> 18 (step 2)
        (4, 20 * 1.5 * 0.25),  # 4 * 6 * 1 * 0.841345 = 20.19 -> 20
        (0, 12 * 1.5 * 0.25),  # 4 * 3 * 0.998650 = 11.98 -> 12 (step 1)
        (6, 36 * 1.5 * 0.25),  # 4 * 3^2 = 36 (step 4)
        (7, 24 * 1.5 * 0.25),  # 4 * 6 = 24, the gate scale is unused
        (9, 24 * 1.5 * 0.25),  # Identity under its newer number
    ],
)
def test_each_activation(activation, row):
    result = tiny(activation, up=3, gate=1, down=1.5)
    assert result.rows[0, 0] == row
    assert result.output[0, 0] == row / 2
    assert not result.output[0, 1:].any()
    assert result.pair_to_row.tolist() == [[0]]


@pytest.mark.parametrize(
    ("activation", "row"),
    [
        # u = -6, g = -2, z = -1 or -3
        (3, 6.5),  # 4 * -6 * -1 * 0.268941 = 6.4546 -> 6.5 (step 1/2)
        (4, 3.75),  # 4 * -6 * -1 * 0.158655 = 3.8077 -> 3.75 (step 1/4)
        (0, -0.015625),  # 4 * -3 * 0.00134990 = -0.0161988 -> -8.29 steps of 2^-9 -> -8 * 2^-9
        (6, 0.0),
        (7, -24.0),
    ],
)
def test_negative_accumulators(activation, row):
    assert tiny(activation, up=-3, gate=-1, down=1, s2=torch.tensor([1.0])).rows[0, 0] == row


def test_weight_on_the_input_scales_both_accumulators():
    # u = 3, g = 1, z = 0.5, silu = 0.311230; 4 * 3 * 0.311230 = 3.7348 -> 3.75; no weight at the end
    result = tiny(3, up=3, gate=1, down=1.5, use_routing_scales_on_input=True)
    assert result.rows[0, 0] == 3.75 * 1.5 * 0.25
    assert result.output[0, 0] == result.rows[0, 0]


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (17.0, 16.0), (19.0, 20.0), (-17.0, -16.0), (17.01, 18.0), (464.0, 448.0), (470.0, 448.0),
        (1e30, 448.0), (-1e30, -448.0), (math.inf, 448.0), (-math.inf, -448.0), (447.0, 448.0),
        (431.0, 416.0), (432.0, 448.0), (2.0**-10, 0.0), (3 * 2.0**-10, 2.0**-8), (1.01 * 2.0**-10, 2.0**-9),
        (2.0**-6 - 2.0**-10, 2.0**-6), (0.0, 0.0), (1 + 2.0**-4 + 2.0**-40, 1.125), (1 + 2.0**-4, 1.0),
    ],
)  # fmt: skip
def test_e4m3_rounds_to_nearest_even_and_saturates(value, stored):
    assert round_e4m3(torch.tensor([value], dtype=torch.float64)).item() == stored


def test_e4m3_against_torch_inside_the_range():
    every = torch.arange(256, dtype=torch.uint8).view(E4M3).double()
    every = every[every.isfinite()]
    assert torch.equal(round_e4m3(every), every)
    between = torch.cat(
        [every[None] + f * e4m3_step(every)[None] for f in torch.linspace(-1, 1, 65)]
    ).flatten()
    between = between[between.abs() <= 448]
    assert torch.equal(round_e4m3(between), between.float().to(E4M3).double())


def test_nan_stays_nan():
    assert round_e4m3(torch.tensor([math.nan], dtype=torch.float64)).isnan().all()
    result = tiny(3, up=3, gate=1, down=1.5, sc=torch.tensor([math.nan]))
    assert result.output[0].isnan().all()


def test_bf16_against_torch():
    values = torch.randn(4096, generator=generator(1, "cpu")).double() * 100
    special = torch.tensor([0.0, math.inf, -math.inf, 257.0, 259.0, 1 + 2.0**-8, 1e-41], dtype=torch.float64)
    values = torch.cat([values, special])
    assert torch.equal(round_bf16(values), values.bfloat16().double())
    assert bf16_ulp(torch.tensor([1.0, 1.99, 2.0], dtype=torch.float64)).tolist() == [2**-7, 2**-7, 2**-6]


def test_rows_are_rounded_to_bf16_before_weighting():
    # m = 24; 24 * 11 = 264, S2 = 257 / 264 gives 257, a tie in bf16 -> 256; 0.5 * 256
    result = tiny(7, up=3, gate=0, down=11, s2=torch.tensor([257 / 264], dtype=torch.float64))
    assert result.rows[0, 0] == 256
    assert result.output[0, 0] == 128


def test_intermediate_saturates():
    # 100 * 6 = 600 -> 448, times 1/448
    result = tiny(7, up=3, gate=0, down=1, sc=torch.tensor([100.0]), s2=torch.tensor([1 / 448]))
    assert result.rows[0, 0] == 1


def test_scales_belong_to_their_expert():
    gen = generator(2, "cpu")
    layer = random_layer(gen, num_experts=3, hidden_size=SIZE, intermediate_size=SIZE, weight_layout="w3_w1")
    hidden = random_e4m3(gen, 1, SIZE)
    one = torch.ones(1, 1)
    for expert in range(3):
        alone = layer.shard(expert, 1)
        together = fp8_moe(hidden, ids=torch.tensor([[expert]]), weights=one, **layer.experts())
        single = fp8_moe(hidden, ids=torch.tensor([[0]]), weights=one, **alone.experts())
        assert torch.equal(together.output, single.output)
        assert together.output.any()


class TestPairs:
    """Experts 2 and 3 of 4 are local; expert e multiplies its input by e - 1."""

    def run(self, ids, weights=None, **kwargs):
        identity = torch.eye(SIZE).expand(2, SIZE, SIZE).to(E4M3)
        hidden = torch.arange(1, 1 + len(ids))[:, None].expand(len(ids), SIZE).float().to(E4M3)
        ids = torch.tensor(ids)
        weights = torch.ones(ids.shape) if weights is None else torch.tensor(weights)
        return fp8_moe(
            hidden, identity, torch.tensor([1.0, 2.0]), torch.ones(2), identity, torch.ones(2), ids, weights,
            activation=7, weight_layout="w1_w3", intermediate_size=SIZE, local_expert_offset=2, **kwargs,
        )  # fmt: skip

    def test_rows_are_sorted_by_expert_token_rank(self):
        result = self.run([[3, 2], [0, 3], [2, 1]])
        assert result.pair_to_row.tolist() == [[2, 0], [-1, 3], [1, -1]]
        assert result.rows[:, 0].tolist() == [1, 3, 2, 4]
        assert result.row_expert.tolist() == [0, 0, 1, 1]
        assert result.output[:, 0].tolist() == [1 * 2 + 1, 2 * 2, 3]

    def test_weights_multiply_rows_of_local_experts_only(self):
        result = self.run([[3, 2], [0, 1]], [[0.5, 0.25], [math.nan, 1.0]])
        assert result.output[:, 0].tolist() == [1.25, 0.0]

    def test_repeated_and_foreign_ids_have_no_row(self):
        result = self.run([[3, 3], [-1, 2], [77, -1]])
        assert result.pair_to_row.tolist() == [[1, -1], [-1, 0], [-1, -1]]
        assert result.output[:, 0].tolist() == [2, 2, 0]

    def test_count_hides_experts(self):
        result = self.run([[3, 2]], local_num_experts=1)
        assert result.pair_to_row.tolist() == [[-1, 0]]
        assert self.run([[3, 2]], local_num_experts=0).pair_to_row.tolist() == [[-1, -1]]

    def test_no_tokens(self):
        none = fp8_moe(
            torch.empty(0, SIZE).to(E4M3), torch.empty(2, SIZE, SIZE).to(E4M3), torch.ones(2), torch.ones(2),
            torch.empty(2, SIZE, SIZE).to(E4M3), torch.ones(2), torch.empty(0, 2), torch.empty(0, 2),
            activation=7, weight_layout="shuffled", intermediate_size=SIZE,
        )  # fmt: skip
        assert none.output.shape == (0, SIZE)
        assert none.rows.shape == (0, SIZE)


@pytest.mark.parametrize("activation", [0, 3, 4, 6, 7])
def test_layouts_describe_the_same_layer(activation):
    gen = generator(3, "cpu")
    gated = activation in (3, 4)
    layer = random_layer(
        gen, num_experts=2, hidden_size=64, intermediate_size=32, activation=activation, weight_layout="w3_w1"
    )
    hidden, ids, weights = random_e4m3(gen, 3, 64), torch.tensor([[0, 1], [1, 0], [1, 0]]), torch.ones(3, 2)
    plain = fp8_moe(hidden, ids=ids, weights=weights, **layer.experts())
    swapped = layouts.swap_halves(layer.gemm1) if gated else layer.gemm1
    shuffled = {
        "w1": layouts.shuffle_gemm1(layer.gemm1, gated=gated),
        "w2": layouts.shuffle_gemm2(layer.gemm2),
        "weight_layout": "shuffled",
    }
    for other in ({"w1": swapped, "weight_layout": "w1_w3"}, shuffled):
        result = fp8_moe(hidden, ids=ids, weights=weights, **(layer.experts() | other))
        assert torch.equal(result.output, plain.output)
        assert plain.output.abs().min(dim=1).values.max() > 0


@pytest.mark.parametrize("activation", [0, 3, 4, 6, 7])
def test_scale_algebra_reproduces_the_unquantised_layer(activation):
    """Quantise a real layer by amax; only quantisation noise of e4m3 (about 4 %) may remain."""
    gen = generator(4, "cpu")
    hidden_size, intermediate_size = 256, 128
    gated = activation in (3, 4)
    x = torch.randn(6, hidden_size, generator=gen)
    w1 = torch.randn(intermediate_size * (2 if gated else 1), hidden_size, generator=gen) / 16
    w2 = torch.randn(hidden_size, intermediate_size, generator=gen) / 11
    u, g = (x @ w1.T).chunk(2, dim=1) if gated else (x @ w1.T, None)
    function = {
        0: lambda: torch.nn.functional.gelu(u),
        3: lambda: u * torch.nn.functional.silu(g),
        4: lambda: u * torch.nn.functional.gelu(g),
        6: lambda: torch.relu(u) ** 2,
        7: lambda: u,
    }
    h = function[activation]()
    expected = h @ w2.T

    q_x, q_1, q_2, q_h = (448 / v.abs().max() for v in (x, w1, w2, h))
    dequantise = 1 / (q_x * q_1)
    sc = q_h if activation in (0, 6) else q_h * dequantise
    result = fp8_moe(
        (x * q_x).to(E4M3), (w1 * q_1).to(E4M3)[None], sc[None], dequantise[None], (w2 * q_2).to(E4M3)[None],
        1 / (q_h * q_2)[None], torch.zeros(6, 1), torch.ones(6, 1),
        activation=activation, weight_layout="w3_w1", intermediate_size=intermediate_size,
    )  # fmt: skip
    assert (result.output - expected).norm() / expected.norm() < 0.08
