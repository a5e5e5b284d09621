"""Checks of a single argument, from host metadata only. Each error names the argument, what is expected and
what was given; a wrong Python type raises TypeError, everything else ValueError."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import torch

_FLOAT32_OVERFLOW = 2**128 - 2**103  # magnitudes from here on round to infinity


class Dim(NamedTuple):
    """Expected size of one dimension, and the argument that determines it."""

    size: int
    source: str
    at_least: bool = False

    def accepts(self, size: int) -> bool:
        return size >= self.size if self.at_least else size == self.size

    def __str__(self) -> str:
        return f"{'>= ' if self.at_least else ''}{self.size} ({self.source})"


def reject(name: str, expected: str, given: object) -> NoReturn:
    raise ValueError(f"{name} must be {expected}, got {given}")


def reject_type(name: str, expected: str, value: object) -> NoReturn:
    given = "None" if value is None else f"{type(value).__name__} {value!r}"
    raise TypeError(f"{name} must be {expected}, got {given}")


def integer(name: str, value: object, low: int, high: int | None = None, why: str = "") -> int:
    """An int in [low, high]; ``why`` says where the bounds come from."""
    if isinstance(value, bool) or not isinstance(value, int):
        reject_type(name, "an int", value)
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"in [{low}, {high}]"
        reject(name, bounds + (f" ({why})" if why else ""), value)
    return int(value)


def optional_integer(name: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        reject_type(name, "an int or None", value)
    return int(value)


def multiple(name: str, value: int, divisor: int, why: str) -> None:
    if value % divisor:
        reject(name, f"a multiple of {divisor} ({why})", value)


def boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        reject_type(name, "a bool", value)
    return value


def optional_boolean(name: str, value: object) -> bool | None:
    if value is not None and not isinstance(value, bool):
        reject_type(name, "a bool or None", value)
    return value


def finite(name: str, value: object, *, expected: str = "a float") -> float:
    """A number whose nearest float32, in which kernels compute, is finite."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        reject_type(name, expected, value)
    if not abs(value) < _FLOAT32_OVERFLOW:
        reject(name, "finite in float32", value)
    return float(value)


def optional_finite(name: str, value: object) -> float | None:
    return None if value is None else finite(name, value, expected="a float or None")


def is_tensor(name: str, value: object, *, optional: bool = False) -> bool:
    """True for a tensor; False for None where that is allowed."""
    if isinstance(value, torch.Tensor):
        return True
    if value is None and optional:
        return False
    reject_type(name, "a torch.Tensor or None" if optional else "a torch.Tensor", value)


def dense(name: str, value: torch.Tensor) -> None:
    if value.layout is not torch.strided or value.is_nested:
        reject(name, "a dense (torch.strided) tensor", "a nested tensor" if value.is_nested else value.layout)


def dtype(name: str, value: torch.Tensor, dtypes: Sequence[torch.dtype]) -> None:
    if value.dtype not in dtypes:
        reject(name, "of dtype " + " or ".join(dict.fromkeys(map(str, dtypes))), value.dtype)


def storage(name: str, value: torch.Tensor, dtypes: Sequence[torch.dtype], ndim: int) -> None:
    """Layout, dtype, number of dimensions and contiguity."""
    dense(name, value)
    dtype(name, value, dtypes)
    if value.dim() != ndim:
        reject(name, f"{ndim}-dimensional", f"shape {tuple(value.shape)}")
    if not value.is_contiguous():
        reject(name, "contiguous (it is not copied implicitly)", f"strides {value.stride()}")


def shape(name: str, value: torch.Tensor, dims: Sequence[Dim]) -> None:
    if not all(dim.accepts(size) for dim, size in zip(dims, value.shape, strict=True)):
        reject(name, f"of shape ({', '.join(map(str, dims))})", f"shape {tuple(value.shape)}")


def same_device(name: str, value: torch.Tensor, device: torch.device, owner: str) -> None:
    if value.device != device:
        reject(name, f"on {device}, the device of {owner}", value.device)


def aligned(name: str, value: torch.Tensor, alignment: int) -> None:
    offset = value.data_ptr() % alignment
    if offset:
        reject(name, f"aligned to {alignment} bytes on a GPU", f"a data pointer {offset} bytes off")


def _byte_range(value: torch.Tensor) -> tuple[int, int]:
    start = value.data_ptr()
    return start, start + value.nbytes


def disjoint(name: str, value: torch.Tensor, other_name: str, other: torch.Tensor) -> None:
    """Contiguous tensors of one device must not share memory."""
    start, end = _byte_range(value)
    other_start, other_end = _byte_range(other)
    if start < other_end and other_start < end:
        reject(name, f"disjoint from {other_name}", f"memory that overlaps {other_name}")
