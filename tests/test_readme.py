"""The README's programs run, and its map and variables are those of the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {}
    programs = re.findall(r"```python\n(.*?)```", README, re.S)
    assert len(programs) == 5
    for program in programs:
        exec(program, names)
        result = names.pop("y")
        assert isinstance(result, torch.Tensor)
        assert result.shape == (32, 256)
        assert result.dtype == torch.bfloat16
        assert result.isfinite().all()
        assert result.abs().amax() > 0


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:python|include|csrc|benchmarks)/[\w./]*)`", README)))
)
def test_map(path: str):
    assert (ROOT / path).exists()


def test_every_variable_is_described():
    sources = (path.read_text() for path in (ROOT / "python").rglob("*.py"))
    used = {name for text in sources for name in re.findall(r'environ.get\("(MOE_JIT_[A-Z_]+)"', text)}
    assert used == set(re.findall(r"`(MOE_JIT_[A-Z_]+)`", README))
