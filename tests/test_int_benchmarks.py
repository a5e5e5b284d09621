"""What the benchmark of the int family reports, also for calls that fail or compute something else."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
if not BENCHMARKS.is_dir():
    pytest.skip("the benchmarks are not part of a source distribution", allow_module_level=True)
EXPECTED = torch.tensor([3.0, 4.0])


@pytest.fixture(autouse=True)
def _without_a_gpu(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    import int_family

    def run_once(calls, replays):
        for call in calls:
            call()
        return 20.0 * len(calls)

    monkeypatch.setattr(int_family, "graph_time_us", run_once)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)


def make_workload(*contenders):
    from int_workloads import Workload, relative_l2

    class Fixed(Workload):
        family, label, calls, tolerance = "family", "shape", 2, 0.01

        def bound_us(self, roofs):
            return 10.0

        def contenders(self):
            return list(contenders)

        def error(self, output):
            return relative_l2(output, EXPECTED.double())

    return Fixed()


def fail(index: int) -> torch.Tensor:
    raise ValueError("x must be on a device that npu_grouped_matmul supports (cpu), got cuda:0")


def test_failures_and_wrong_results_are_reported_by_name(tmp_path, capsys):
    from int_family import HEAD, print_table, run, write_csv
    from int_workloads import Contender, Roofs

    results = []
    workload = make_workload(
        Contender("ours", lambda: lambda index: EXPECTED),
        Contender("failing", lambda: fail),
        Contender("wrong", lambda: lambda index: EXPECTED * 1.1),
        Contender("other", lambda: lambda index: EXPECTED * 9, has_result=False),
    )
    roofs = Roofs(1e12, 2e15, 1e15)
    run(lambda: workload, roofs, results)
    write_csv(tmp_path / "new" / "table.csv", results)
    with (tmp_path / "new" / "table.csv").open() as lines:
        head, *rows = csv.reader(lines)
    assert tuple(head) == HEAD
    by_name = {row[2]: dict(zip(head, row, strict=True)) for row in rows}
    assert by_name["ours"]["us"] == "40.00"
    assert by_name["ours"]["fraction"] == "0.250"
    assert by_name["failing"]["us"] == ""
    assert "npu_grouped_matmul supports (cpu)" in by_name["failing"]["problem"]
    assert by_name["wrong"]["us"] == ""
    assert by_name["wrong"]["problem"] == "wrong: deviates by 1.00e-01"
    assert by_name["other"]["us"] == "40.00"
    assert by_name["other"]["error"] == ""
    print_table(results, roofs)
    assert "ValueError: x must be on" in capsys.readouterr().out


def test_a_result_that_is_not_a_number_is_wrong():
    from int_family import measure
    from int_workloads import Contender

    contender = Contender("nan", lambda: lambda index: EXPECTED * float("nan"))
    assert measure(make_workload(contender), contender).problem.startswith("wrong")


def test_products_count_operands_once():
    from int_products import Bf16Product, GroupedProduct, Int8Product
    from int_workloads import Roofs

    roofs = Roofs(1e12, 2e15, 1e15)
    for product, weight_bytes, x_bytes in ((Int8Product, 1, 1), (Bf16Product, 2, 2)):
        workload = object.__new__(product)
        assert isinstance(workload, GroupedProduct)
        workload.m, workload.k, workload.n = 30, 64, 128
        workload.bytes = 10 * 64 * 128 * weight_bytes + 30 * (64 * x_bytes + 128 * 2)
        assert workload.bound_us(roofs) == pytest.approx(workload.bytes / 1e6)
        workload.m = 10**9
        products = 2 * workload.m * 64 * 128
        assert workload.bound_us(roofs) == pytest.approx(1e6 * products / (2e15 if x_bytes == 1 else 1e15))
