"""Shared fixtures; tests marked ``cuda`` are skipped where there is no Hopper GPU."""

from __future__ import annotations

import os
from pathlib import Path

# Worker processes share the cores. OpenMP reads this once, when torch loads it.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // workers)))

import pytest
import torch


def _has_hopper() -> bool:
    return torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: needs --slow"))
    if not _has_hopper():
        skip = pytest.mark.skip(reason="needs a Hopper GPU")
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(skip)


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that MOE_JIT_CACHE_DIR names, in this process and its children."""
    directory = tmp_path / "cache"
    monkeypatch.setenv("MOE_JIT_CACHE_DIR", str(directory))
    monkeypatch.delenv("MOE_JIT_PREBUILT_DIR", raising=False)
    return directory
