"""One place decides what GPU modules are compiled for."""

from __future__ import annotations

import pytest

from moe_jit.jit import ToolchainError, cuda_target
from moe_jit.jit.target import target_of_arch


@pytest.mark.parametrize("text", ["9.0a", "9.0", "90a", "sm_90a"])
def test_variable_in_any_spelling(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MOE_JIT_CUDA_ARCH", text)
    assert cuda_target((8, 0)) == "sm_90a"


@pytest.mark.parametrize("text", ["8.0", "10.0a", "hopper"])
def test_variable_with_another_architecture(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MOE_JIT_CUDA_ARCH", text)
    with pytest.raises(ToolchainError, match=f"MOE_JIT_CUDA_ARCH: given '{text}'"):
        cuda_target((9, 0))


def test_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOE_JIT_CUDA_ARCH", raising=False)
    assert cuda_target((9, 0)) == "sm_90a"
    with pytest.raises(ToolchainError, match=r"given 10\.0, expected compute capability 9\.0"):
        cuda_target((10, 0))


def test_argument_is_named() -> None:
    with pytest.raises(ToolchainError, match=r"arch: given '8\.0', expected 9\.0a"):
        target_of_arch("arch", "8.0")
