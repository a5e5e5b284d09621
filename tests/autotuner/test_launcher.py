"""The tuned tactic reaches the module that is launched; repeated calls pay nothing for it."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from typing import Any

import pytest
import torch
from fake_device import FakeDevice, prefers
from shapes import H200, problem
from support.calls import call
from support.setup import Setup

import moe_jit
from moe_jit import backends, fused_moe, jit
from moe_jit.autotuner import generation
from moe_jit.plan import candidates

DEFAULT, OTHER = (tactic.tile_tokens for tactic in candidates(problem(num_experts=8, top_k=2))[:2])


def _tile(spec: jit.ModuleSpec) -> int:
    (tile,) = (value for unit in spec.units for name, value in unit.defines if name == "MOE_JIT_TILE_TOKENS")
    return int(tile)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """CPU tensors pass for those of a GPU; the tiles of the modules that would have been launched."""
    tiles: list[int] = []

    def load(spec: jit.ModuleSpec) -> Callable[..., None]:
        return lambda *args: tiles.append(_tile(spec))

    monkeypatch.setattr(backends, "describe", lambda device, name="": H200)
    monkeypatch.setattr(backends, "load", load)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(fused_moe, "_launchers", {})
    return tiles


def _call_layer(num_tokens: int = 16) -> Callable[[], Any]:
    setup = Setup("cpu")
    layer = setup.layer()
    hidden, routing = setup.hidden(num_tokens, layer), setup.routing(num_tokens)
    return lambda: call(layer, hidden, routing, poison=False)


def test_a_call_runs_the_tuned_module(launched: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    bound: list[tuple[int, torch.Tensor | None]] = []

    class Runner(FakeDevice):
        def __init__(self, problem: Any, args: Any, bind: Any, skew: float) -> None:
            super().__init__(prefers(OTHER))
            for tactic in candidates(problem):
                before = len(launched)
                bind(args._replace(output=None), tactic)()
                bound.append((tactic.tile_tokens, launched[before]))
                del launched[before:]

    monkeypatch.setattr(fused_moe.autotuner, "CudaRunner", Runner)
    run = _call_layer()
    run()
    with moe_jit.autotune():
        run()
        run()
    run()
    assert launched == [DEFAULT, OTHER, OTHER, OTHER]
    assert bound
    assert all(asked == ran for asked, ran in bound), "the runner measures the tactic that it names"


def test_calls_are_prepared_again_only_when_something_changed(
    launched: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = []
    prepare = fused_moe._Launcher.prepare
    monkeypatch.setattr(fused_moe._Launcher, "prepare", lambda *args: (prepared.append(1), prepare(*args))[1])
    run = _call_layer()
    for _ in range(3):
        run()
    assert len(prepared) == 1
    with moe_jit.autotune(max_seconds=0):
        for _ in range(3):
            run()
    assert len(prepared) == 2
    for _ in range(3):
        run()
    assert len(prepared) == 2


def test_tuning_on_the_cpu_changes_nothing() -> None:
    run = _call_layer()
    expected = run()
    with moe_jit.autotune():
        assert torch.equal(run(), expected)
    assert torch.equal(run(), expected)


def test_no_tokens_need_no_tactic(launched: list[int]) -> None:
    with moe_jit.autotune():
        assert _call_layer(0)().shape[0] == 0
    assert not launched


def test_the_check_for_changes_takes_less_than_two_microseconds() -> None:
    calls = 10_000
    seconds = min(timeit.repeat(generation, number=calls, repeat=7))
    assert seconds / calls < 2e-6
