"""Time the FP8 expert layer of real models against the physical bound and every rival that can run here.

    python benchmarks/fp8_moe.py --models dsv3,qwen3-30b --tokens 1,16,128
    python benchmarks/fp8_moe.py --models dsv3 --routing uniform,zipf,hot --ep 8

moe_jit routes from logits inside the timed region; the rivals get expert ids and weights, so that their times
exclude routing. All exclude the quantisation of the input, except vllm's, which takes bf16. Every result is
checked against the float64 reference on a few tokens. Rivals that cannot run are named with the reason.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from inputs import Inputs, make_inputs, unambiguous_tokens
from layers import Layer, graph_time_us, make_layer
from models import MODELS, Model
from report import Measurement, Point, environment, print_report, recorded, write_report
from rivals import OURS, RIVALS, Rival, Unavailable

from moe_jit import plan
from moe_jit.reference import HOPPER_FP8_FAST, Reference, compare_output, fp8_moe

TOKENS = ",".join(str(2**i) for i in range(14))
CHECKED_TOKENS = 4
MAX_RELATIVE_L2 = 0.05  # of a rival: it rounds the intermediate to bf16 before e4m3
MAX_PROBLEM_LENGTH = 160
RESULTS = Path(__file__).with_name("results")


def calls_per_graph(num_tokens: int) -> int:
    return 16 if num_tokens <= 64 else 8 if num_tokens <= 512 else 4 if num_tokens <= 2048 else 2


class Oracle:
    """Expected output of the first call for some tokens, in the layout that a rival reads the weights in."""

    def __init__(self, layer: Layer, inputs: Inputs) -> None:
        self.layer, self.inputs = layer, inputs
        self.tokens = unambiguous_tokens(layer.model, inputs, CHECKED_TOKENS)
        self.by_layout: dict[str, Reference] = {}

    def expected(self, layout: str) -> Reference:
        if layout not in self.by_layout:
            layer, inputs, some = self.layer, self.inputs, self.tokens
            weights = layer.weights_of_call(0)
            self.by_layout[layout] = fp8_moe(
                inputs.hidden.view(torch.uint8)[some].view(torch.float8_e4m3fn),
                weights.gemm1,
                layer.scale1,
                layer.gate_scale,
                weights.gemm2,
                layer.scale2,
                inputs.ids[some],
                inputs.weights[some],
                activation=int(layer.model.activation),
                weight_layout=layout,
                intermediate_size=layer.model.intermediate_size,
                local_expert_offset=layer.local_offset,
                use_routing_scales_on_input=layer.model.scale_input,
                accumulation=HOPPER_FP8_FAST,
            )
        return self.by_layout[layout]

    def check(self, rival: Rival) -> tuple[float, str]:
        """Relative L2 error, and what is wrong with the result, if anything."""
        output = rival.call(0, self.inputs)
        agreement = compare_output(output[self.tokens], self.expected(rival.weight_layout))
        if not output.isfinite().all():
            return agreement.relative_l2, "wrong: not finite"
        good = agreement.ok if rival.name == OURS else agreement.relative_l2 <= MAX_RELATIVE_L2
        return agreement.relative_l2, "" if good else f"wrong: {agreement}"


def measure(rival: Rival, inputs: list[Inputs], oracle: Oracle) -> Measurement:
    """Time one rival at one point. A failure of the rival is a result, too."""
    try:
        config = rival.tune(inputs)
        error, problem = oracle.check(rival)
        calls: list[Callable[[], object]] = [partial(rival.call, i, x) for i, x in enumerate(inputs)]
        us = graph_time_us(calls, replays=20 if inputs[0].num_tokens <= 1024 else 7)
        return Measurement(rival.name, None if problem else us, error, problem, config)
    except Exception as failure:
        torch.cuda.synchronize()  # raises if the device is lost, which ends the run
        problem = f"{type(failure).__name__}: {failure}".splitlines()[0][:MAX_PROBLEM_LENGTH]
        return Measurement(rival.name, None, problem=problem)


def measure_point(layer: Layer, rivals: list[Rival], num_tokens: int, routing: str) -> Point:
    model = layer.model
    inputs = [make_inputs(model, num_tokens, routing) for _ in range(calls_per_graph(num_tokens))]
    routed = [model.routed_bound_us(x.ids, layer.local_offset, layer.num_local) for x in inputs]
    expected = routing == "uniform" and not layer.is_sharded
    oracle = Oracle(layer, inputs[0])
    point = Point(
        model=model.name,
        num_tokens=num_tokens,
        routing=routing,
        num_local=layer.num_local,
        bound_us=model.bound_us(num_tokens) if expected else sum(routed) / len(routed),
        routed_bound_us=sum(routed) / len(routed),
        recorded=recorded(model.name, num_tokens) if expected else {},
    )
    for rival in rivals:
        result = measure(rival, inputs, oracle)
        point.measurements.append(result)
        print(f"  {point.label}: {result}", file=sys.stderr, flush=True)
    return point


def bind(names: list[str], layer: Layer) -> list[Rival]:
    """The rivals that can run this layer; the others are reported."""
    bound = []
    for name in names:
        try:
            bound.append(RIVALS[name](layer))
        except Exception as failure:
            reason = failure if isinstance(failure, Unavailable) else repr(failure)
            print(f"{layer.model.name}: {name} left out: {reason}", file=sys.stderr, flush=True)
    return bound


def _choices(text: str, known: list[str], option: str) -> list[str]:
    names = text.split(",")
    unknown = sorted(set(names) - set(known))
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}; known are {', '.join(known)}", param_hint=option)
    return names


def main(
    models: Annotated[str, typer.Option(help="comma-separated names")] = ",".join(MODELS),
    tokens: Annotated[str, typer.Option(help="comma-separated token counts")] = TOKENS,
    rivals: Annotated[str, typer.Option(help="comma-separated names")] = ",".join(RIVALS),
    routing: Annotated[str, typer.Option(help="comma-separated: uniform, zipf, hot")] = "uniform",
    ep: Annotated[int, typer.Option(help="time one shard of this many (expert parallelism)")] = 1,
    tile: Annotated[int | None, typer.Option(help="token tile to force on moe_jit")] = None,
    commit: Annotated[str | None, typer.Option(help="revision to name where there is no git")] = None,
    out: Annotated[Path, typer.Option(help="directory of result directories")] = RESULTS,
) -> None:
    if tile is not None:
        plan.default_tile_tokens = lambda _: tile
    chosen = [MODELS[name] for name in _choices(models, list(MODELS), "--models")]
    names = _choices(rivals, list(RIVALS), "--rivals")
    facts = environment(commit) | {"ep": ep, "tile": tile, "command": sys.argv[1:]}
    gpu = facts["gpu"].removeprefix("NVIDIA ").replace(" ", "-").lower()
    directory = out / f"{date.today()}-{gpu}-{facts['commit']}"
    points: list[Point] = []
    try:
        for model in chosen:
            _run_model(model, names, ep, tokens, routing, points)
            write_report(directory, points, facts)
    finally:
        if points:
            write_report(directory, points, facts)
            print_report(points)
            print(f"results: {directory}")


def _run_model(
    model: Model, names: list[str], ep: int, tokens: str, routing: str, points: list[Point]
) -> None:
    layer = make_layer(model, ep)
    bound = bind(names, layer)
    for kind in routing.split(","):
        for num_tokens in map(int, tokens.split(",")):
            points.append(measure_point(layer, bound, num_tokens, kind))
    del layer, bound
    torch.cuda.empty_cache()


if __name__ == "__main__":
    typer.run(main)
