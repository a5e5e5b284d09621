"""Routing through the public function against the reference: exact experts, weights within one bf16 ulp.

The experts are tiny here; what they compute is the subject of test_fp8_moe_values.py. Logits are fresh in
every run; a failure names the seed, and MOE_JIT_TEST_SEED repeats it.
"""

from __future__ import annotations

import math
import os

import pytest
import torch
from support.calls import call, call_unfinalised, check_finalised, check_routing, reference_for
from support.problems import Layer, Routing, fresh_seed, generator, random_e4m3, random_layer, random_routing
from support.setup import DEVICES

from moe_jit.reference import compare_output, compare_rows, route

HIDDEN, INTERMEDIATE = 32, 16
METHODS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]
DTYPES = [torch.float32, torch.bfloat16]
TOKENS = [0, 1, 7, 64, 1000]
TOP_K = {8: 2, 128: 8, 256: 8, 512: 22}
GROUPS = {8: (4, 2), 128: (8, 2), 256: (8, 4), 512: (16, 6)}
FULL_GRID = os.environ.get("MOE_JIT_TEST_GRID") == "full"

pytestmark = pytest.mark.parametrize("device", DEVICES)


def compiled_sizes(method: int) -> list[int]:
    """Numbers of experts to test on a GPU, where each needs another module: all for two methods, else two."""
    return list(TOP_K) if FULL_GRID or method in (1, 2) else [8, 256]


class Setup:
    """Tiny experts on one device, and problems drawn for them."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seed = fresh_seed()
        self.gen = generator(self.seed, device)
        self.layers: dict[int, Layer] = {}

    def layer(self, num_experts: int) -> Layer:
        if num_experts not in self.layers:
            self.layers[num_experts] = random_layer(
                self.gen, num_experts=num_experts, hidden_size=HIDDEN, intermediate_size=INTERMEDIATE
            )
        return self.layers[num_experts]

    def hidden(self, num_tokens: int) -> torch.Tensor:
        return random_e4m3(self.gen, num_tokens, HIDDEN)

    def routing(self, num_tokens: int, num_experts: int, **settings) -> Routing:
        return random_routing(self.gen, num_tokens, num_experts, **settings)

    def check(self, routing: Routing, note: str = "", values: bool = False, **options) -> None:
        """Ids, weights, and that the finalised output is the weighted sum of the rows."""
        num_tokens, num_experts = routing.logits.shape
        context = f"seed {self.seed}, T {num_tokens}, E {num_experts}, {routing.settings()} {note}"
        layer, hidden = self.layer(num_experts), self.hidden(num_tokens)
        parts = call_unfinalised(layer, hidden, routing, **options)
        check_routing(parts, routing, context)
        check_index(parts.pair_to_row, torch.ones_like(parts.ids, dtype=torch.bool), parts.rows.shape[0])
        output = call(layer, hidden, routing, **options)
        check_finalised(output, parts)
        if values:
            reference = reference_for(layer, hidden, routing)
            compare_output(output, reference).check(context)
            compare_rows(parts.rows, parts.pair_to_row, reference).check(context)


def check_index(pair_to_row: torch.Tensor, live: torch.Tensor, num_rows: int) -> None:
    index = pair_to_row.view(live.shape)
    assert torch.equal(index >= 0, live)
    assert (index >= -1).all()
    used = index[live]
    assert used.unique().numel() == used.numel()
    assert used.numel() == 0 or int(used.max()) < num_rows


@pytest.fixture
def setup(device: str) -> Setup:
    return Setup(device)


def top_k_of(method: int, num_experts: int) -> int:
    return 1 if method == 3 else TOP_K[num_experts]


@pytest.mark.parametrize("num_experts", list(TOP_K))
@pytest.mark.parametrize("method", METHODS)
def test_random_logits(setup, method, num_experts):
    if setup.device == "cuda" and num_experts not in compiled_sizes(method):
        pytest.skip("set MOE_JIT_TEST_GRID=full to compile a module for it")
    for dtype in DTYPES:
        for num_tokens in TOKENS:
            top_k = top_k_of(method, num_experts)
            routing = setup.routing(num_tokens, num_experts, method=method, top_k=top_k, dtype=dtype)
            setup.check(routing, str(dtype), values=num_tokens in (1, 7) and num_experts <= 128)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("num_experts", list(TOP_K))
def test_groups(setup, num_experts, dtype):
    n_group, topk_group = GROUPS[num_experts]
    for num_tokens in TOKENS:
        routing = setup.routing(
            num_tokens,
            num_experts,
            method=2,
            top_k=TOP_K[num_experts],
            dtype=dtype,
            n_group=n_group,
            topk_group=topk_group,
            factor=2.5,
        )
        setup.check(routing, str(dtype))


@pytest.mark.parametrize(
    ("num_experts", "n_group", "topk_group", "top_k"),
    [
        (4, 2, 1, 2),
        (12, 3, 2, 8),
        (16, 8, 3, 6),
        (64, 32, 1, 2),
        (64, 2, 2, 32),
        (128, 64, 16, 32),
        (250, 5, 3, 30),
        (256, 8, 4, 8),
        (512, 8, 4, 22),
    ],
)
def test_unusual_groups(setup, num_experts, n_group, topk_group, top_k):
    groups = {"method": 2, "top_k": top_k, "n_group": n_group, "topk_group": topk_group}
    for shift in (0.0, -3.0):
        setup.check(setup.routing(33, num_experts, shift=shift, **groups))
    every_tie = Routing(torch.zeros(3, num_experts, device=setup.device), None, **groups)
    setup.check(every_tie)
    assert route(every_tie.logits, None, **groups)[0][0].tolist() == list(range(top_k))


def special_rows(num_experts: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    """Rows whose selection is decided by the rules for ties, signs, NaN and infinities."""
    generic = torch.linspace(-4, 4, num_experts).roll(3)
    alternating = torch.zeros(num_experts)
    alternating[::2] = -0.0
    saturated = torch.tensor([40.0, -40.0, 50.0, -50.0]).repeat(num_experts)[:num_experts]
    rows = {
        "all equal": torch.full((num_experts,), 0.5),
        "all -inf": torch.full((num_experts,), -math.inf),
        "all nan": torch.full((num_experts,), math.nan),
        "all -nan": torch.full((num_experts,), -math.nan),
        "signed zeros": alternating,
        "negative": generic - 9,
        "negative and -inf": torch.where(torch.arange(num_experts) % 3 == 0, generic - 9, -math.inf),
        "saturated": saturated,
        "two values": (torch.arange(num_experts) % 2).float(),
        "underflow": -200.0 * (torch.arange(num_experts).flip(0) % 3),
        "increasing": torch.arange(num_experts).float() / 8,
        "decreasing": torch.arange(num_experts).flip(0).float() / 8,
    }
    for name in ("inf", "-inf", "nan", "-nan"):
        for position in (0, num_experts // 2, num_experts - 1):
            rows[f"{name} at {position}"] = generic.clone()
            rows[f"{name} at {position}"][position] = float(name)
    logits = torch.stack(list(rows.values())).to(dtype)
    bits = logits.view(torch.int32 if dtype == torch.float32 else torch.int16)
    negative = torch.tensor(["-nan" in name for name in rows])[:, None]
    bits[logits.isnan() & negative] = -1  # conversions do not keep the sign of a NaN
    bits[logits.isnan() & ~negative] = 0x7FC00000 if dtype == torch.float32 else 0x7FC0
    return logits.to(device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", METHODS)
def test_special_logits(setup, method, dtype):
    for num_experts in (8, 256):
        logits = special_rows(num_experts, dtype, setup.device)
        if method == 3:
            logits = logits[
                [row for row in range(len(logits)) if row != 4]
            ]  # signed zeros have their own test
        for top_k in (1,) if method == 3 else (1, 2, min(num_experts, 32)):
            setup.check(Routing(logits, None, method, top_k), str(dtype))


def test_special_logits_with_groups(setup):
    logits = special_rows(256, torch.float32, setup.device)
    setup.check(Routing(logits, None, 2, 8, n_group=8, topk_group=4))


@pytest.mark.parametrize("position", [1, 32, 33, 64])
def test_llama4_signed_zeros(setup, position):
    """Within a lane (experts l, l + 32, ...) the first zero wins, across lanes +0.0."""
    logits = torch.full((2, 256), -1.0, device=setup.device)
    logits[0, 0], logits[0, position] = -0.0, 0.0
    logits[1, 0], logits[1, position] = 0.0, -0.0
    setup.check(Routing(logits, None, 3, 1))


@pytest.mark.parametrize("method", METHODS)
def test_rows_do_not_influence_each_other(setup, method):
    top_k = top_k_of(method, 8)
    routing = setup.routing(6, 8, method=method, top_k=top_k)
    clean = call_unfinalised(setup.layer(8), setup.hidden(6), routing)
    routing.logits[[0, 3]] = math.nan
    routing.logits[4] = -math.inf
    spoilt = call_unfinalised(setup.layer(8), setup.hidden(6), routing)
    for row in (1, 2, 5):
        assert torch.equal(spoilt.ids[row], clean.ids[row]), f"seed {setup.seed}"
        assert torch.equal(spoilt.weights[row], clean.weights[row]), f"seed {setup.seed}"


@pytest.mark.parametrize("shift", [-6.0, -2.5, 3.0])
@pytest.mark.parametrize("method", METHODS)
def test_negative_and_positive_logits(setup, method, shift):
    for num_experts in (8, 256):
        top_k = top_k_of(method, num_experts)
        setup.check(setup.routing(40, num_experts, method=method, top_k=top_k, shift=shift))


@pytest.mark.parametrize("bias_dtype", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("method", "n_group"), [(2, None), (2, 0), (2, 1), (2, 8), (7, None)])
def test_bias(setup, method, n_group, bias_dtype):
    for dtype in DTYPES:
        groups = {"n_group": n_group, "topk_group": 4 if n_group == 8 else None}
        routing = setup.routing(50, 256, method=method, top_k=8, dtype=dtype, bias_dtype=bias_dtype, **groups)
        setup.check(routing, f"{dtype} {bias_dtype}")


@pytest.mark.parametrize(("method", "n_group"), [(2, None), (2, 4), (7, None)])
def test_fp32_bias_stays_fp32(setup, method, n_group):
    """In bf16 these biases would tie, and experts 0 and 1 would win."""
    bias = 1 + torch.arange(8, device=setup.device) * 2.0**-12
    routing = Routing(
        torch.zeros(2, 8, device=setup.device), bias, method, 2, n_group=n_group, topk_group=n_group and 1
    )
    setup.check(routing)
    assert route(routing.logits, bias, **routing.settings())[0].tolist() == [[7, 6], [7, 6]]


@pytest.mark.parametrize("factor", [None, 0.0, 1.0, 2.5, -1.0])
def test_scaling_factor(setup, factor):
    for method, n_group in ((2, None), (2, 4), (7, None), (1, None), (6, None)):
        groups = {"n_group": n_group, "topk_group": n_group and 2}
        setup.check(setup.routing(9, 8, method=method, top_k=2, factor=factor, **groups))


@pytest.mark.parametrize("method", METHODS)
def test_norm_topk_prob(setup, method):
    for norm in (True, False):
        routing = setup.routing(9, 8, method=method, top_k=top_k_of(method, 8), norm_topk_prob=norm)
        setup.check(routing)


@pytest.mark.parametrize("method", [m for m in METHODS if m != 2])
def test_groups_are_ignored_by_other_methods(setup, method):
    routing = setup.routing(9, 8, method=method, top_k=top_k_of(method, 8))
    setup.check(routing)
    grouped = Routing(routing.logits, routing.bias, method, routing.top_k, n_group=4, topk_group=1)
    result = call_unfinalised(setup.layer(8), setup.hidden(9), grouped)
    check_routing(result, routing, f"seed {setup.seed}")


SIZES = [(1, 1), (2, 2), (6, 5), (31, 31), (33, 32), (100, 5), (160, 8), (257, 17), (1000, 32), (2048, 32)]


@pytest.mark.parametrize(("num_experts", "top_k"), SIZES)
def test_sizes(setup, num_experts, top_k):
    methods = METHODS if setup.device == "cpu" else [1]
    for method in methods:
        k = 1 if method == 3 else top_k
        setup.check(setup.routing(5, num_experts, method=method, top_k=k, bias_dtype=None))


@pytest.mark.parametrize("num_tokens", [2, 3, 15, 16, 17, 33, 127, 128, 129, 255, 257, 1023, 1025, 3000])
def test_token_counts(setup, num_tokens):
    setup.check(setup.routing(num_tokens, 8, method=1, top_k=2))
    setup.check(setup.routing(num_tokens, 256, method=1, top_k=8))


class TestIndexVectorAndReplay:
    @pytest.mark.parametrize(("offset", "count"), [(0, 8), (0, 3), (2, 4), (7, 1), (5, 3)])
    def test_shards_know_global_experts(self, setup, offset, count):
        routing = setup.routing(37, 8, method=2, top_k=3)
        layer, hidden = setup.layer(8).shard(offset, count), setup.hidden(37)
        parts = call_unfinalised(layer, hidden, routing, offset=offset)
        check_routing(parts, routing, f"seed {setup.seed}")
        live = (parts.ids >= offset) & (parts.ids < offset + count)
        check_index(parts.pair_to_row, live, parts.rows.shape[0])
        check_finalised(call(layer, hidden, routing, offset=offset), parts)

    @pytest.mark.parametrize("method", METHODS)
    def test_replay_is_written_when_finalising_too(self, setup, method):
        routing = setup.routing(11, 8, method=method, top_k=top_k_of(method, 8))
        ids = route(routing.logits, routing.bias, **routing.settings())[0]
        replay = torch.full((15, routing.top_k), -9, dtype=torch.int16, device=setup.device)
        call(setup.layer(8).shard(3, 2), setup.hidden(11), routing, offset=3, routing_replay_out=replay)
        assert torch.equal(replay[:11].long(), ids), f"seed {setup.seed}"
        assert (replay[11:] == -9).all()

    def test_replay_does_not_change_the_result(self, setup):
        routing, hidden = setup.routing(20, 8, method=6, top_k=2), setup.hidden(20)
        replay = torch.zeros(20, 2, dtype=torch.int16, device=setup.device)
        with_replay = call(setup.layer(8), hidden, routing, routing_replay_out=replay)
        assert torch.equal(with_replay, call(setup.layer(8), hidden, routing))
