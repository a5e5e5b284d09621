"""Where the GPU's power limit leaves the layer of many tokens: energy, clock and time beside dense products.

    python benchmarks/power.py --models dsv3,mixtral --tokens 4096,8192

Four loads take turns, each until the clock has settled under it:

layer   the layer as it is used;
dense   both products of all pairs of a token and an expert with ONE expert's weights, by cuBLASLt
        (``torch._scaled_mm``, fast accumulation, m = num_tokens * top_k): the layer's FLOPs without routing,
        gather, activation, requantisation, padding, weighted sum, and with hardly a weight read from memory;
read    the sum of all weights as float32, by torch: what reading a byte costs;
rest    a kernel that sleeps on one SM: what the GPU draws with its clocks up.

At the power limit time is energy over power. The last columns compare the layer in time with the dense
products, and in energy with them and the reading of the layer's bytes (models.py; what the GPU draws for it
above rest). Reading by torch adds numbers up, so that it takes more than the bytes alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from statistics import median
from time import perf_counter
from typing import Annotated

import pynvml
import torch
import typer
from inputs import make_inputs
from layers import Layer, make_layer
from models import MODELS
from rivals.moe_jit import MoeJit

SETTLE_S = 0.25
MEASURE_S = 0.4
REPLAY_S = 0.02  # longer than it takes to ask for the energy
TURNS = 3
CALLS = 2
SLEEP_CYCLES = 1_000_000


@dataclass(frozen=True)
class Draw:
    """One call of a load."""

    us: float
    joules: float
    mhz: float

    @property
    def watts(self) -> float:
        return 1e6 * self.joules / self.us


class Load:
    """Calls captured in a graph, replayed back to back."""

    def __init__(self, calls: list[Callable[[], object]]) -> None:
        begin = 0.0
        for _ in range(2):  # the first round may compile
            torch.cuda.synchronize()
            begin = perf_counter()
            for call in calls:
                call()
        torch.cuda.synchronize()
        rounds = math.ceil(REPLAY_S / (perf_counter() - begin))
        self.calls = calls * rounds
        self.replays = 0
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            for call in self.calls:
                call()
        self.device = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")

    def _until(self, done: Callable[[], bool]) -> None:
        """Replays, with one replay always queued, until ``done`` says so."""
        events = [torch.cuda.Event() for _ in range(2)]
        while not done():
            self.graph.replay()
            events[self.replays % 2].record()
            self.replays += 1
            events[self.replays % 2].synchronize()

    def _until_counted(self, seconds: float) -> tuple[float, int, int]:
        """Time, energy in mJ and replays when the energy counter next moves after ``seconds``."""
        read = partial(pynvml.nvmlDeviceGetTotalEnergyConsumption, self.device)
        begin = perf_counter()
        self._until(lambda: perf_counter() - begin > seconds)
        before = read()
        self._until(lambda: read() != before)
        return perf_counter(), read(), self.replays

    def draw(self) -> Draw:
        begin, energy, replays = self._until_counted(SETTLE_S)
        end, last_energy, last_replays = self._until_counted(MEASURE_S)
        mhz = pynvml.nvmlDeviceGetClockInfo(self.device, pynvml.NVML_CLOCK_SM)
        torch.cuda.synchronize()
        calls = (last_replays - replays) * len(self.calls)
        return Draw(1e6 * (end - begin) / calls, 1e-3 * (last_energy - energy) / calls, mhz)


def dense_products(layer: Layer, rows: int) -> Callable[[], object]:
    """Both products of ``rows`` token rows with the weights of the layer's first expert."""
    one = torch.ones((), device="cuda")
    products = []
    for weight in (layer.weights[0].gemm1[0], layer.weights[0].gemm2[0]):
        tokens = torch.empty(rows, weight.shape[1], dtype=weight.dtype, device="cuda")
        for part in tokens.split(8192):
            part.copy_(torch.randn(part.shape, device="cuda"))
        out = torch.empty(rows, weight.shape[0], dtype=torch.bfloat16, device="cuda")
        products.append((tokens, weight.t(), out))

    def call() -> None:
        for tokens, weight, out in products:
            torch._scaled_mm(tokens, weight, one, one, out_dtype=out.dtype, use_fast_accum=True, out=out)

    return call


def loads_of(layer: Layer, num_tokens: int) -> dict[str, Load]:
    inputs = [make_inputs(layer.model, num_tokens) for _ in range(CALLS)]
    ours, weights = MoeJit(layer), layer.weights[0]
    words = [w.view(torch.float32) for w in (weights.gemm1, weights.gemm2)]
    return {
        "layer": Load([lambda i=i, x=x: ours.call(i, x) for i, x in enumerate(inputs)]),
        "dense": Load([dense_products(layer, num_tokens * layer.model.top_k)] * CALLS),
        "read": Load([lambda: [w.sum() for w in words]]),
        "rest": Load([lambda: torch.cuda._sleep(SLEEP_CYCLES)]),
    }


def measure(loads: dict[str, Load]) -> dict[str, Draw]:
    draws = {name: [] for name in loads}
    for name in islice(cycle(loads), TURNS * len(loads)):
        draws[name].append(loads[name].draw())
    return {
        name: Draw(*(median(getattr(draw, field) for draw in turns) for field in ("us", "joules", "mhz")))
        for name, turns in draws.items()
    }


def print_point(layer: Layer, num_tokens: int) -> None:
    model = layer.model
    draw = measure(loads_of(layer, num_tokens))
    weights = sum(w.nbytes for w in (layer.weights[0].gemm1, layer.weights[0].gemm2))
    bytes_read = model.experts_hit(num_tokens) * model.expert_bytes
    reading_joules = (draw["read"].watts - draw["rest"].watts) * 1e-6 * draw["read"].us * bytes_read / weights
    columns = [model.name, str(num_tokens), f"{model.bound_us(num_tokens):.0f}"]
    for name in ("layer", "dense"):
        d = draw[name]
        columns += [f"{d.us:.0f}", f"{d.watts:.0f}", f"{d.mhz:.0f}", f"{d.joules:.3f}"]
    columns += [
        f"{1e-6 * weights / draw['read'].us:.2f}",
        f"{draw['read'].watts:.0f}",
        f"{draw['rest'].watts:.0f}",
        f"{model.bound_us(num_tokens) / draw['dense'].us:.2f}",
        f"{draw['dense'].us / draw['layer'].us:.2f}",
        f"{(draw['dense'].joules + reading_joules) / draw['layer'].joules:.2f}",
    ]
    print("| " + " | ".join(columns) + " |", flush=True)


def main(
    models: Annotated[str, typer.Option(help="comma-separated names")] = "qwen3-30b,qwen3-235b,mixtral,dsv3",
    tokens: Annotated[str, typer.Option(help="comma-separated token counts")] = "2048,4096,8192",
) -> None:
    pynvml.nvmlInit()
    print(
        "| model | T | bound us | layer us | W | MHz | J | dense us | W | MHz | J | read TB/s | W | rest W "
        "| bound / dense | dense / layer | J of dense and read / layer |"
    )
    print("|" + "---|" * 17)
    for name in models.split(","):
        layer = make_layer(MODELS[name])
        for num_tokens in map(int, tokens.split(",")):
            print_point(layer, num_tokens)
        del layer
        torch.cuda.empty_cache()


if __name__ == "__main__":
    typer.run(main)
