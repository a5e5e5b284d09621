"""The default stays unless it is clearly beaten."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import pytest

from moe_jit.autotuner.search import MAX_ROUNDS, MIN_ROUNDS, Measure, Outcome, fastest
from moe_jit.plan import Tactic

A, B, C = (Tactic(tile) for tile in (8, 16, 64))


class Scripted:
    """Rounds of times by tactic, with relative Gaussian noise and a drift from call to call."""

    def __init__(self, times: dict[Tactic, float], noise: float = 0.0, drift: float = 0.0, seed: int = 0):
        self._times, self._noise, self._drift = times, noise, drift
        self._random = random.Random(seed)
        self._calls = 0
        self.rounds: list[list[Tactic]] = []

    def __call__(self, order: Sequence[Tactic]) -> tuple[list[float], bool]:
        self.rounds.append(list(order))
        return [self._one(tactic) for tactic in order], False

    def _one(self, tactic: Tactic) -> float:
        self._calls += 1
        noise = 1 + self._noise * self._random.gauss(0, 1)
        return self._times[tactic] * noise * (1 + self._drift * self._calls)


def winner(measure: Measure, tactics: Sequence[Tactic] = (A, B, C), min_gain: float = 0.02) -> Tactic:
    outcome = fastest(tactics, measure, min_gain)
    assert outcome is not None
    return outcome.tactic


def test_a_clear_winner_replaces_the_default() -> None:
    assert fastest((A, B, C), Scripted({A: 100, B: 80, C: 90}), 0.02) == Outcome(B, 80, 100)


def test_the_default_stays_when_it_is_fastest() -> None:
    assert fastest((A, B, C), Scripted({A: 80, B: 81, C: 90}), 0.02) == Outcome(A, 80, 80)


@pytest.mark.parametrize(("gain", "expected"), [(0.015, A), (0.025, B)])
def test_a_gain_below_the_margin_changes_nothing(gain: float, expected: Tactic) -> None:
    assert winner(Scripted({A: 100, B: 100 * (1 - gain), C: 110})) == expected
    assert winner(Scripted({A: 100, B: 100 * (1 - gain), C: 110}), min_gain=0.0) == B


def _share_of_losses(make: Callable[[int], Scripted], runs: int = 400) -> float:
    return sum(winner(make(seed)) != A for seed in range(runs)) / runs


@pytest.mark.parametrize("noise", [0.005, 0.02, 0.05, 0.2])
def test_equal_tactics_keep_the_default_whatever_the_noise(noise: float) -> None:
    share = _share_of_losses(lambda seed: Scripted({A: 100, B: 100, C: 100}, noise, seed=seed))
    assert share <= 0.005


@pytest.mark.parametrize("noise", [0.005, 0.02, 0.1])
def test_a_slower_tactic_is_practically_never_chosen(noise: float) -> None:
    share = _share_of_losses(lambda seed: Scripted({A: 100, B: 103, C: 105}, noise, seed=seed))
    assert share <= 0.005


def test_a_faster_tactic_is_found_in_ordinary_noise() -> None:
    found = sum(winner(Scripted({A: 100, B: 90, C: 120}, 0.02, seed=seed)) == B for seed in range(200))
    assert found >= 198


@pytest.mark.parametrize("drift", [-0.01, 0.01])
def test_a_drifting_clock_favours_nobody(drift: float) -> None:
    """Each call takes 1 % more or less than the one before: equal tactics must look equal."""
    assert winner(Scripted({A: 100, B: 100, C: 100}, drift=drift)) == A


def test_rounds_alternate_their_order() -> None:
    measure = Scripted({A: 100, B: 95, C: 105})
    fastest((A, B, C), measure, 0.02)
    assert measure.rounds[0] == [A, B, C]
    assert measure.rounds[1] == [C, B, A]
    assert len(measure.rounds) == MAX_ROUNDS + 1


def test_a_failing_tactic_is_dropped_at_once() -> None:
    measure = Scripted({A: 100, B: math.inf, C: 90})
    assert winner(measure) == C
    assert sum(B in order for order in measure.rounds) == 1


def test_without_the_default_nothing_is_chosen() -> None:
    measure = Scripted({A: math.inf, B: 50, C: 50})
    assert fastest((A, B, C), measure, 0.02) is None
    assert len(measure.rounds) == 1


def test_a_default_that_fails_later_leaves_nothing_chosen() -> None:
    times = iter([100.0, 100.0, math.inf])

    def measure(order: Sequence[Tactic]) -> tuple[list[float], bool]:
        return [next(times) if tactic == A else 50.0 for tactic in order], False

    assert fastest((A, B), measure, 0.02) is None


def test_hopeless_tactics_cost_little() -> None:
    measure = Scripted({A: 100, B: 99, C: 1000})
    fastest((A, B, C), measure, 0.02)
    assert sum(C in order for order in measure.rounds) == 2
    assert sum(A in order for order in measure.rounds) == MAX_ROUNDS + 1


def test_the_end_of_time_is_respected_but_not_below_the_minimum() -> None:
    measure = Scripted({A: 100, B: 80})
    outcome = fastest((A, B), lambda order: (measure(order)[0], True), 0.02)
    assert outcome == Outcome(B, 80, 100)
    assert len(measure.rounds) == MIN_ROUNDS + 1


def test_a_single_tactic_is_measured_once_after_the_warm_up() -> None:
    measure = Scripted({A: 100})
    assert fastest((A,), measure, 0.02) == Outcome(A, 100, 100)
    assert len(measure.rounds) == 2
