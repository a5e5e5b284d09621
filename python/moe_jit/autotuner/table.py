"""Measurements by layer shape and bucket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .buckets import round_up
from .key import Key

Layer = Mapping[int, "Measurement"]


@dataclass(frozen=True)
class Measurement:
    """The choice for one bucket. Tactics are kept as plain values, so that other versions can carry them."""

    tactic: dict[str, Any]  # equal to ``default`` unless that was beaten
    default: dict[str, Any]
    microseconds: float  # of one call with ``tactic``
    default_microseconds: float
    skew: float  # of the routing it was measured under


class Table:
    """Readers need no lock: every change replaces the mappings that it concerns."""

    def __init__(self, layers: Mapping[Key, Layer] | None = None) -> None:
        self._layers: dict[Key, Layer] = dict(layers or {})

    def __bool__(self) -> bool:
        return bool(self._layers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self._layers == other._layers

    __hash__ = None  # type: ignore[assignment]

    @property
    def layers(self) -> Mapping[Key, Layer]:
        return self._layers

    def layer(self, key: Key) -> Layer:
        return self._layers.get(key, {})

    def find(self, key: Key, num_tokens: int) -> tuple[int, Measurement] | None:
        """The next bucket from ``num_tokens`` up, and its measurement.

        A list that ends at an odd number holds that number instead of a bucket; it serves what lies below it
        down to the previous bucket.
        """
        layer = self.layer(key)
        last = round_up(num_tokens)
        bucket = min((b for b in layer if num_tokens <= b <= last), default=None)
        return None if bucket is None else (bucket, layer[bucket])

    def update(self, key: Key, layer: Layer) -> None:
        """Add measurements; they replace those of the same buckets."""
        if layer:
            self._layers = {**self._layers, key: {**self.layer(key), **layer}}

    def merge(self, other: Table) -> None:
        for key, layer in other.layers.items():
            self.update(key, layer)
