"""Which tactic is fastest, from repeated noisy measurements. The default stays unless clearly beaten."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from .subject import T

MIN_ROUNDS = 5
MAX_ROUNDS = 12
_HOPELESS = 1.25  # times the default's time: measured no further
_NOISE_DEVIATIONS = 4.0  # of the mean gain

# One round: a time in microseconds for each tactic, infinite for one that failed; and whether time is short.
Measure = Callable[[Sequence[T]], tuple[list[float], bool]]


@dataclass(frozen=True)
class Outcome(Generic[T]):
    tactic: T
    microseconds: float
    default_microseconds: float


def beats(times: Sequence[float], default: Sequence[float], min_gain: float) -> bool:
    """Whether paired measurements are faster by more than ``min_gain`` (a ratio) and more than noise."""
    gains = [d - t for t, d in zip(times, default, strict=True)]
    noise = _NOISE_DEVIATIONS * statistics.stdev(gains) / math.sqrt(len(gains))
    return statistics.median(gains) > max(min_gain * statistics.median(default), noise)


def fastest(tactics: Sequence[T], measure: Measure[T], min_gain: float) -> Outcome[T] | None:
    """Compare ``tactics``, the default first; None if the default itself failed.

    The tactics of a round are measured one after the other, in alternating order, so that a drift of the
    clock rate meets all of them. The first round only warms up and drops what fails.
    """
    default = tactics[0]
    samples: dict[T, list[float]] = {tactic: [] for tactic in tactics}
    for number in range(MAX_ROUNDS + 1):
        order = list(samples)[:: -1 if number % 2 else 1]
        times, late = measure(order)
        for tactic, microseconds in zip(order, times, strict=True):
            if not math.isfinite(microseconds):
                del samples[tactic]
            elif number:
                samples[tactic].append(microseconds)
        if default not in samples:
            return None
        if number == 0:
            continue
        limit = _HOPELESS * statistics.median(samples[default])
        samples = {t: s for t, s in samples.items() if t == default or statistics.median(s) <= limit}
        if len(samples) == 1 or (late and number >= MIN_ROUNDS):
            break
    medians = {tactic: statistics.median(times) for tactic, times in samples.items()}
    best = min(medians, key=lambda tactic: medians[tactic])
    if best != default and not beats(samples[best], samples[default], min_gain):
        best = default
    return Outcome(best, medians[best], medians[default])
