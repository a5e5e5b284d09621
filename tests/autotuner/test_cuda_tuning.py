"""The tuner on a GPU: its times, its speed, and what it must not touch."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.calls import call, call_unfinalised, reference_for
from support.problems import Layer, Routing
from support.setup import Setup

import moe_jit
from moe_jit import fused_moe
from moe_jit.autotuner import CudaRunner, state
from moe_jit.autotuner.buckets import buckets
from moe_jit.plan import Tactic, candidates
from moe_jit.reference import compare_output
from moe_jit.validate import Arguments, validate

pytestmark = pytest.mark.cuda

SMALL = {"tune_max_num_tokens": 256}

needs_the_gpu_alone = pytest.mark.skipif(
    "PYTEST_XDIST_WORKER" in os.environ, reason="times mean nothing while other workers use the GPU"
)


@pytest.fixture
def setup() -> Setup:
    return Setup("cuda")


def large_layer(setup: Setup) -> Layer:
    """Qwen3-30B-A3B: 0.6 GB of weights."""
    return setup.layer(128, 2048, 768)


def arguments_of(run: Callable[[], Any]) -> Arguments:
    """The arguments that reach the launcher when ``run`` calls the public function."""
    seen: list[Arguments] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_moe, "_run", lambda args: seen.append(args))
        run()
    return seen[0]


def runner_for(layer: Layer, hidden: torch.Tensor, routing: Routing, skew: float = 0.0) -> CudaRunner:
    args = arguments_of(lambda: call(layer, hidden, routing, poison=False))
    return fused_moe._runner(validate(args), args, skew)


def wall_us(setup: Setup, layer: Layer, tactic: Tactic, num_tokens: int) -> float:
    """Another way to time a call: eager, back to back, with events, fresh tokens every time."""
    inputs = [(setup.hidden(num_tokens, layer), setup.routing(num_tokens, 128, top_k=8)) for _ in range(8)]
    bound = []
    for hidden, routing in inputs:
        args = arguments_of(lambda hidden=hidden, routing=routing: call(layer, hidden, routing, poison=False))
        launcher = fused_moe._Launcher.prepare(args, tactic)
        bound.append((launcher, args))
    times = []
    for _ in range(12):
        torch.cuda._sleep(2_000_000)  # so that the queue never runs empty
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for launcher, args in bound:
            launcher(args)
        end.record()
        end.synchronize()
        times.append(1e3 * start.elapsed_time(end) / len(bound))
    return statistics.median(times)


@needs_the_gpu_alone
@pytest.mark.parametrize("num_tokens", [1, 64, 2048])
def test_times_agree_with_events_around_eager_calls(setup: Setup, num_tokens: int) -> None:
    layer = large_layer(setup)
    runner = runner_for(layer, setup.hidden(16, layer), setup.routing(16, 128, top_k=8))
    problem = replace(runner._problem, num_tokens=num_tokens)
    with runner.at(num_tokens) as measure:
        for tactic in candidates(problem):
            measured = statistics.median(measure(tactic) for _ in range(5))
            expected = wall_us(setup, layer, tactic, num_tokens)
            assert measured == pytest.approx(expected, rel=0.35, abs=6.0), tactic


@needs_the_gpu_alone
def test_repeated_measurements_agree(setup: Setup) -> None:
    layer = large_layer(setup)
    runner = runner_for(layer, setup.hidden(16, layer), setup.routing(16, 128, top_k=8))
    for num_tokens in (1, 128):
        with runner.at(num_tokens) as measure:
            times = [
                measure(candidates(replace(runner._problem, num_tokens=num_tokens))[0]) for _ in range(10)
            ]
        spread = statistics.stdev(times) / statistics.mean(times)
        assert spread < 0.03, times


def test_the_cache_is_cold(setup: Setup) -> None:
    """Weights that fit the L2 cache cannot be read faster than memory delivers them."""
    layer = setup.layer(4, 2048, 768)  # 19 MB, all read by 64 tokens
    runner = runner_for(layer, setup.hidden(64, layer), setup.routing(64, 4, top_k=2))
    with runner.at(64) as measure:
        best = min(measure(candidates(replace(runner._problem, num_tokens=64))[0]) for _ in range(5))
    size = layer.gemm1.nbytes + layer.gemm2.nbytes
    assert size / (best * 1e-6) < 4.8e12


@needs_the_gpu_alone
def test_skewed_routing_changes_the_work(setup: Setup) -> None:
    """With strong skew few experts are hit, so that fewer weights are read."""
    layer = large_layer(setup)
    inputs = setup.hidden(16, layer), setup.routing(16, 128, top_k=8)
    times = []
    for skew in (0.0, 4.0):
        runner = runner_for(layer, *inputs, skew=skew)
        tactic = candidates(replace(runner._problem, num_tokens=64))[0]
        with runner.at(64) as measure:
            times.append(statistics.median(measure(tactic) for _ in range(5)))
    assert times[1] < 0.7 * times[0], times


def test_tuned_calls_are_right_and_write_only_their_own_results(setup: Setup, tmp_path: Path) -> None:
    layer, num_tokens = setup.layer(16, 256, 128), 40
    hidden, routing = setup.hidden(num_tokens, layer), setup.routing(num_tokens, 16, top_k=4)
    output = torch.full((num_tokens, 256), 7.0, dtype=torch.bfloat16, device="cuda")
    replay = torch.full((num_tokens, 4), -7, dtype=torch.int16, device="cuda")
    written = []
    original = fused_moe._Launcher.__call__

    def spy(launcher: Any, args: Arguments) -> Any:
        written.append((args.output is output, args.routing_replay_out is replay))
        return original(launcher, args)

    torch.cuda.manual_seed(5)
    random_state = torch.cuda.get_rng_state()
    with pytest.MonkeyPatch.context() as patch, moe_jit.autotune(tmp_path / "tactics.json"):
        patch.setattr(fused_moe._Launcher, "__call__", spy)
        call(layer, hidden, routing, poison=False, output=output, routing_replay_out=replay, **SMALL)
    assert len(written) > 10
    assert written.count((True, True)) == 1
    assert set(written) == {(True, True), (False, False)}
    assert torch.equal(torch.cuda.get_rng_state(), random_state)
    compare_output(output, reference_for(layer, hidden, routing)).check(f"seed {setup.seed}")
    assert torch.equal(replay.long(), call_unfinalised(layer, hidden, routing, **SMALL).ids)
    (saved,) = json.loads((tmp_path / "tactics.json").read_text())["layers"]
    assert [int(bucket) for bucket in saved["buckets"]] == list(buckets(256))
    assert saved["key"]["gpu"] == torch.cuda.get_device_name()


def test_every_candidate_computes_the_same_layer(setup: Setup) -> None:
    layer = setup.layer(16, 256, 128)
    for num_tokens in (1, 40, 700):
        hidden, routing = setup.hidden(num_tokens, layer), setup.routing(num_tokens, 16, top_k=4)
        reference = reference_for(layer, hidden, routing)
        args = arguments_of(lambda h=hidden, r=routing: call(layer, h, r, poison=False))
        for tactic in candidates(validate(args)):
            result = fused_moe._Launcher.prepare(args, tactic)(args)
            assert isinstance(result, torch.Tensor)
            compare_output(result, reference).check(f"seed {setup.seed} {num_tokens} {tactic}")


@pytest.mark.parametrize("do_finalize", [True, False])
def test_a_capture_uses_what_was_tuned(setup: Setup, do_finalize: bool) -> None:
    layer = setup.layer(16, 256, 128)
    hidden, routing = setup.hidden(8, layer), setup.routing(8, 16, top_k=4)
    with moe_jit.autotune():
        expected = call(layer, hidden, routing, poison=False, **SMALL)
        layers = dict(state.STATE.table.layers)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = call(layer, hidden, routing, poison=False, do_finalize=do_finalize, **SMALL)
    graph.replay()
    assert dict(state.STATE.table.layers) == layers
    if do_finalize:
        assert torch.equal(captured, expected)


def test_a_capture_of_an_untuned_layer_stays_intact(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    layer = setup.layer(16, 256, 128)
    hidden, routing = setup.hidden(8, layer), setup.routing(8, 16, top_k=4)
    expected = call(layer, hidden, routing, poison=False, **SMALL)
    with moe_jit.autotune():
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = call(layer, hidden, routing, poison=False, **SMALL)
        assert not state.STATE.table
        assert caplog.text.count("cannot be inside a graph capture") == 1
        call(layer, hidden, routing, poison=False, **SMALL)
        assert state.STATE.table
    graph.replay()
    assert torch.equal(captured, expected)


def test_tuning_frees_what_it_used(setup: Setup) -> None:
    layer = setup.layer(16, 256, 128)
    hidden, routing = setup.hidden(8, layer), setup.routing(8, 16, top_k=4)
    call(layer, hidden, routing, poison=False)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    with moe_jit.autotune():
        call(layer, hidden, routing, poison=False)
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() - before < 1 << 20


def test_a_layer_is_tuned_within_the_budget(setup: Setup, record_property: Callable[..., None]) -> None:
    """All buckets up to 8192, compiled before; and no bucket is slower than its default."""
    layer = large_layer(setup)
    hidden, routing = setup.hidden(16, layer), setup.routing(16, 128, top_k=8)
    with moe_jit.autotune(max_seconds=0):
        call(layer, hidden, routing, poison=False)  # compiles
    start = time.monotonic()
    with moe_jit.autotune():
        call(layer, hidden, routing, poison=False)
    seconds = time.monotonic() - start
    record_property("seconds", seconds)
    (measured,) = state.STATE.table.layers.values()
    assert set(measured) == set(buckets(8192))
    assert seconds < 60
    for bucket, found in sorted(measured.items()):
        print(bucket, found.default, found.default_microseconds, found.tactic, found.microseconds)
        assert found.microseconds <= found.default_microseconds
