"""Values of the expert computation through the public functions, against the float64 reference.

The bounds are those of moe_jit.reference.agreement. Inputs are fresh in every run; a failure names the
seed, and MOE_JIT_TEST_SEED repeats it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support.calls import accumulation, call, call_routed, call_unfinalised, reference_for
from support.setup import DEVICES, Setup
from support.tiles import forced_tile

from moe_jit import layouts
from moe_jit.reference import compare_output, compare_rows, fp8_moe, route

LAYOUTS = ["shuffled", "w3_w1", "w1_w3"]
ACTIVATIONS = [0, 3, 4, 6, 7]

pytestmark = pytest.mark.parametrize("device", DEVICES)


@pytest.fixture
def setup(device: str) -> Setup:
    return Setup(device)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("activation", [*ACTIVATIONS, 9])
def test_activations_and_layouts(setup, activation, layout):
    setup.check(setup.layer(activation=activation, weight_layout=layout), setup.routing(13), note=layout)


@pytest.mark.parametrize("num_tokens", [0, 1, 2, 3, 7, 8, 9, 16, 17, 33, 64, 65, 100, 257, 300, 1000])
def test_token_counts(setup, num_tokens):
    for layout in ("shuffled", "w1_w3"):
        layer = setup.layer(hidden_size=128, intermediate_size=64, weight_layout=layout)
        setup.check(layer, setup.routing(num_tokens))


SHUFFLED_SIZES = [(32, 16), (2080, 48), (96, 272), (288, 1040), (1024, 144)]
PLAIN_SIZES = [(16, 16), (48, 1008), (2064, 144), (112, 400)]


@pytest.mark.parametrize(("hidden_size", "intermediate_size"), SHUFFLED_SIZES)
def test_odd_sizes_shuffled(setup, hidden_size, intermediate_size):
    layer = setup.layer(4, hidden_size, intermediate_size)
    setup.check(layer, setup.routing(9, 4))


@pytest.mark.parametrize(("hidden_size", "intermediate_size"), [(32, 32), (160, 96), (2080, 160), (96, 1056)])
def test_odd_sizes_shuffled_without_gate(setup, hidden_size, intermediate_size):
    setup.check(setup.layer(4, hidden_size, intermediate_size, activation=6), setup.routing(9, 4))


@pytest.mark.parametrize("layout", ["w3_w1", "w1_w3"])
@pytest.mark.parametrize(("hidden_size", "intermediate_size"), PLAIN_SIZES)
def test_odd_sizes_plain(setup, hidden_size, intermediate_size, layout):
    for activation in (3, 6):
        layer = setup.layer(4, hidden_size, intermediate_size, activation=activation, weight_layout=layout)
        setup.check(layer, setup.routing(9, 4))


@pytest.mark.parametrize("tile", [8, 16])
@pytest.mark.parametrize(
    ("num_experts", "top_k", "hidden_size", "intermediate_size"),
    [(8, 2, 160, 4096), (16, 1, 96, 8208), (4, 2, 32, 14336), (64, 8, 1056, 4352)],
)
def test_few_tiles_with_long_k(setup, num_experts, top_k, hidden_size, intermediate_size, tile):
    """On a GPU, K of the second product is cut into parts; on a CPU there is no such case."""
    if setup.device == "cpu":
        hidden_size, intermediate_size = 96, 144
    layer = setup.layer(num_experts, hidden_size, intermediate_size, weight_layout="w3_w1")
    with forced_tile(tile):
        for num_tokens in (1, 2, 5, 8, 13):
            routing = setup.routing(num_tokens, num_experts, top_k=top_k)
            setup.check(layer, routing, scale_input=num_tokens % 2 == 0)


def test_few_tiles_of_a_part_of_the_experts(setup):
    layer = setup.layer(4, 160, 4096 if setup.device == "cuda" else 144)
    with forced_tile(8):
        for num_tokens in (1, 3, 8):
            for offset in (0, 12):
                setup.check(layer, setup.routing(num_tokens, 16, top_k=3), offset=offset)


@pytest.mark.parametrize("num_tokens", [9, 300, 1000])
def test_large_token_tiles_with_odd_sizes(setup, num_tokens):
    layer = setup.layer(2, 144, 208, weight_layout="w3_w1")
    setup.check(layer, setup.routing(num_tokens, 2, top_k=1))


class TestLoad:
    """The grids are sized without knowing where the tokens go."""

    @pytest.mark.parametrize("num_tokens", [5, 40, 300])
    @pytest.mark.parametrize("favourite", [0, 9, 15])
    def test_all_tokens_to_one_expert(self, setup, favourite, num_tokens):
        layer = setup.layer(16, 128, 64)
        routing = setup.routing(num_tokens, 16, top_k=1)
        routing.logits[:, favourite] = 30
        setup.check(layer, routing)

    def test_one_expert_shared_by_all(self, setup):
        layer, routing = setup.layer(16, 128, 64), setup.routing(200, 16, top_k=3)
        routing.logits[:, 7] = 30
        setup.check(layer, routing)

    def test_empty_experts(self, setup):
        layer, routing = setup.layer(32, 128, 64), setup.routing(24, 32, top_k=2)
        routing.logits[:, ::3] -= 100
        routing.logits[:, 20:] -= 100
        setup.check(layer, routing)

    def test_every_expert_of_every_token(self, setup):
        setup.check(setup.layer(8, 64, 32), setup.routing(50, 8, top_k=8))

    def test_many_experts_few_tokens(self, setup):
        setup.check(setup.layer(600, 32, 16), setup.routing(3, 600, top_k=32))


class TestExpertParallel:
    @pytest.mark.parametrize("scale_input", [False, True])
    @pytest.mark.parametrize("num_tokens", [1, 29])
    def test_shards_sum_to_the_whole(self, setup, num_tokens, scale_input):
        layer, routing = setup.layer(12, 128, 96), setup.routing(num_tokens, 12, top_k=4)
        hidden = setup.hidden(num_tokens, layer)
        whole = reference_for(layer, hidden, routing, scale_input=scale_input)
        total = torch.zeros_like(whole.output)
        rows = torch.full((num_tokens * 4, 128), math.nan, dtype=torch.bfloat16, device=setup.device)
        for offset, count in ((0, 5), (5, 1), (6, 6)):
            shard = layer.shard(offset, count)
            total += setup.check(shard, routing, hidden, offset=offset, scale_input=scale_input)
            options = {"offset": offset, "use_routing_scales_on_input": scale_input}
            parts = call_unfinalised(shard, hidden, routing, **options)
            mine = parts.pair_to_row >= 0
            assert rows[mine].isnan().all(), "two shards computed the same pair"
            rows[mine] = parts.rows[parts.pair_to_row[mine].long()]
        index = torch.arange(rows.shape[0], device=setup.device)
        compare_rows(rows, index, whole).check(f"seed {setup.seed}")
        compare_output(total, whole).check(f"seed {setup.seed}")

    def test_no_local_token(self, setup):
        layer, routing = setup.layer(8, 64, 32), setup.routing(20)
        routing.logits[:, 5:7] -= 100
        output = setup.check(layer.shard(5, 2), routing, offset=5)
        assert not output.any()

    def test_weights_beyond_the_local_experts_are_not_read(self, setup):
        layer, routing = setup.layer(8, 64, 32), setup.routing(20)
        wider = replace(layer.shard(2, 3), gemm1=layer.gemm1[2:].clone(), gemm2=layer.gemm2[2:].clone())
        wider.gemm1[3:].view(torch.uint8)[:] = 0x7F
        wider.gemm2[3:].view(torch.uint8)[:] = 0x7F
        hidden = setup.hidden(20, layer)
        output = setup.check(wider, routing, hidden, offset=2)
        assert torch.equal(output, call(layer.shard(2, 3), hidden, routing, offset=2))


@pytest.mark.parametrize(("method", "top_k"), [(3, 1), (1, 2), (2, 3), (5, 2), (8, 1)])
@pytest.mark.parametrize("activation", [3, 6])
def test_routing_scales_on_input(setup, activation, method, top_k):
    layer = setup.layer(activation=activation)
    for num_tokens in (1, 20):
        setup.check(layer, setup.routing(num_tokens, method=method, top_k=top_k), scale_input=True)


def test_scale_on_input_and_output_differ(setup):
    """They agree for Identity only, up to roundings: the flag cannot be ignored."""
    layer, routing = setup.layer(), setup.routing(8)
    hidden = setup.hidden(8, layer)
    on_input = setup.check(layer, routing, hidden, scale_input=True)
    on_output = setup.check(layer, routing, hidden)
    assert (on_input - on_output).double().norm() > 0.1 * on_output.double().norm()


class TestRouted:
    def check(self, setup, layer, ids, weights, *, num_experts, offset=0, scale_input=False):
        hidden = setup.hidden(ids.shape[0], layer)
        options = {"num_experts": num_experts, "offset": offset, "use_routing_scales_on_input": scale_input}
        reference = fp8_moe(
            hidden,
            ids=ids,
            weights=weights.bfloat16(),
            local_expert_offset=offset,
            use_routing_scales_on_input=scale_input,
            accumulation=accumulation(ids, num_experts, layer),
            **layer.experts(),
        )
        rows, returned, index = call_routed(layer, hidden, ids, weights, do_finalize=False, **options)
        compare_rows(rows, index, reference).check(f"seed {setup.seed}")
        torch.testing.assert_close(returned, weights.bfloat16(), rtol=0, atol=0, equal_nan=True)
        output = call_routed(layer, hidden, ids, weights, **options)
        compare_output(output, reference).check(f"seed {setup.seed}")

    @pytest.mark.parametrize("activation", [3, 6])
    @pytest.mark.parametrize("scale_input", [False, True])
    def test_given_experts_and_weights(self, setup, activation, scale_input):
        ids = torch.stack([torch.randperm(8)[:3] for _ in range(20)]).to(setup.device)
        weights = torch.randn(20, 3, generator=setup.gen, device=setup.device)
        self.check(
            setup, setup.layer(activation=activation), ids, weights, num_experts=8, scale_input=scale_input
        )

    def test_ignored_ids(self, setup):
        ids = torch.tensor(
            [[1, 1, 2], [-1, 3, 3], [8, 7, 0], [-5, -5, 99], [4, 5, 4], [6, 6, 6]], device=setup.device
        )
        weights = torch.randn(6, 3, generator=setup.gen, device=setup.device)
        weights[3, 0] = math.nan
        self.check(setup, setup.layer(), ids, weights, num_experts=8)
        self.check(setup, setup.layer(4), ids, weights, num_experts=8, offset=3)

    @pytest.mark.parametrize("num_tokens", [0, 1, 300])
    def test_same_result_as_from_logits(self, setup, num_tokens):
        layer, routing = setup.layer(), setup.routing(num_tokens)
        hidden = setup.hidden(num_tokens, layer)
        parts = call_unfinalised(layer, hidden, routing)
        routed = call_routed(layer, hidden, parts.ids, parts.weights, num_experts=8)
        assert torch.equal(routed, call(layer, hidden, routing))


class TestSpecialValues:
    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_nan_input_spoils_its_token_only(self, setup, activation):
        layer, routing = setup.layer(activation=activation), setup.routing(12)
        hidden = setup.hidden(12, layer)
        hidden.view(torch.uint8)[5, 7] = 0x7F
        output = setup.check(layer, routing, hidden)
        assert output[5].isnan().all()
        assert output[:5].isfinite().all()
        assert output[6:].isfinite().all()

    def test_nan_scale_spoils_its_expert_only(self, setup):
        for name in ("sc", "sg", "s2"):
            layer, routing = setup.layer(), setup.routing(12)
            getattr(layer, name)[3] = math.nan
            setup.check(layer, routing, note=name)

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_saturation(self, setup, activation):
        layer = setup.layer(activation=activation)
        layer.sc.mul_(20)
        setup.check(layer, setup.routing(30))
        # Much more would turn the sign of a sum that rounds to either side of zero into a step of 896.
        layer.sc.mul_(10)
        setup.check(layer, setup.routing(30))

    @pytest.mark.parametrize("activation", ACTIVATIONS)
    def test_subnormal_intermediates(self, setup, activation):
        layer = setup.layer(activation=activation)
        layer.sc.mul_(1e-4)
        layer.s2.mul_(1e4)
        setup.check(layer, setup.routing(30))

    def test_negative_and_zero_scales(self, setup):
        layer = setup.layer()
        layer.sc[::2] *= -1
        layer.sg[1::2] *= -1
        layer.s2[::3] *= -1
        layer.sc[4], layer.s2[5] = 0.0, 0.0
        setup.check(layer, setup.routing(30))

    def test_zero_input(self, setup):
        layer, routing = setup.layer(), setup.routing(4)
        hidden = torch.zeros(4, layer.hidden_size, device=setup.device).to(torch.float8_e4m3fn)
        assert not setup.check(layer, routing, hidden).any()

    @pytest.mark.parametrize("largest", [448.0, -448.0])
    def test_largest_weights(self, setup, largest):
        layer = setup.layer()
        layer.gemm1[2] = torch.full_like(layer.gemm1[2], largest)
        layer.gemm2[3] = torch.full_like(layer.gemm2[3], largest)
        hidden = setup.hidden(30, layer)
        hidden[4] = torch.full_like(hidden[4], 448.0)
        setup.check(layer, setup.routing(30), hidden)


class TestOutputArgument:
    def test_given_and_own_output_are_equal(self, setup):
        layer, routing = setup.layer(), setup.routing(20)
        hidden = setup.hidden(20, layer)
        given = torch.full((20, layer.hidden_size), math.nan, dtype=torch.bfloat16, device=setup.device)
        assert torch.equal(call(layer, hidden, routing, output=given), call(layer, hidden, routing))

    def test_ignored_without_finalize(self, setup):
        layer, routing = setup.layer(), setup.routing(20)
        hidden = setup.hidden(20, layer)
        given = torch.full((20, layer.hidden_size), 3.0, dtype=torch.bfloat16, device=setup.device)
        rows, _, _ = call(layer, hidden, routing, output=given, do_finalize=False)
        assert (given == 3).all()
        assert rows.shape[1] == layer.hidden_size

    def test_no_tokens(self, setup):
        layer, routing = setup.layer(), setup.routing(0)
        hidden = setup.hidden(0, layer)
        assert call(layer, hidden, routing).shape == (0, layer.hidden_size)
        rows, weights, index = call(layer, hidden, routing, do_finalize=False)
        assert (rows.shape, weights.shape, index.shape) == ((0, layer.hidden_size), (0, 2), (0,))

    def test_pdl_has_no_effect(self, setup):
        layer, routing = setup.layer(), setup.routing(20)
        hidden = setup.hidden(20, layer)
        results = [call(layer, hidden, routing, enable_pdl=pdl) for pdl in (None, True, False)]
        assert torch.equal(results[0], results[1])
        assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("activation", [3, 6])
def test_converted_layouts_are_equal_bit_for_bit(setup, activation):
    gated = activation == 3
    plain = setup.layer(activation=activation, weight_layout="w3_w1")
    swapped = layouts.swap_halves(plain.gemm1) if gated else plain.gemm1
    others = [
        replace(plain, gemm1=swapped, weight_layout="w1_w3"),
        replace(
            plain,
            gemm1=layouts.shuffle_gemm1(plain.gemm1, gated),
            gemm2=layouts.shuffle_gemm2(plain.gemm2),
            weight_layout="shuffled",
        ),
        replace(
            plain,
            gemm1=layouts.shuffle_gemm1(swapped, gated, source="w1_w3"),
            gemm2=layouts.shuffle_gemm2(plain.gemm2),
            weight_layout="shuffled",
        ),
    ]
    routing = setup.routing(20)
    hidden = setup.hidden(20, plain)
    expected = setup.check(plain, routing, hidden)
    for other in others:
        assert torch.equal(call(other, hidden, routing), expected), f"seed {setup.seed} {other.weight_layout}"


def test_contents_may_change_between_calls(setup):
    """Only metadata may be remembered; values are read by each call."""
    layer, routing = setup.layer(), setup.routing(20)
    hidden = setup.hidden(20, layer)
    setup.check(layer, routing, hidden)
    fresh = setup.layer()
    for name in ("gemm1", "sc", "sg", "gemm2", "s2"):
        getattr(layer, name).copy_(getattr(fresh, name))
    routing.logits.copy_(setup.routing(20).logits)
    hidden.copy_(setup.hidden(20, layer))
    setup.check(layer, routing, hidden)
    setup.check(fresh, routing, hidden)


@pytest.mark.parametrize("round_", range(12))
def test_random_configurations(setup, round_):
    """Everything at once: sizes, layout, method, shard and flags drawn anew."""
    pick = setup.random
    on_cpu = setup.device == "cpu"
    activation = pick.choice(ACTIVATIONS) if on_cpu else pick.choice([3, 6])
    layout = pick.choice(LAYOUTS)
    step = 32 if layout == "shuffled" else 16
    hidden_size = step * pick.randint(1, 12)
    intermediate_size = (32 if layout == "shuffled" and activation in (0, 6, 7) else 16) * pick.randint(1, 12)
    num_experts = pick.randint(2, 30)
    method = pick.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 10] if on_cpu else [1, 2, 3])
    top_k = 1 if method == 3 else pick.randint(1, min(num_experts, 8))
    offset = pick.randint(0, num_experts - 1)
    count = pick.randint(1, num_experts - offset)
    layer = setup.layer(count, hidden_size, intermediate_size, activation=activation, weight_layout=layout)
    routing = setup.routing(
        pick.randint(1, 70),
        num_experts,
        method=method,
        top_k=top_k,
        dtype=pick.choice([torch.float32, torch.bfloat16]),
        bias_dtype=pick.choice([None, torch.float32, torch.bfloat16]),
        factor=pick.choice([None, 2.5]),
        norm_topk_prob=pick.choice([True, False]),
    )
    note = f"{layout} {routing.settings()} offset {offset}"
    setup.check(layer, routing, offset=offset, scale_input=pick.choice([True, False]), note=note)


@pytest.mark.parametrize("num_tokens", [3, 64, 300])
def test_repeats_are_equal_bit_for_bit(setup, num_tokens):
    layer, routing = setup.layer(hidden_size=128, intermediate_size=64), setup.routing(num_tokens, top_k=4)
    hidden = setup.hidden(num_tokens, layer)
    first = call(layer, hidden, routing)
    rows, weights, index = call(layer, hidden, routing, do_finalize=False)
    for _ in range(100):
        assert torch.equal(call(layer, hidden, routing), first), f"seed {setup.seed}"
    for _ in range(10):
        again = call(layer, hidden, routing, do_finalize=False)
        assert torch.equal(again[1], weights)
        assert torch.equal(again[2], index)
        assert torch.equal(again[0][index.long()], rows[index.long()])


def test_reference_helpers_notice_a_wrong_result(setup):
    """The comparison used throughout this file can fail."""
    layer, routing = setup.layer(), setup.routing(20)
    hidden = setup.hidden(20, layer)
    ids, weights = route(routing.logits, None, **routing.settings())
    output = call(layer, hidden, routing)
    wrong = replace(layer, s2=layer.s2 * 1.02)
    reference = fp8_moe(
        hidden, ids=ids, weights=weights, accumulation=accumulation(ids, 8, layer), **wrong.experts()
    )
    assert not compare_output(output, reference).ok
