"""``moe-jit cache`` and ``moe-jit doctor``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from moe_jit import cli


@pytest.fixture(autouse=True)
def wide_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_console", cli.Console(width=400))


def _run(*words: str) -> str:
    result = CliRunner().invoke(cli.app, list(words), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_cache_lists_sizes_and_clears(project: Any, cache_dir: Path) -> None:
    assert project.value() == 7
    line = next(line for line in _run("cache", "list").splitlines() if "tiny" in line)
    assert "cpu" in line
    assert "MB" in line
    assert "(1 modules, 1 objects)" in _run("cache", "size")
    assert str(cache_dir) in _run("cache", "clear")
    assert not list(cache_dir.rglob("*.so"))
    assert "tiny" not in _run("cache", "list")
    assert project.value() == 7


def test_clear_spares_prebuilt_modules(
    project: Any, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.value() == 7
    prebuilt = cache_dir.rename(cache_dir.with_name("prebuilt"))
    monkeypatch.setenv("MOE_JIT_PREBUILT_DIR", str(prebuilt))
    assert "prebuilt" in _run("cache", "list")
    _run("cache", "clear")
    assert list(prebuilt.rglob("module.so"))


def test_commands_work_on_a_cache_that_does_not_exist(cache_dir: Path) -> None:
    for command in ("list", "size", "clear"):
        _run("cache", command)
    assert not cache_dir.exists()


def test_doctor_reports_each_part(cache_dir: Path) -> None:
    report = _run("doctor")
    for part in (
        "GPU",
        "driver",
        "torch",
        "C++ compiler",
        "nvcc",
        "CUTLASS",
        str(cache_dir),
        "cores",
        "fp8_moe",
    ):
        assert part in report


def test_doctor_reports_what_is_missing(
    cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MOE_JIT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setenv("MOE_JIT_CUTLASS_DIR", os.fspath(tmp_path))
    report = _run("doctor")
    for part in ("not writable", "no C++ compiler found", "MOE_JIT_CUTLASS_DIR: given"):
        assert part in report
