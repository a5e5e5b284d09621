"""Each kernel of the FP8 layer by itself: time, what it must move and compute at least, registers and spills.

    python benchmarks/kernels.py --models qwen3-30b,dsv3 --tokens 1,64,1024,8192

Durations are torch.profiler's, without programmatic dependent launch: kernels run one after the other and
share nothing, so that their sum is more than the layer takes. A fraction is that of the tighter of the two
bounds in models.py. Local memory is the stack, spills included, of any module loaded so far; it needs
cuobjdump.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from inputs import Inputs, make_inputs
from layers import Layer, make_layer
from models import FP8_FLOP_PER_S, MODELS, READ_BYTES_PER_S
from rivals.moe_jit import MoeJit

from moe_jit import jit

CALLS = 12
BF16 = 2  # bytes


@dataclass
class Work:
    """What a kernel must do at least: bytes that travel once, and floating-point operations."""

    bytes: float
    flops: float = 0.0

    @property
    def bound_us(self) -> float:
        return 1e6 * max(self.bytes / READ_BYTES_PER_S, self.flops / FP8_FLOP_PER_S)


def gemm_work(layer: Layer, inputs: Inputs) -> Work:
    """Both expert GEMMs. The e4m3 intermediate is not counted: it may stay in the L2 cache."""
    model, pairs = layer.model, inputs.ids.numel()
    experts = inputs.ids.unique().numel()
    rows = inputs.hidden.numel() + BF16 * pairs * model.hidden_size
    return Work(experts * model.expert_bytes + rows, 2.0 * pairs * model.expert_bytes)


def sum_work(layer: Layer, inputs: Inputs) -> Work:
    return Work(BF16 * layer.model.hidden_size * (inputs.ids.numel() + inputs.num_tokens))


def route_work(layer: Layer, inputs: Inputs) -> Work:
    return Work(inputs.logits.nbytes)


def place_work(layer: Layer, inputs: Inputs) -> Work:
    return Work(inputs.ids.nbytes)


WORK: dict[str, Callable[[Layer, Inputs], Work]] = {
    "route_few_tokens": route_work,
    "route_in_one_block": route_work,
    "choose": route_work,
    "place": place_work,
    "grouped_gemm_kernel": gemm_work,
    "weighted_sum": sum_work,
    "sum_of_parts": sum_work,
}


def traced_kernels(call: Callable[[int], object]) -> dict[str, list[dict[str, Any]]]:
    """Events of our kernels in ``CALLS`` calls, by the name of the function."""
    for index in range(3):
        call(index)
    torch.cuda.synchronize()
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for index in range(CALLS):
            call(index)
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    kernels = defaultdict(list)
    for event in events:
        if event.get("cat") == "kernel" and "moe_jit" in event["name"]:
            kernels[function_name(event["name"])].append(event)
    return kernels


def function_name(signature: str) -> str:
    """``grouped_gemm_kernel`` of ``void moe_jit::cuda::gemm::grouped_gemm_kernel<...>(...)``."""
    return re.split(r"[<(]", signature.removeprefix("void "))[0].rpartition("::")[2]


def local_bytes() -> dict[str, int]:
    """Stack and spills of the kernels of all modules loaded so far; empty without cuobjdump."""
    program = shutil.which("cuobjdump")
    usage: dict[str, int] = {}
    for record in jit.stats() if program else ():
        command = [str(program), "--dump-resource-usage", str(record.path)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        for mangled, stack, local in re.findall(r"Function (\S+):\s+REG:\d+ STACK:(\d+).*LOCAL:(\d+)", text):
            for name in WORK:
                if f"{len(name)}{name}" in mangled:
                    usage[name] = max(usage.get(name, 0), int(stack) + int(local))
    return usage


def print_kernels(layer: Layer, num_tokens: int) -> None:
    inputs = make_inputs(layer.model, num_tokens)
    ours = MoeJit(layer, enable_pdl=False)
    kernels = traced_kernels(lambda index: ours.call(index, inputs))
    local = local_bytes()
    times = {name: median(event["dur"] for event in events) for name, events in kernels.items()}
    for name, us in times.items():
        work = WORK[name](layer, inputs)
        args = kernels[name][0]["args"]
        print(
            f"| {layer.model.name} | {num_tokens} | {name} | {us:.1f} | {us / sum(times.values()):.0%} "
            f"| {work.bytes / us / 1e6:.2f} | {work.flops / us / 1e6:.0f} | {work.bound_us / us:.2f} "
            f"| {args['registers per thread']} | {args['shared memory'] / 1024:.0f} "
            f"| {local.get(name, '?')} |",
            flush=True,
        )


def main(
    models: Annotated[str, typer.Option(help="comma-separated names")] = "qwen3-30b,dsv3",
    tokens: Annotated[str, typer.Option(help="comma-separated token counts")] = "1,64,1024,8192",
) -> None:
    print("| model | T | kernel | us | share | TB/s | TFLOP/s | of bound | registers | shared KB | local B |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name in models.split(","):
        layer = make_layer(MODELS[name])
        for num_tokens in map(int, tokens.split(",")):
            print_kernels(layer, num_tokens)
        del layer
        torch.cuda.empty_cache()


if __name__ == "__main__":
    typer.run(main)
