"""Time the operators with torch_npu's signatures on a GPU, beside what a user would take instead.

    python benchmarks/int_family.py
    python benchmarks/int_family.py --families a8w8,a16w4 --rows 1,16 --layouts transposed

Every result is checked against a float64 oracle. A call that cannot run is named with the reason. Bounds:
weights and rows move once at the rate of models.py, or the products run at a dense product's rate (8 bits: of
models.py; bf16: torch's in this run); for operators on rows, a copy of as many bytes in this run.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from int_depth import DepthProduct
from int_finalize import FinalizedProduct
from int_products import PRODUCTS
from int_workloads import Contender, DynamicRows, Roofs, SwigluRows, Workload, measure_roofs
from layers import graph_time_us
from report import Measurement, environment
from rich.console import Console
from rich.table import Table

# (groups, k, n): both products of a shard of 32 experts of DeepSeek-V3.
SHAPES = ((32, 7168, 4096), (32, 2048, 7168))
ROWS = "1,4,16,64,128,512"
SWIGLU_ROWS = (16, 256, 4096, 16384)
SWIGLU_WIDTHS = (4096, 3072, 1536)
GROUPED = (*PRODUCTS, DepthProduct, FinalizedProduct)
FAMILIES = (*(p.family for p in GROUPED), "dequant_swiglu_quant", "dynamic_quant")
MAX_PROBLEM_LENGTH = 110
RESULTS = Path(__file__).with_name("results")
HEAD = ("family", "shape", "name", "us", "bound_us", "fraction", "error", "problem")

Row = tuple[Workload, float, Measurement]


def workloads(families: list[str], rows: list[int], layouts: list[str]) -> Iterator[Callable[[], Workload]]:
    """Makers, so that only one workload's tensors live at a time."""
    if "dequant_swiglu_quant" in families:
        for dtype in (torch.int32, torch.bfloat16):
            for width in SWIGLU_WIDTHS:
                yield from (partial(SwigluRows, dtype, r, width) for r in SWIGLU_ROWS)
    if "dynamic_quant" in families:
        yield from (partial(DynamicRows, r, 7168) for r in SWIGLU_ROWS)
    for product in GROUPED:
        shapes = SHAPES[1:] if product is FinalizedProduct else SHAPES
        for layout in (name for name in product.layouts if name in layouts or len(product.layouts) == 1):
            for shape in shapes if product.family in families else ():
                weights = product(*shape, layout)
                yield from (partial(weights.with_rows, r) for r in rows)
                del weights


def measure(workload: Workload, contender: Contender) -> Measurement:
    """A failure is a result, too."""
    try:
        call = contender.make()
        error = workload.error(call(0)) if contender.has_result else None
        if error is not None and not error <= workload.tolerance:
            return Measurement(contender.name, None, error, f"wrong: deviates by {error:.2e}")
        calls = [lambda i=i: call(i) for i in range(workload.calls)]
        return Measurement(contender.name, graph_time_us(calls, replays=10), error)
    except Exception as failure:
        torch.cuda.synchronize()  # raises if the device is lost, which ends the run
        problem = f"{type(failure).__name__}: {failure}".splitlines()[0][:MAX_PROBLEM_LENGTH]
        return Measurement(contender.name, None, problem=problem)


def run(
    make: Callable[[], Workload], roofs: Roofs, results: list[Row], rival_rows: list[int] | None = None
) -> None:
    """Rivals only where the workload has one of ``rival_rows``."""
    workload = make()
    bound = workload.bound_us(roofs)
    for contender in workload.contenders():
        if contender.is_rival and rival_rows is not None and workload.rows not in rival_rows:
            continue
        result = measure(workload, contender)
        results.append((workload, bound, result))
        shown = result.problem if result.us is None else f"{result.us:.1f} us, {bound / result.us:.2f}"
        print(f"  {workload.family} {workload.label}: {result.name} {shown}", file=sys.stderr, flush=True)


def write_csv(path: Path, results: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(HEAD)
        for workload, bound, m in results:
            us, fraction = ("", "") if m.us is None else (f"{m.us:.2f}", f"{bound / m.us:.3f}")
            error = "" if m.relative_l2 is None else f"{m.relative_l2:.2e}"
            start = (workload.family, workload.label, m.name)
            writer.writerow((*start, us, f"{bound:.2f}", fraction, error, m.problem))


def print_table(results: list[Row], roofs: Roofs) -> None:
    rates = ", ".join(f"{name} {rate / 1e12:.2f}e12" for name, rate in roofs._asdict().items())
    table = Table("family", "shape", "implementation", title=f"rates per second: {rates}")
    for column in ("us", "bound us", "of bound", "time / ours"):
        table.add_column(column, justify="right")
    ours: float | None = None
    for index, (workload, bound, m) in enumerate(results):
        first = index == 0 or results[index - 1][0] is not workload
        ours = m.us if first else ours
        if m.us is None:
            cells = [m.problem, f"{bound:.1f}", "", ""]
        else:
            cells = [
                f"{m.us:.1f}",
                f"{bound:.1f}",
                f"{bound / m.us:.2f}",
                f"{m.us / ours:.2f}" if ours else "",
            ]
        table.add_row(*((workload.family, workload.label) if first else ("", "")), m.name, *cells)
    Console(width=170).print(table)


def main(
    families: Annotated[str, typer.Option(help="comma-separated names")] = ",".join(FAMILIES),
    rows: Annotated[str, typer.Option(help="comma-separated rows of each group")] = ROWS,
    rival_rows: Annotated[str | None, typer.Option(help="the rows that rivals are timed with")] = None,
    layouts: Annotated[str, typer.Option(help="of weights: transposed, nd")] = "transposed",
    commit: Annotated[str | None, typer.Option(help="revision to name where there is no git")] = None,
    out: Annotated[Path, typer.Option(help="directory of result directories")] = RESULTS,
) -> None:
    unknown = sorted(set(families.split(",")) - set(FAMILIES))
    if unknown:
        known = ", ".join(FAMILIES)
        raise typer.BadParameter(f"{', '.join(unknown)}; known are {known}", param_hint="--families")
    facts = environment(commit)
    gpu = facts["gpu"].removeprefix("NVIDIA ").replace(" ", "-").lower()
    directory = out / f"{date.today()}-{gpu}-{facts['commit']}-int"
    directory.mkdir(parents=True, exist_ok=True)
    roofs = measure_roofs()
    asked = {"families": families, "rows": rows, "rival_rows": rival_rows, "layouts": layouts}
    facts |= {"rates_per_second": roofs._asdict(), "asked": asked}
    (directory / "environment.json").write_text(json.dumps(facts, indent=2) + "\n")
    results: list[Row] = []
    try:
        only = None if rival_rows is None else list(map(int, rival_rows.split(",")))
        for make in workloads(families.split(","), list(map(int, rows.split(","))), layouts.split(",")):
            run(make, roofs, results, only)
            torch.cuda.empty_cache()
    finally:
        if results:
            write_csv(directory / "table.csv", results)
            print_table(results, roofs)
            print(f"results: {directory}")


if __name__ == "__main__":
    typer.run(main)
