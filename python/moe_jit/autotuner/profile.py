"""Measure the candidate tactics of one layer shape, bucket by bucket, within a time budget."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass
from typing import Generic, Protocol, TypeVar

from .progress import Progress
from .ranks import Ranks
from .search import Outcome, fastest
from .subject import T, Tactic
from .table import Measurement

logger = logging.getLogger("moe_jit.autotuner")

Accepted = TypeVar("Accepted", bound=Tactic, contravariant=True)


class Runner(Protocol[Accepted]):
    """Runs one layer on its device: all that measuring needs of a device."""

    def compile(self, choices: Mapping[int, Sequence[Accepted]]) -> None:
        """Make the tactics of each bucket ready to run, as far as possible."""

    def at(self, num_tokens: int) -> AbstractContextManager[Callable[[Accepted], float]]:
        """A function, valid inside the context, that measures one call with a tactic, in microseconds."""


@dataclass(frozen=True)
class Settings:
    """How to measure: see ``autotune``."""

    max_seconds: float = 60.0
    skew: float = 0.0
    min_gain: float = 0.02


@dataclass(frozen=True)
class Profiler(Generic[T]):
    """All ranks see the same times and so take the same decisions. The clock counts seconds."""

    settings: Settings
    runner: Runner[T]
    ranks: Ranks
    clock: Callable[[], float] = time.monotonic

    def profile(
        self, candidates: Callable[[int], Sequence[T]], buckets: Sequence[int], progress: Progress
    ) -> Iterator[tuple[int, Measurement]]:
        """Each bucket with its measurement, as soon as there is one; without those that failed."""
        choices = {bucket: candidates(bucket) for bucket in buckets}
        self._compile(choices)
        end = self.clock() + self.settings.max_seconds
        progress.start(len(buckets))
        for number, bucket in enumerate(buckets):
            now = self.clock()
            if self.ranks.maximum([now - end])[0] >= 0:
                self._report_end(buckets[number:])
                return
            deadline = now + (end - now) / (len(buckets) - number)
            outcome = self._compare(bucket, choices[bucket], deadline)
            progress.advance()
            if outcome is not None:
                yield bucket, self._measurement(outcome, choices[bucket][0])

    def _compile(self, choices: Mapping[int, Sequence[T]]) -> None:
        """It does not count against the budget, which starts when the slowest rank is done."""
        try:
            self.runner.compile(choices)
        except Exception as error:
            logger.warning("compiling the tactics to measure failed, those that exist remain: %s", error)
        self.ranks.maximum([0.0])

    def _report_end(self, rest: Sequence[int]) -> None:
        missing = ", ".join(map(str, rest))
        logger.warning("tuning stopped after %g s, without num_tokens %s", self.settings.max_seconds, missing)

    def _measurement(self, outcome: Outcome[T], default: T) -> Measurement:
        return Measurement(
            tactic=asdict(outcome.tactic),
            default=asdict(default),
            microseconds=round(outcome.microseconds, 3),
            default_microseconds=round(outcome.default_microseconds, 3),
            skew=self.settings.skew,
        )

    def _compare(self, bucket: int, tactics: Sequence[T], deadline: float) -> Outcome[T] | None:
        with ExitStack() as stack:
            time_one: Callable[[T], float]
            try:
                time_one = stack.enter_context(self.runner.at(bucket))
            except Exception as error:
                logger.warning("no inputs for tuning with %d tokens: %s", bucket, error)
                time_one = _unavailable

            def measure(order: Sequence[T]) -> tuple[list[float], bool]:
                times = [_time_or_inf(time_one, tactic, bucket) for tactic in order]
                *agreed, late = self.ranks.maximum([*times, float(self.clock() >= deadline)])
                return agreed, late > 0

            return fastest(tactics, measure, self.settings.min_gain)


def _unavailable(tactic: Tactic) -> float:
    return math.inf


def _time_or_inf(time_one: Callable[[T], float], tactic: T, bucket: int) -> float:
    try:
        return time_one(tactic)
    except Exception as error:
        logger.warning("%s with %d tokens is not considered, it failed: %s", tactic, bucket, error)
        return math.inf
