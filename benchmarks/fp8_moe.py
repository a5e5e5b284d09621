"""Time the FP8 expert layer of real models against the physical bound and recorded rivals.

    python benchmarks/fp8_moe.py --models dsv3,qwen3-30b --tokens 1,16,128 --csv out.csv

Every call routes from logits and finalizes; the recorded rivals' times exclude routing.
"""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer
from layers import Layer, graph_time_us, make_inputs, make_layer
from models import MODELS
from rich.console import Console
from rich.table import Table

from moe_jit import plan

PEERS = Path(__file__).with_name("peers_h200.csv")


def calls_per_graph(num_tokens: int) -> int:
    return 16 if num_tokens <= 64 else 8 if num_tokens <= 512 else 4 if num_tokens <= 2048 else 2


def best_peers() -> dict[tuple[str, int], float]:
    """Fastest recorded rival per (model, num_tokens), in microseconds."""
    best: dict[tuple[str, int], float] = {}
    with PEERS.open() as lines:
        for row in csv.DictReader(lines):
            if row["us"].replace(".", "", 1).isdigit():
                key = row["model"], int(row["tokens"])
                best[key] = min(best.get(key, math.inf), float(row["us"]))
    return best


def time_layer(layer: Layer, num_tokens: int) -> float:
    inputs = [make_inputs(layer.model, num_tokens) for _ in range(calls_per_graph(num_tokens))]
    calls = [lambda i=i, x=x: layer.call(i, *x) for i, x in enumerate(inputs)]  # type: ignore[misc]
    return graph_time_us(calls, replays=20 if num_tokens <= 1024 else 7)


def main(
    models: Annotated[str, typer.Option(help="comma-separated names")] = ",".join(MODELS),
    tokens: Annotated[str, typer.Option(help="comma-separated token counts")] = "1,16,128,1024,8192",
    tile: Annotated[int | None, typer.Option(help="token tile to force")] = None,
    output: Annotated[Path | None, typer.Option("--csv", help="also write the rows here")] = None,
) -> None:
    if tile is not None:
        plan.default_tile_tokens = lambda _: tile
    peers = best_peers()
    rows = []
    for name in models.split(","):
        layer = make_layer(MODELS[name])
        for num_tokens in map(int, tokens.split(",")):
            us = time_layer(layer, num_tokens)
            bound = layer.model.bound_us(num_tokens)
            print(f"{name} {num_tokens} tokens: {us:.1f} us", file=sys.stderr, flush=True)
            rows.append((name, num_tokens, us, bound, peers.get((name, num_tokens))))
        del layer
        torch.cuda.empty_cache()
    table = Table("model", "tokens", "us", "bound us", "bound/us", "best rival us", "rival/us")
    for name, num_tokens, us, bound, peer in rows:
        rival = (f"{peer:.1f}", f"{peer / us:.2f}") if peer else ("", "")
        table.add_row(name, str(num_tokens), f"{us:.1f}", f"{bound:.1f}", f"{bound / us:.2f}", *rival)
    Console(width=100).print(table)
    if output:
        with output.open("w", newline="") as lines:
            writer = csv.writer(lines)
            writer.writerow(("model", "tokens", "us", "bound_us", "best_rival_us"))
            writer.writerows(rows)


if __name__ == "__main__":
    typer.run(main)
