"""Bounds and reports of the benchmark, which decide what its numbers mean."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("the benchmarks are not part of a source distribution", allow_module_level=True)


@pytest.fixture(autouse=True)
def _import_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


@pytest.fixture
def model():
    from models import Model

    return Model("small", hidden_size=1000, intermediate_size=100, num_experts=16, top_k=2)


def test_bound_counts_bytes_or_products(model):
    from models import FP8_FLOP_PER_S, READ_BYTES_PER_S

    assert model.expert_bytes == 300_000
    assert model.bound_us(1) == pytest.approx(1e6 * (2 * 300_000 + 3 * 1000) / READ_BYTES_PER_S)
    tokens = 10**6
    assert model.bound_us(tokens) == pytest.approx(1e6 * tokens * 2 * 2 * 300_000 / FP8_FLOP_PER_S)


def test_routed_bound_counts_local_experts_and_live_tokens(model):
    from models import READ_BYTES_PER_S

    ids = torch.tensor([[4, 9], [5, 4], [0, 15]])
    whole = 1e6 * (5 * 300_000 + 9 * 1000) / READ_BYTES_PER_S
    shard = 1e6 * (2 * 300_000 + (2 + 2 * 3) * 1000) / READ_BYTES_PER_S
    assert model.routed_bound_us(ids, 0, 16) == pytest.approx(whole)
    assert model.routed_bound_us(ids, 4, 4) == pytest.approx(shard)


def test_routed_bound_agrees_with_the_expectation_under_uniform_routing(model):
    samples = [torch.rand(20, 16).topk(2).indices for _ in range(300)]
    mean = sum(model.routed_bound_us(ids, 0, 16) for ids in samples) / len(samples)
    assert mean == pytest.approx(model.bound_us(20), rel=0.02)


def make_point(us, rival_us, *, tokens=1, routing="uniform", recorded=None):
    from report import OURS, Measurement, Point

    measurements = [
        Measurement(OURS, us, 0.001),
        Measurement("triton", rival_us, 0.01, config="16x64"),
        Measurement("torch_grouped_mm", None, problem="RuntimeError: no"),
    ]
    return Point("small", tokens, routing, 16, 8.0, 8.0, recorded or {}, measurements)


def test_fastest_rival_may_be_a_recorded_one():
    point = make_point(10.0, 15.0, recorded={"other": 12.0})
    assert point.fraction == pytest.approx(0.8)
    assert point.best_rival_name == "other (recorded)"
    assert point.speedup == pytest.approx(1.2)
    assert make_point(None, 15.0).speedup is None
    assert make_point(10.0, None).best_rival is None


def test_recorded_times_leave_out_failures():
    from report import recorded

    assert recorded("dsv3", 1)["vllm_triton"] == pytest.approx(93.11)
    assert recorded("dsv3", 3) == {}


def test_summary_names_the_worst_point_of_each_regime():
    from report import _summary

    table = _summary([make_point(10.0, 40.0), make_point(10.0, 10.0, tokens=2)])
    cells = [next(iter(column.cells)) for column in table.columns]
    assert cells == ["1-8", "2", "0.800", "2.000", "1.00 small T 2 uniform: triton"]


def test_cliff_is_relative_to_uniform_routing():
    from report import _cliffs

    lines = _cliffs([make_point(10.0, None), make_point(20.0, None, routing="hot")])
    assert lines == ["hot: time over bound is at most 2.00 x that of uniform (small T 1 hot)"]


def test_results_directory(tmp_path):
    pytest.importorskip("matplotlib")
    from report import write_report

    points = [make_point(10.0, 12.0, recorded={"other": 9.0}), make_point(10.0, 12.0, routing="zipf")]
    write_report(tmp_path, points, {"gpu": "some"})
    with (tmp_path / "table.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 7
    assert [r["problem"] for r in rows if r["name"] == "torch_grouped_mm"] == ["RuntimeError: no"] * 2
    assert [r["us"] for r in rows if r["source"] == "recorded"] == ["9.00"]
    assert json.loads((tmp_path / "environment.json").read_text()) == {"gpu": "some"}
    assert {p.name for p in tmp_path.glob("*.png")} == {"plot.png", "plot-zipf.png"}
