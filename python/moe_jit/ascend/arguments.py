"""Checks that several operators share. Each error names the argument, what is expected and what was given."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from moe_jit import checks
from moe_jit.checks import Dim, reject, reject_type


def tensor(
    name: str,
    value: object,
    dtypes: Sequence[torch.dtype],
    device: torch.device | None = None,
    owner: str = "x",
) -> torch.Tensor:
    """A dense tensor of one of ``dtypes``, on ``device`` (that of ``owner``) unless that is None."""
    checks.is_tensor(name, value)
    assert isinstance(value, torch.Tensor)
    checks.dense(name, value)
    checks.dtype(name, value, dtypes)
    if device is not None:
        checks.same_device(name, value, device, owner)
    return value


def shaped(name: str, value: torch.Tensor, *alternatives: Sequence[Dim]) -> torch.Tensor:
    """``value`` if its shape is one of ``alternatives``."""

    def fits(dims: Sequence[Dim]) -> bool:
        return value.dim() == len(dims) and all(
            dim.accepts(size) for dim, size in zip(dims, value.shape, strict=True)
        )

    if not any(map(fits, alternatives)):
        expected = " or ".join(f"({', '.join(map(str, dims))})" for dims in alternatives)
        reject(name, f"of shape {expected}", f"shape {tuple(value.shape)}")
    return value


def absent(name: str, value: object, why: str) -> None:
    if value is not None:
        given = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else value
        reject(name, f"None ({why})", given)


def all_equal(values: Sequence[int]) -> bool:
    """Also for symbolic sizes, which a set does not take."""
    return all(value == values[0] for value in values)


def optional_dtype(name: str, value: object) -> torch.dtype | None:
    if value is not None and not isinstance(value, torch.dtype):
        reject_type(name, "a torch.dtype or None", value)
    return value


def one_of(name: str, value: object, choices: Sequence[int], why: str = "") -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        reject_type(name, "an int", value)
    if value not in choices:
        reject(name, " or ".join(map(str, choices)) + (f" ({why})" if why else ""), value)
    return int(value)
