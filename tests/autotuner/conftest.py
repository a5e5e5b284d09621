"""Every test starts from a tuner that knows nothing."""

from __future__ import annotations

import pytest

from moe_jit.autotuner import state


@pytest.fixture(autouse=True)
def fresh_tuner(monkeypatch: pytest.MonkeyPatch) -> state.State:
    monkeypatch.delenv("MOE_JIT_AUTOTUNE_CACHE", raising=False)
    monkeypatch.setattr(state, "STATE", state.State())
    return state.STATE
