"""``moe-jit demo``: compile, run and check one mixture-of-experts layer on this machine."""

from __future__ import annotations

import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from . import backends, jit, reference
from .enums import RoutingMethodType
from .fused_moe import modules_in_use
from .layer import FusedMoE
from .reference.agreement import compare_output

# Relative L2 distance from the layer with unquantised weights, input and intermediate: four e4m3 roundings of
# relative rms 2.6 % each, of which the first two meet in both halves of the activation.
QUANTIZATION_TOLERANCE = 0.075

_LOAD_IN_NEW_PROCESS = """
import pickle, sys
from moe_jit import jit
for spec in pickle.load(sys.stdin.buffer):
    jit.load(spec)
print(sum(record.seconds for record in jit.stats()))
"""


@dataclass(frozen=True)
class Shape:
    name: str
    hidden_size: int
    intermediate_size: int
    num_experts: int
    top_k: int

    def __str__(self) -> str:
        return (
            f"{self.name}: hidden {self.hidden_size}, intermediate {self.intermediate_size}, "
            f"{self.num_experts} experts, top {self.top_k}"
        )


FULL = Shape("Qwen3-30B-A3B layer", 2048, 768, 128, 8)
REDUCED = Shape("Qwen3-30B-A3B layer at a quarter of its widths", 512, 192, 128, 8)


@dataclass(frozen=True)
class Weights:
    """bfloat16 parameters of a layer; every expert has its own magnitude."""

    router: torch.Tensor
    gate: torch.Tensor
    up: torch.Tensor
    down: torch.Tensor

    @classmethod
    def random(cls, shape: Shape, device: torch.device) -> Weights:
        experts, hidden, inner = shape.num_experts, shape.hidden_size, shape.intermediate_size
        size = torch.linspace(0.5, 2, experts, device=device)[:, None, None]

        def normal(*dims: int) -> torch.Tensor:
            return torch.randn(dims, dtype=torch.bfloat16, device=device).mul_(dims[-1] ** -0.5)

        return cls(
            normal(experts, hidden),
            normal(experts, inner, hidden) * size.bfloat16(),
            normal(experts, inner, hidden) / size.bfloat16(),
            normal(experts, hidden, inner),
        )

    def apply(self, x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """The layer in float32, without any quantisation."""
        output = torch.zeros(x.shape, device=x.device)
        for expert in sorted(set(ids.flatten().tolist())):
            token, rank = (ids == expert).nonzero(as_tuple=True)
            rows = x[token].float()
            inner = torch.nn.functional.silu(rows @ self.gate[expert].float().T) * (
                rows @ self.up[expert].float().T
            )
            result = inner @ self.down[expert].float().T
            output.index_add_(0, token, weights[token, rank, None].float() * result)
        return output


@dataclass(frozen=True)
class Check:
    name: str
    observed: str
    required: str
    passed: bool


def check_layer(layer: FusedMoE, weights: Weights, x: torch.Tensor, logits: torch.Tensor) -> list[Check]:
    """Compare one call of the layer with the float64 reference and with the unquantised layer."""
    top_k = layer.top_k
    replay = torch.full((x.shape[0], top_k), -1, dtype=torch.int16, device=x.device)
    output = layer(x, logits, routing_replay_out=replay)
    ids, routing_weights = reference.route(logits, None, method=RoutingMethodType.Renormalize, top_k=top_k)
    output1, output1_gate, output2 = layer.kernel_scales
    expected = reference.fp8_moe(
        layer.quantize_input(x),
        layer.w13,
        output1,
        output1_gate,
        layer.w2,
        output2,
        ids,
        routing_weights,
        activation=layer.activation,
        weight_layout=layer.layout,
        intermediate_size=layer.intermediate_size,
        accumulation=reference.FP32 if x.device.type == "cpu" else reference.HOPPER_FP8,
    )
    agreement = compare_output(output, expected)
    wrong = int((replay.long() != ids).any(dim=1).sum())
    unquantized = weights.apply(x, ids, routing_weights)
    error = float((output.float() - unquantized).norm() / unquantized.norm())
    worst = max(agreement.ratios.values())
    return [
        Check("expert choice", f"{wrong} tokens differ", "none differs", wrong == 0),
        Check(
            "output, float64 reference",
            f"relative L2 {agreement.relative_l2:.3%}, worst bound used to {worst:.0%}",
            f"about {agreement.expected_relative_l2:.3%}, no bound above 100%",
            agreement.ok,
        ),
        Check(
            "output, unquantised bf16 layer",
            f"relative L2 {error:.2%}",
            f"below {QUANTIZATION_TOLERANCE:.1%}",
            error < QUANTIZATION_TOLERANCE,
        ),
    ]


def median_seconds(call: Callable[[], object], device: torch.device, repeats: int = 20) -> float:
    """Median time of one call, including the work it queues on the device."""
    times = []
    for _ in range(repeats + 3):
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[3:])


def load_seconds_in_new_process() -> float:
    """How long a new process needs for the modules that this one has used, from search to dlopen."""
    child = subprocess.run(
        [sys.executable, "-c", _LOAD_IN_NEW_PROCESS],
        input=pickle.dumps(modules_in_use()),
        stdout=subprocess.PIPE,
        check=True,
    )
    return float(child.stdout.split()[-1])


def _choose_device(console: Console) -> torch.device:
    if torch.cuda.is_available():
        device = torch.device("cuda", torch.cuda.current_device())
        try:
            backends.describe(device)
        except ValueError as error:
            console.print(f"Not using the GPU: {error}")
        else:
            return device
    return torch.device("cpu")


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)} ({device})"
    return f"CPU, {torch.get_num_threads()} threads"


@contextmanager
def _empty_cache(wanted: bool) -> Iterator[None]:
    """A temporary MOE_JIT_CACHE_DIR, and no prebuilt modules."""
    if not wanted:
        yield
        return
    names = ("MOE_JIT_CACHE_DIR", "MOE_JIT_PREBUILT_DIR")
    before = {name: os.environ.pop(name, None) for name in names}
    with tempfile.TemporaryDirectory() as directory:
        os.environ["MOE_JIT_CACHE_DIR"] = directory
        try:
            yield
        finally:
            del os.environ["MOE_JIT_CACHE_DIR"]
            os.environ.update({name: value for name, value in before.items() if value is not None})


def _compile_rows(records: list[jit.LoadRecord]) -> Iterator[tuple[str, str]]:
    for record in records:
        if record.origin == "built":
            units = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in record.compile_seconds.items())
            yield f"compile {record.name} (cold)", f"{record.seconds:.2f} s ({units})"
        else:
            yield f"load {record.name} ({record.origin})", f"{record.seconds:.3f} s, nothing to compile"
    yield "load in a new process (warm)", f"{load_seconds_in_new_process():.3f} s"


def _report(facts: list[tuple[str, str]], checks: list[Check], console: Console) -> None:
    table = Table(show_header=False, title="what ran, and how long it took", title_justify="left")
    for name, value in facts:
        table.add_row(name, value)
    console.print(table)
    table = Table("check", "observed", "required", "", title="is it right?", title_justify="left")
    for check in checks:
        verdict = "[green]ok[/green]" if check.passed else "[bold red]FAILED[/bold red]"
        table.add_row(check.name, check.observed, check.required, verdict)
    console.print(table)
    console.print(
        "For comparison: building FlashInfer's own Hopper MoE module takes about 4 CPU-hours "
        "(a figure from this project's requirements, not measured by this command)."
    )


def demo(
    tokens: Annotated[int, typer.Option(min=1, help="Number of tokens.")] = 64,
    full: Annotated[bool, typer.Option(help="Real sizes on the CPU too (3 GB of memory).")] = False,
    cold: Annotated[bool, typer.Option(help="Compile from nothing, in a temporary cache.")] = False,
) -> None:
    """Compile, run and check a mixture-of-experts layer on this machine."""
    console = Console()
    device = _choose_device(console)
    shape = FULL if full or device.type == "cuda" else REDUCED
    console.print(f"[bold]{shape}[/bold]\n{tokens} tokens on {_device_name(device)}")
    torch.manual_seed(0)
    weights = Weights.random(shape, device)
    x = torch.randn(tokens, shape.hidden_size, device=device).bfloat16()
    logits = x.float() @ weights.router.float().T * 2

    console.print("Quantising the weights to FP8, one scale for each half of each expert ...")
    layer = FusedMoE.from_gate_up(weights.gate, weights.up, weights.down, top_k=shape.top_k)
    console.print("Calibrating the static scales; this is the first call, which compiles ...")
    known = len(jit.stats())
    try:
        with _empty_cache(cold):
            layer.calibrate(x, logits)
            layer(x, logits)
            loads = list(_compile_rows(jit.stats()[known:]))
    except (jit.CompileError, jit.ToolchainError) as error:
        console.print(str(error), markup=False)
        raise typer.Exit(1) from None
    console.print("Running and checking ...")
    quantized = layer.quantize_input(x)
    seconds = median_seconds(lambda: layer(quantized, logits), device)
    checks = check_layer(layer, weights, x, logits)
    facts = [
        ("device", _device_name(device)),
        ("layer", str(shape)),
        *loads,
        ("run, median of 20 calls", f"{seconds * 1e3:.3g} ms for {tokens} tokens"),
    ]
    _report(facts, checks, console)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
