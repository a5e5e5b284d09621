"""A device whose times are a formula: what the tuner measures on it is known."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from moe_jit.plan import Tactic

Times = Callable[[int, Tactic], float]


class FakeDevice:
    """A Runner. Measuring advances ``now`` (seconds) by ``calls_per_measurement`` calls."""

    def __init__(self, microseconds: Times, noise: float = 0.0, seed: int = 0) -> None:
        self._microseconds, self._noise = microseconds, noise
        self._random = random.Random(seed)
        self.calls_per_measurement = 100
        self.now = 0.0
        self.measured: Counter[tuple[int, Tactic]] = Counter()
        self.compiled: set[tuple[int, Tactic]] = set()
        self.open_bucket: int | None = None

    def clock(self) -> float:
        return self.now

    def compile(self, choices: Mapping[int, Sequence[Tactic]]) -> None:
        self.compiled |= {(bucket, tactic) for bucket, tactics in choices.items() for tactic in tactics}

    @contextmanager
    def at(self, num_tokens: int) -> Iterator[Callable[[Tactic], float]]:
        assert self.open_bucket is None, "two buckets at once"
        self.open_bucket = num_tokens

        def measure(tactic: Tactic) -> float:
            assert self.open_bucket == num_tokens, "measured outside its context"
            self.measured[num_tokens, tactic] += 1
            exact = self._microseconds(num_tokens, tactic)
            self.now += exact * self.calls_per_measurement * 1e-6
            return exact * (1 + self._noise * self._random.gauss(0, 1))

        try:
            yield measure
        finally:
            self.open_bucket = None


def prefers(tile_tokens: int, gain: float = 0.2) -> Times:
    """One tile is faster than all others by ``gain``; times grow with the tokens."""
    return lambda num_tokens, tactic: (20 + num_tokens) * (1 - gain * (tactic.tile_tokens == tile_tokens))
