"""Random expert layers on the GPU, sized so that repeated calls cannot find their weights in the L2 cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter

import torch
from models import Model

ROTATED_BYTES = 3_000_000_000
MAX_WEIGHT_SETS = 4
INTERMEDIATE_GAIN = 16.0
# An idle GPU takes this long to raise its clocks.
WARM_UP_S = 0.03


@dataclass
class Weights:
    gemm1: torch.Tensor
    gemm2: torch.Tensor


@dataclass
class Layer:
    """The local experts of one model's layer, with one or more copies of the weights.

    Rows are random, so that every implementation may read them in the layout it likes best.
    """

    model: Model
    local_offset: int
    weights: list[Weights]
    scale1: torch.Tensor
    gate_scale: torch.Tensor
    scale2: torch.Tensor

    @property
    def num_local(self) -> int:
        return self.scale1.shape[0]

    @property
    def is_sharded(self) -> bool:
        return self.num_local < self.model.num_experts

    def weights_of_call(self, index: int) -> Weights:
        return self.weights[index % len(self.weights)]


def _random_e4m3(*shape: int) -> torch.Tensor:
    out = torch.empty(shape, dtype=torch.float8_e4m3fn, device="cuda")
    for part in out:
        part.copy_(torch.randn(part.shape, device="cuda", dtype=torch.bfloat16))
    return out


def make_layer(model: Model, num_shards: int = 1) -> Layer:
    """Unit-variance e4m3 weights; the scales keep the intermediate inside e4m3's range.

    With expert parallelism the layer is the shard in the middle of ``num_shards``.
    """
    if model.num_experts % num_shards:
        raise ValueError(f"num_shards must divide num_experts {model.num_experts}, got {num_shards}")
    h, i, e = model.hidden_size, model.intermediate_size, model.num_experts // num_shards
    sets = min(MAX_WEIGHT_SETS, 1 + ROTATED_BYTES // (model.expert_bytes * e))
    weights = [Weights(_random_e4m3(e, model.gemm1_rows, h), _random_e4m3(e, h, i)) for _ in range(sets)]
    gate = h**-0.5
    gated = model.activation.is_gated
    return Layer(
        model,
        num_shards // 2 * e,
        weights,
        torch.full((e,), INTERMEDIATE_GAIN * (gate if gated else 1.0), device="cuda"),
        torch.full((e,), gate, device="cuda"),
        torch.full((e,), i**-0.5 / INTERMEDIATE_GAIN, device="cuda"),
    )


def graph_time_us(calls: list[Callable[[], object]], replays: int) -> float:
    """Median time of one call, from back-to-back replays of a graph that holds them all."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls[:2]:
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for call in calls:
            call()
    begin = perf_counter()
    while perf_counter() - begin < WARM_UP_S:
        graph.replay()
        torch.cuda.synchronize()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(replays + 1)]
    events[0].record()
    for event in events[1:]:
        graph.replay()
        event.record()
    torch.cuda.synchronize()
    times = sorted(a.elapsed_time(b) for a, b in pairwise(events))
    return 1e3 * times[len(times) // 2] / len(calls)
