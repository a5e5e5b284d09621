"""Graph capture, replay with changed inputs, and concurrent streams."""

from __future__ import annotations

import math

import pytest
import torch
from support.calls import call, reference_for
from support.setup import Setup

from moe_jit.reference import compare_output

pytestmark = pytest.mark.cuda


@pytest.fixture
def setup() -> Setup:
    return Setup("cuda")


def capture(layer, hidden, routing, output, **options) -> torch.cuda.CUDAGraph:
    """Record one call that writes ``output``; the module is loaded by a call before."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call(layer, hidden, routing, output=output, poison=False, **options)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call(layer, hidden, routing, output=output, poison=False, **options)
    return graph


@pytest.mark.parametrize("enable_pdl", [True, False])
@pytest.mark.parametrize("num_tokens", [1, 33, 300])
def test_replay_follows_changed_inputs(setup, num_tokens, enable_pdl):
    layer, routing = setup.layer(), setup.routing(num_tokens)
    hidden = setup.hidden(num_tokens, layer)
    output = torch.empty(num_tokens, layer.hidden_size, dtype=torch.bfloat16, device="cuda")
    replayed_ids = torch.zeros(num_tokens, routing.top_k, dtype=torch.int16, device="cuda")
    graph = capture(layer, hidden, routing, output, routing_replay_out=replayed_ids, enable_pdl=enable_pdl)
    for change in ("nothing", "logits", "hidden", "scales", "one expert"):
        if change == "logits":
            routing.logits.copy_(setup.routing(num_tokens).logits)
        elif change == "hidden":
            hidden.copy_(setup.hidden(num_tokens, layer))
        elif change == "scales":
            layer.sc.mul_(0.7)
            layer.s2.mul_(-1.3)
        elif change == "one expert":
            routing.logits[:, 3] = 20
        output.fill_(math.nan)
        replayed_ids.fill_(-1)
        graph.replay()
        reference = reference_for(layer, hidden, routing)
        compare_output(output, reference).check(f"seed {setup.seed}, changed {change}")
        assert torch.equal(output, call(layer, hidden, routing)), f"seed {setup.seed}, changed {change}"
        assert (replayed_ids >= 0).all()


@pytest.mark.parametrize("num_tokens", [1, 3, 8, 40])
def test_tokens_of_nan_end_and_stay_apart(setup, num_tokens):
    """Few tokens wait for values other than 0xff, which is one of the NaNs that hidden states may hold."""
    layer, routing = setup.layer(), setup.routing(num_tokens)
    hidden = setup.hidden(num_tokens, layer)
    expected = call(layer, hidden, routing)
    for code in (0x7F, 0xFF):
        hidden.view(torch.uint8)[0] = code
        output = call(layer, hidden, routing)
        assert output[0].isnan().all()
        assert torch.equal(output[1:], expected[1:]), f"seed {setup.seed}, code {code:#x}"


def test_graph_of_many_layers_without_finalize(setup):
    """Allocations of one call inside the graph are reused by the next."""
    layers = [setup.layer() for _ in range(3)]
    routing = setup.routing(40)
    hidden = setup.hidden(40, layers[0])
    expected = [call(layer, hidden, routing, do_finalize=False) for layer in layers]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = [call(layer, hidden, routing, do_finalize=False, poison=False) for layer in layers]
    for _ in range(3):
        graph.replay()
    for (rows, weights, index), (rows_, weights_, index_) in zip(captured, expected, strict=True):
        assert torch.equal(weights, weights_)
        assert torch.equal(index, index_)
        assert torch.equal(rows[index.long()], rows_[index.long()])


def test_repeated_replays_are_equal_bit_for_bit(setup):
    layer, routing = setup.layer(), setup.routing(64)
    hidden = setup.hidden(64, layer)
    output = torch.empty(64, layer.hidden_size, dtype=torch.bfloat16, device="cuda")
    graph = capture(layer, hidden, routing, output)
    graph.replay()
    first = output.clone()
    for _ in range(100):
        output.fill_(math.nan)
        graph.replay()
        assert torch.equal(output, first), f"seed {setup.seed}"


@pytest.mark.parametrize("top_k", [2, 8])
@pytest.mark.parametrize("cache_share", [0.4, 1.2, 2])
def test_rows_that_stay_in_the_cache_or_are_dropped(setup, cache_share, top_k):
    """Sums of as many rows, compared with the rows themselves; calls in between find memory used before."""
    cache = torch.cuda.get_device_properties("cuda").L2_cache_size
    layer = setup.layer(hidden_size=512, intermediate_size=64)
    num_tokens = int(cache * cache_share) // (2 * 512 * top_k)
    routing, hidden = setup.routing(num_tokens, top_k=top_k), setup.hidden(num_tokens, layer)
    rows, weights, index = call(layer, hidden, routing, do_finalize=False)
    expected = torch.zeros(num_tokens, 512, device="cuda")
    for rank in range(top_k):
        expected += weights[:, rank, None].float() * rows[index.view(-1, top_k)[:, rank].long()].float()
    for _ in range(3):
        output = call(layer, hidden, routing)
        assert torch.equal(output, expected.bfloat16()), f"seed {setup.seed}"


def test_two_streams(setup):
    problems = []
    for num_tokens in (20, 50):
        layer, routing = setup.layer(), setup.routing(num_tokens)
        problems.append((layer, setup.hidden(num_tokens, layer), routing))
    expected = [call(*problem) for problem in problems]
    torch.cuda.synchronize()
    streams = [torch.cuda.Stream() for _ in problems]
    results: list[list[torch.Tensor]] = [[], []]
    for _ in range(50):
        for stream, problem, kept in zip(streams, problems, results, strict=True):
            with torch.cuda.stream(stream):
                kept.append(call(*problem, poison=False))
    torch.cuda.synchronize()
    for kept, wanted in zip(results, expected, strict=True):
        assert all(torch.equal(result, wanted) for result in kept), f"seed {setup.seed}"


def test_back_to_back_calls_with_dependent_launch(setup):
    """The second call must not start on the first one's unfinished output."""
    layer = setup.layer()
    layer.s2.mul_(300)  # keeps the size of the values over the iterations
    routing = setup.routing(48)
    hidden = setup.hidden(48, layer)
    serial, overlapped = hidden, hidden
    for _ in range(20):
        serial = call(layer, serial, routing, enable_pdl=False).clamp(-448, 448).to(torch.float8_e4m3fn)
        torch.cuda.synchronize()
    for _ in range(20):
        overlapped = call(layer, overlapped, routing, enable_pdl=True, poison=False)
        overlapped = overlapped.clamp(-448, 448).to(torch.float8_e4m3fn)
    assert serial.double().abs().mean() > 1
    assert torch.equal(serial.view(torch.uint8), overlapped.view(torch.uint8)), f"seed {setup.seed}"
