"""Runs with one token tile instead of the one that the plan would choose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from moe_jit import fused_moe, plan


@contextmanager
def forced_tile(tile_tokens: int) -> Iterator[None]:
    """GPU calls inside use ``tile_tokens``, one of plan.TILE_TOKENS, whatever the problem."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "default_tile_tokens", lambda _: tile_tokens)
        patch.setattr(fused_moe, "_launchers", {})
        yield
