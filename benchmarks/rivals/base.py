"""What the benchmark asks of an implementation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from inputs import Inputs
from layers import Layer


class Unavailable(Exception):
    """The implementation is not installed, or cannot run this layer; the message says why."""


class Rival(ABC):
    """One implementation, bound to one layer.

    Routing is given as ids and weights unless ``routes`` says that the implementation computes it from the
    logits inside the timed region.
    """

    name: ClassVar[str]
    weight_layout: ClassVar[str] = "w1_w3"
    routes: ClassVar[bool] = False

    @abstractmethod
    def __init__(self, layer: Layer) -> None:
        """Everything that happens once per layer. Raises Unavailable."""

    def tune(self, inputs: Sequence[Inputs]) -> str:
        """Choose what depends on the number of tokens, by timing; return a name for the choice."""
        return ""

    @abstractmethod
    def call(self, index: int, inputs: Inputs) -> torch.Tensor:
        """bf16 [T, H] of the layer with the weights of call ``index``."""
