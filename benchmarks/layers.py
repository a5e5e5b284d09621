"""Random expert layers on the GPU, sized so that repeated calls cannot find their weights in the L2 cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from models import Model

import moe_jit

ROTATED_BYTES = 3_000_000_000
MAX_WEIGHT_SETS = 4


@dataclass
class Weights:
    gemm1: torch.Tensor
    gemm2: torch.Tensor


@dataclass
class Layer:
    """One model's expert layer with one or more copies of the weights."""

    model: Model
    weights: list[Weights]
    scale1: torch.Tensor
    gate_scale: torch.Tensor
    scale2: torch.Tensor

    def call(self, index: int, logits: torch.Tensor, hidden: torch.Tensor, **options: object) -> torch.Tensor:
        m = self.model
        w = self.weights[index % len(self.weights)]
        return moe_jit.trtllm_fp8_per_tensor_scale_moe(
            logits, None, hidden, w.gemm1, self.scale1, self.gate_scale, w.gemm2, self.scale2,
            m.num_experts, m.top_k, m.n_group, m.topk_group, m.intermediate_size, 0, m.num_experts,
            1.0, m.scale_input, int(m.routing), activation_type=int(m.activation), **options,
        )  # fmt: skip


def _random_e4m3(*shape: int) -> torch.Tensor:
    out = torch.empty(shape, dtype=torch.float8_e4m3fn, device="cuda")
    for part in out:
        part.copy_(torch.randn(part.shape, device="cuda", dtype=torch.bfloat16))
    return out


def make_layer(model: Model) -> Layer:
    """Unit-variance e4m3 weights; the scales keep the intermediate inside e4m3's range."""
    h, i, e = model.hidden_size, model.intermediate_size, model.num_experts
    set_bytes = model.expert_bytes * e
    sets = min(MAX_WEIGHT_SETS, 1 + ROTATED_BYTES // set_bytes)
    weights = [Weights(_random_e4m3(e, model.gemm1_rows, h), _random_e4m3(e, h, i)) for _ in range(sets)]
    gate = h**-0.5
    gated = model.activation.is_gated
    return Layer(
        model,
        weights,
        torch.full((e,), 16.0 * (gate if gated else 1.0), device="cuda"),
        torch.full((e,), gate, device="cuda"),
        torch.full((e,), i**-0.5 / 16.0, device="cuda"),
    )


def make_inputs(model: Model, num_tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    logits = torch.randn(num_tokens, model.num_experts, device="cuda")
    hidden = torch.randn(num_tokens, model.hidden_size, device="cuda").to(torch.float8_e4m3fn)
    return logits, hidden


def graph_time_us(calls: list[Callable[[], object]], replays: int) -> float:
    """Median time of one call, from back-to-back replays of a graph that holds them all."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in calls[:2]:
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for call in calls:
            call()
    graph.replay()
    events = [torch.cuda.Event(enable_timing=True) for _ in range(replays + 1)]
    events[0].record()
    for event in events[1:]:
        graph.replay()
        event.record()
    torch.cuda.synchronize()
    times = sorted(a.elapsed_time(b) for a, b in pairwise(events))
    return 1e3 * times[len(times) // 2] / len(calls)
