"""Measuring a layer shape: every bucket, within the budget, whatever fails."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fake_device import FakeDevice, Times, prefers
from shapes import problem

from moe_jit.autotuner.buckets import buckets
from moe_jit.autotuner.profile import Profiler, Settings
from moe_jit.autotuner.progress import Progress
from moe_jit.autotuner.ranks import Ranks
from moe_jit.autotuner.search import MIN_ROUNDS
from moe_jit.autotuner.table import Measurement
from moe_jit.plan import Tactic, candidates

EVERY = buckets(8192)


def at_bucket(num_tokens: int) -> tuple[Tactic, ...]:
    return candidates(problem(num_tokens=num_tokens))


def tiles_at(num_tokens: int) -> list[int]:
    return [tactic.tile_tokens for tactic in candidates(problem(num_tokens=num_tokens))]


def run(device: FakeDevice, settings: Settings | None = None) -> dict[int, Measurement]:
    profiler = Profiler(settings or Settings(), device, Ranks(None), device.clock)
    with Progress("test") as progress:
        return dict(profiler.profile(at_bucket, EVERY, progress))


def test_every_bucket_gets_its_best_candidate() -> None:
    device = FakeDevice(prefers(16), noise=0.01)
    found = run(device)
    assert tuple(found) == EVERY
    for bucket, measurement in found.items():
        tactics = candidates(problem(num_tokens=bucket))
        expected = Tactic(16) if Tactic(16) in tactics else tactics[0]
        assert measurement.tactic == {"tile_tokens": expected.tile_tokens}
        assert measurement.default == {"tile_tokens": tactics[0].tile_tokens}
        assert measurement.microseconds <= measurement.default_microseconds
    assert device.compiled == {(b, t) for b in EVERY for t in candidates(problem(num_tokens=b))}
    assert {m.tactic["tile_tokens"] for m in found.values()} > {16}


def test_results_are_times_of_the_device() -> None:
    default, other = tiles_at(1)[:2]
    found = run(FakeDevice(prefers(default, gain=0.5)))[1]
    assert (found.microseconds, found.default_microseconds) == (10.5, 10.5)
    found = run(FakeDevice(prefers(other, gain=0.5)))[1]
    assert (found.microseconds, found.default_microseconds) == (10.5, 21.0)


def test_the_skew_is_recorded() -> None:
    assert run(FakeDevice(prefers(16)), Settings(skew=0.75))[64].skew == 0.75


@pytest.mark.parametrize("max_seconds", [1.0, 5.0])
def test_the_budget_is_kept_and_small_buckets_come_first(
    max_seconds: float, caplog: pytest.LogCaptureFixture
) -> None:
    device = FakeDevice(prefers(16))
    device.calls_per_measurement = 1000
    found = run(device, Settings(max_seconds=max_seconds))
    longest = MIN_ROUNDS + 1  # rounds of three candidates in the bucket in which time runs out
    assert device.now <= max_seconds + longest * 3 * 8212e-6 * 1000
    assert tuple(found) == EVERY[: len(found)]
    if len(found) < len(EVERY):
        rest = f"without num_tokens {EVERY[len(found)]}"
        assert f"tuning stopped after {max_seconds:g} s, {rest}" in caplog.text


def test_without_a_budget_nothing_is_measured() -> None:
    device = FakeDevice(prefers(16))
    assert run(device, Settings(max_seconds=0)) == {}
    assert not device.measured


def test_an_even_share_of_the_budget_is_left_for_later_buckets() -> None:
    """The first buckets must not use up what the last ones need."""
    device = FakeDevice(lambda num_tokens, tactic: 100.0)
    device.calls_per_measurement = 10_000
    found = run(device, Settings(max_seconds=21 * 3 * 8.0))
    assert len(found) == len(EVERY)


def _failing(exact: Times, fails: set[tuple[int, int]]) -> Times:
    def times(num_tokens: int, tactic: Tactic) -> float:
        if (num_tokens, tactic.tile_tokens) in fails:
            raise RuntimeError("out of memory")
        return exact(num_tokens, tactic)

    return times


def test_failures_disqualify_and_are_reported(caplog: pytest.LogCaptureFixture) -> None:
    default, other = tiles_at(1)[:2]
    assert tiles_at(2) == tiles_at(4) == tiles_at(1)
    found = run(FakeDevice(_failing(prefers(other), {(1, other), (2, default)})))
    assert found[1].tactic == {"tile_tokens": default}
    assert 2 not in found, "its default failed"
    assert found[4].tactic == {"tile_tokens": other}
    reason = "with 1 tokens is not considered, it failed: out of memory"
    assert f"Tactic(tile_tokens={other}) {reason}" in caplog.text


def test_a_bucket_without_inputs_is_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device = FakeDevice(prefers(16))
    plain = device.at

    @contextmanager
    def at(num_tokens: int) -> Iterator[object]:
        if num_tokens == 4096:
            raise MemoryError("too many tokens")
        with plain(num_tokens) as measure:
            yield measure

    monkeypatch.setattr(device, "at", at)
    assert tuple(run(device)) == tuple(bucket for bucket in EVERY if bucket != 4096)
    assert "no inputs for tuning with 4096 tokens: too many tokens" in caplog.text


def test_what_does_not_compile_does_not_stop_the_rest(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(choices: object) -> None:
        raise RuntimeError("nvcc is not here")

    device = FakeDevice(_failing(prefers(16), {(bucket, 16) for bucket in EVERY}))
    monkeypatch.setattr(device, "compile", fail)
    assert len(run(device)) == len([b for b in EVERY if candidates(problem(num_tokens=b))[0] != Tactic(16)])
    assert "nvcc is not here" in caplog.text


def test_infinite_times_are_no_times() -> None:
    found = run(FakeDevice(lambda num_tokens, tactic: math.inf if tactic == Tactic(16) else 5.0))
    assert all(measurement.microseconds == 5.0 for measurement in found.values())


def test_progress_tells_how_long_it_took(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "moe_jit.autotuner"):
        run(FakeDevice(prefers(16)))
    assert "tuning test at 21 buckets of num_tokens" in caplog.text
    assert "tuned test at 21 buckets in" in caplog.text
