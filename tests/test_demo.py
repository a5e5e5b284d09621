"""The demonstration reports what it did, and fails when the layer is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import typer

from moe_jit import demo as module
from moe_jit import fused_moe, jit

TINY = module.Shape("tiny layer", hidden_size=64, intermediate_size=48, num_experts=8, top_k=2)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REDUCED", TINY)
    monkeypatch.setattr(module, "_choose_device", lambda console: torch.device("cpu"))
    monkeypatch.setenv("COLUMNS", "200")


def test_report(capsys: pytest.CaptureFixture[str]):
    module.demo(tokens=9)
    text = capsys.readouterr().out
    assert "tiny layer: hidden 64, intermediate 48, 8 experts, top 2" in text
    assert "9 tokens on CPU" in text
    assert text.count(" ok ") == 3
    assert "FAILED" not in text
    for fact in ("load in a new process (warm)", "run, median of 20 calls", "4 CPU-hours"):
        assert fact in text


@pytest.mark.parametrize("factor", [1.02, 0.98])
def test_wrong_results_fail(
    factor: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    launch = fused_moe._Launcher.__call__

    def mutated(self: Any, args: Any) -> Any:
        result = launch(self, args)
        return result if isinstance(result, list) else result.mul_(factor)

    monkeypatch.setattr(fused_moe._Launcher, "__call__", mutated)
    with pytest.raises(typer.Exit) as raised:
        module.demo(tokens=16)
    assert raised.value.exit_code == 1
    assert "FAILED" in capsys.readouterr().out


def test_missing_compiler_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def load(spec: jit.ModuleSpec) -> None:
        raise jit.ToolchainError("no C++ compiler: set CXX")

    monkeypatch.setattr(jit, "load", load)
    monkeypatch.setattr(fused_moe, "_launchers", {})
    with pytest.raises(typer.Exit) as raised:
        module.demo(tokens=3)
    assert raised.value.exit_code == 1
    assert "no C++ compiler: set CXX" in capsys.readouterr().out


def test_cold_uses_an_empty_cache_and_restores_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MOE_JIT_CACHE_DIR", "/elsewhere")
    monkeypatch.setenv("MOE_JIT_PREBUILT_DIR", "/prebuilt")
    with module._empty_cache(True):
        assert not list(jit.user_store().entries("modules"))
        assert jit.cache_directory().is_dir()
        assert not jit.prebuilt_stores()
        temporary = jit.cache_directory()
    assert not temporary.exists()
    assert os.environ["MOE_JIT_CACHE_DIR"] == "/elsewhere"
    assert os.environ["MOE_JIT_PREBUILT_DIR"] == "/prebuilt"


def test_command_line():
    program = [sys.executable, "-m", "moe_jit"]
    done = subprocess.run([*program, "demo", "--tokens", "4"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Qwen3-30B-A3B layer" in done.stdout
    refused = subprocess.run([*program, "demo", "--tokens", "0"], capture_output=True, text=True)
    assert refused.returncode == 2
