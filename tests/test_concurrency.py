"""First calls that come at the same time, from threads and from processes."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import torch
from support.calls import call
from support.setup import Setup

from moe_jit import fused_moe, jit
from moe_jit.jit import loader

THREADS = 8

PROGRAM = """
import sys, threading, torch
from moe_jit import jit
sys.path.insert(0, {tests!r})
from support.calls import call
from support.problems import generator
from support.setup import Setup

setup = Setup("cpu")
setup.gen = generator(5, "cpu")
layer, routing = setup.layer(), setup.routing(6)
hidden, results = setup.hidden(6, layer), []
threads = [
    threading.Thread(target=lambda: results.append(call(layer, hidden, routing, poison=False)))
    for _ in range(4)
]
print("ready", flush=True)
sys.stdin.readline()
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(results) == 4 and all(torch.equal(results[0], r) for r in results)
(record,) = jit.stats()
print(record.origin, results[0].double().sum().item())
"""


def run_together(target, count: int = THREADS) -> None:
    """Run ``target(index)`` in threads that start at one moment; an exception fails the test."""
    barrier, errors = threading.Barrier(count), []

    def run(index: int) -> None:
        barrier.wait()
        try:
            target(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors


def test_first_calls_from_threads(monkeypatch) -> None:
    """Every thread has its own shape; the module is loaded once."""
    setup = Setup("cpu")
    layer = setup.layer()
    problems = [(setup.hidden(tokens + 1, layer), setup.routing(tokens + 1)) for tokens in range(THREADS)]
    expected = [call(layer, hidden, routing) for hidden, routing in problems]
    for _ in range(20):
        monkeypatch.setattr(loader, "_modules", {})
        monkeypatch.setattr(loader, "_module_locks", {})
        fused_moe._launchers.clear()
        loaded = len(jit.stats())
        actual: dict[int, torch.Tensor] = {}

        def first_call(index: int, actual: dict[int, torch.Tensor] = actual) -> None:
            hidden, routing = problems[index]
            actual[index] = call(layer, hidden, routing, poison=False)

        run_together(first_call)
        assert all(torch.equal(actual[index], expected[index]) for index in range(THREADS))
        assert len(jit.stats()) - loaded == 1


def test_signature_table_may_be_cleared_by_another_thread(monkeypatch) -> None:
    monkeypatch.setattr(fused_moe, "_MAX_SIGNATURES", 3)
    setup = Setup("cpu")
    layer = setup.layer()
    problems = [(setup.hidden(tokens, layer), setup.routing(tokens)) for tokens in range(1, 8)]
    expected = [call(layer, hidden, routing) for hidden, routing in problems]

    def many_calls(index: int) -> None:
        for step in range(60):
            which = (index + step) % len(problems)
            hidden, routing = problems[which]
            assert torch.equal(call(layer, hidden, routing, poison=False), expected[which])

    run_together(many_calls)


def test_first_calls_from_processes_compile_once(cache_dir: Path) -> None:
    program = PROGRAM.format(tests=str(Path(__file__).parent))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    outputs = []
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    for worker in workers:
        output, _ = worker.communicate(timeout=300)
        assert worker.returncode == 0
        outputs.append(output.split())
    origins, sums = zip(*outputs, strict=True)
    assert sorted(origins) == ["built", "cache"]
    assert sums[0] == sums[1]
    assert len(list((cache_dir / "modules").iterdir())) == 1
