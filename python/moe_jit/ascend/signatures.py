"""Calls of which everything but the tensors' contents was seen before: checks and plans are not repeated.

A signature is a hashable description of a call; a plan is what follows from it. Plans hold no tensors.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, TypeVar

Plan = TypeVar("Plan")

MAX_PLANS = 4096
INVALID_CALL = (AttributeError, TypeError, RuntimeError)  # what describing a call that is not valid may raise


def described(tensors: Iterable[Any], alignment: int = 16) -> Hashable:
    """All metadata of each tensor (or None). Alignment counts because some kernels copy in vectors."""
    return tuple(
        [
            None if t is None else (t.shape, t.stride(), t.dtype, t.device, t.data_ptr() % alignment)
            for t in tensors
        ]
    )


def typed(values: Iterable[Any]) -> Hashable:
    """Types are part of a signature because True == 1 == 1.0."""
    scalars = tuple(values)
    return scalars, tuple(map(type, scalars))


def remember(plans: dict[Hashable, Plan], signature: Hashable, plan: Plan) -> None:
    if len(plans) >= MAX_PLANS:
        plans.clear()
    plans[signature] = plan


def same_tensors(passed: Iterable[Any], given: Iterable[Any]) -> bool:
    """Whether checks passed on the tensors (or None) that they were given, and no copies or views."""
    return all(one is other for one, other in zip(passed, given, strict=True))
