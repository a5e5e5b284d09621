"""Chooses tactics by measurement: per layer shape and bucket of num_tokens, kept in a file."""

from .choice import Choice, choose, generation, tuned
from .context import autotune
from .cuda_runner import CudaRunner
from .key import Key, own_kernels
from .subject import Subject

__all__ = [
    "Choice",
    "CudaRunner",
    "Key",
    "Subject",
    "autotune",
    "choose",
    "generation",
    "own_kernels",
    "tuned",
]
