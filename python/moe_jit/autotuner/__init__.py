"""Chooses tactics by measurement: per layer shape and bucket of num_tokens, kept in a file."""

from .choice import Choice, choose, generation
from .context import autotune
from .cuda_runner import CudaRunner

__all__ = ["Choice", "CudaRunner", "autotune", "choose", "generation"]
