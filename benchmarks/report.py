"""Results of a benchmark run: table, summary against the targets, CSV, picture, environment."""

from __future__ import annotations

import csv
import json
import math
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from rivals import OURS

PEERS = Path(__file__).with_name("peers_h200.csv")
REGIMES = ((1, 8), (16, 128), (256, 1024), (2048, 8192))


@dataclass(frozen=True)
class Measurement:
    """One implementation at one point. ``us`` is None when it failed or was wrong; ``problem`` says why."""

    name: str
    us: float | None
    relative_l2: float | None = None
    problem: str = ""
    config: str = ""

    def __str__(self) -> str:
        if self.us is None:
            return f"{self.name} {self.problem}"
        return f"{self.name} {self.us:.1f} us, relative L2 {self.relative_l2:.2%} {self.config}"


@dataclass
class Point:
    """All results for one model, token count and routing; times in microseconds.

    bound_us is for the expected number of experts under uniform routing of the whole layer, and equal to
    routed_bound_us, which counts the experts that the inputs chose, in all other cases. ``recorded`` holds
    earlier times of rivals on an H200.
    """

    model: str
    num_tokens: int
    routing: str
    num_local: int
    bound_us: float
    routed_bound_us: float
    recorded: dict[str, float]
    measurements: list[Measurement] = field(default_factory=list)

    @property
    def label(self) -> str:
        return f"{self.model} T {self.num_tokens} {self.routing}"

    def us(self, name: str) -> float | None:
        return next((m.us for m in self.measurements if m.name == name), None)

    @property
    def best_rival(self) -> tuple[str, float] | None:
        times = {m.name: m.us for m in self.measurements if m.us is not None and m.name != OURS}
        times |= {f"{name} (recorded)": us for name, us in self.recorded.items()}
        return min(times.items(), key=lambda item: item[1]) if times else None

    @property
    def best_rival_name(self) -> str:
        return self.best_rival[0] if self.best_rival else ""

    @property
    def fraction(self) -> float | None:
        ours = self.us(OURS)
        return None if ours is None else self.bound_us / ours

    @property
    def speedup(self) -> float | None:
        ours, rival = self.us(OURS), self.best_rival
        return None if ours is None or rival is None else rival[1] / ours


def recorded(model: str, num_tokens: int) -> dict[str, float]:
    """Recorded times of rivals on an H200, in microseconds."""
    with PEERS.open() as lines:
        rows = [r for r in csv.DictReader(lines) if (r["model"], int(r["tokens"])) == (model, num_tokens)]
    return {r["peer"]: float(r["us"]) for r in rows if r["us"].replace(".", "", 1).isdigit()}


def environment(commit: str | None) -> dict[str, Any]:
    """What the numbers depend on."""
    import moe_jit

    gpu = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    return {
        "gpu": gpu.name,
        "multiprocessors": gpu.multi_processor_count,
        "driver": _output(query),
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "moe_jit": moe_jit.__version__,
        "commit": commit or _output(["git", "-C", str(PEERS.parent), "rev-parse", "--short", "HEAD"]),
    }


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write_report(directory: Path, points: list[Point], facts: dict[str, Any]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "environment.json").write_text(json.dumps(facts, indent=2) + "\n")
    _write_csv(directory / "table.csv", points)
    for routing in dict.fromkeys(p.routing for p in points):
        name = "plot.png" if routing == "uniform" else f"plot-{routing}.png"
        _plot(directory / name, [p for p in points if p.routing == routing])


def _write_csv(path: Path, points: list[Point]) -> None:
    with path.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        head = ("model", "tokens", "routing", "local_experts", "bound_us", "routed_bound_us")
        writer.writerow((*head, "name", "source", "us", "relative_l2", "problem", "config"))
        for p in points:
            bounds = (f"{p.bound_us:.2f}", f"{p.routed_bound_us:.2f}")
            start = (p.model, p.num_tokens, p.routing, p.num_local, *bounds)
            for m in p.measurements:
                us = "" if m.us is None else f"{m.us:.2f}"
                error = "" if m.relative_l2 is None else f"{m.relative_l2:.4f}"
                writer.writerow((*start, m.name, "measured", us, error, m.problem, m.config))
            for name, recorded_us in p.recorded.items():
                writer.writerow((*start, name, "recorded", f"{recorded_us:.2f}", "", "", ""))


def print_report(points: list[Point]) -> None:
    console = Console(width=150)
    console.print(_table(points))
    console.print(_summary([p for p in points if p.routing == "uniform"]))
    for line in _cliffs(points):
        console.print(line)


def _table(points: list[Point]) -> Table:
    names = dict.fromkeys(m.name for p in points for m in p.measurements if m.name != OURS)
    right = ("tokens", "bound us", "moe_jit us", "of bound", *names, "recorded", "best rival / ours")
    table = Table("model", "routing")
    for column in right:
        table.add_column(column, justify="right")
    for p in points:
        best_recorded = min(p.recorded.values(), default=None)
        cells = [_number(p.bound_us), _number(p.us(OURS)), _number(p.fraction, 2)]
        cells += [_number(p.us(name)) for name in names]
        table.add_row(
            p.model, p.routing, str(p.num_tokens), *cells, _number(best_recorded), _number(p.speedup, 2)
        )
    return table


def _summary(points: list[Point]) -> Table:
    table = Table("tokens", "points", "of bound, geomean", "rival / ours, geomean", "worst rival / ours")
    for low, high in REGIMES:
        inside = [p for p in points if low <= p.num_tokens <= high]
        fractions = [p.fraction for p in inside if p.fraction is not None]
        compared = [(p.speedup, f"{p.label}: {p.best_rival_name}") for p in inside if p.speedup is not None]
        worst = min(compared, default=None)
        table.add_row(
            f"{low}-{high}",
            str(len(inside)),
            _number(_geomean(fractions), 3),
            _number(_geomean(speedup for speedup, _ in compared), 3),
            f"{worst[0]:.2f} {worst[1]}" if worst else "",
        )
    return table


def _cliffs(points: list[Point]) -> list[str]:
    """Worst loss of bound fraction under skewed routing, relative to uniform routing."""
    uniform = {(p.model, p.num_tokens): p for p in points if p.routing == "uniform"}
    lines = []
    for routing in dict.fromkeys(p.routing for p in points if p.routing != "uniform"):
        losses = []
        for p in points:
            base = uniform.get((p.model, p.num_tokens))
            before = base.us(OURS) if base else None
            if p.routing == routing and base and before and p.fraction:
                losses.append((base.routed_bound_us / before / p.fraction, p.label))
        if losses:
            loss, label = max(losses)
            lines.append(f"{routing}: time over bound is at most {loss:.2f} x that of uniform ({label})")
    return lines


def _plot(path: Path, points: list[Point]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    models = list(dict.fromkeys(p.model for p in points))
    columns = min(len(models), 3)
    rows = math.ceil(len(models) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(5 * columns, 4 * rows), squeeze=False)
    for axis in axes.flat[len(models) :]:
        axis.set_visible(False)
    for axis, model in zip(axes.flat, models, strict=False):
        mine = sorted((p for p in points if p.model == model), key=lambda p: p.num_tokens)
        for name in dict.fromkeys(m.name for p in mine for m in p.measurements):
            _curve(axis, [(p, p.us(name)) for p in mine], name, "o-" if name == OURS else ".-")
        for name in dict.fromkeys(n for p in mine for n in p.recorded):
            _curve(axis, [(p, p.recorded.get(name)) for p in mine], f"{name} (recorded)", ":")
        axis.axhline(1, color="black", linewidth=1)
        axis.set(title=model, xlabel="tokens", ylabel="bound / time", ylim=(0, 1.1))
        axis.set_xscale("log", base=2)
        axis.grid(True, alpha=0.3)
    axes.flat[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curve(axis: Any, pairs: list[tuple[Point, float | None]], name: str, style: str) -> None:
    known = [(p.num_tokens, p.bound_us / us) for p, us in pairs if us is not None]
    axis.plot([x for x, _ in known], [y for _, y in known], style, label=name, linewidth=1.2, markersize=4)


def _geomean(values: Iterable[float]) -> float | None:
    logs = [math.log(v) for v in values]
    return math.exp(sum(logs) / len(logs)) if logs else None


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"
