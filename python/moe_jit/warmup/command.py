"""The ``moe-jit warmup`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from .. import jit
from .run import AUTOTUNE_FILE, WarmupReport, warmup


def command(
    model: Annotated[Path, typer.Option(help="config.json of a Hugging Face model, or its directory.")],
    tp: Annotated[int, typer.Option(help="Ranks that share each expert's intermediate size.")] = 1,
    ep: Annotated[int, typer.Option(help="Ranks that share the experts.")] = 1,
    max_tokens: Annotated[int, typer.Option(help="The most tokens of a call.")] = 8192,
    arch: Annotated[str, typer.Option(help="9.0a or cpu; no GPU is needed.")] = "9.0a",
    output: Annotated[Path | None, typer.Option(help="Directory to ship; None fills the cache only.")] = None,
    tune: Annotated[bool | None, typer.Option(help="Measure tactics. Default: where there is a GPU.")] = None,
    weight_layout: Annotated[str, typer.Option(help="Rows to tune for: w1_w3, w3_w1, shuffled.")] = "w1_w3",
) -> None:
    """Compile and tune everything that a model needs, before an engine starts."""
    try:
        report = warmup(
            model,
            tp=tp,
            ep=ep,
            max_tokens=max_tokens,
            arch=arch,
            output=output,
            tune=tune,
            weight_layout=weight_layout,
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    except (jit.CompileError, jit.ToolchainError) as error:
        typer.echo(error, err=True)
        raise typer.Exit(1) from error
    console = Console()
    for line in _describe(report, output):
        console.print(line, soft_wrap=True, highlight=False)


def _describe(report: WarmupReport, output: Path | None) -> list[str]:
    layer = report.layer
    routing = (
        "routed by the model" if layer.routing_method is None else f"{layer.routing_method.name} routing"
    )
    experts = f"{layer.num_local_experts} of {layer.num_experts} experts, top {layer.top_k}"
    sizes = f"hidden size {layer.hidden_size}, intermediate size {layer.intermediate_size}"
    size = sum(path.stat().st_size for path in report.paths) / 1e6
    lines = [
        f"layer: {experts}, {sizes}, {layer.activation.name}, {routing}",
        f"{len(report.specs)} modules ({size:.1f} MB) are ready after {report.seconds:.1f} s",
    ]
    if output is not None:
        path = output.expanduser().absolute()
        lines.append(f"use them elsewhere with MOE_JIT_PREBUILT_DIR={path}")
        if report.tuned:
            lines.append(f"and what was measured with MOE_JIT_AUTOTUNE_CACHE={path / AUTOTUNE_FILE}")
    return lines
