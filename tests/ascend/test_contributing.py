"""The worked example of CONTRIBUTING.md: its kernel, its error message and its cure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import moe_jit
from moe_jit.ascend import EmulatorError, LaunchReport, emulator_report

pytestmark = pytest.mark.ascend_emulator
TITLE = "\n## How to write and debug an Ascend C kernel on a laptop\n"
TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text().split(TITLE)[1].split("\n## ")[0]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.S)


def test_the_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (kernel,) = blocks("cpp")
    program, _ = blocks("python")
    (message,) = blocks("text")
    (tmp_path / "affine.cpp").write_text(kernel)
    with pytest.raises(EmulatorError) as caught:
        exec(program, {})
    assert str(caught.value) == message.strip()
    assert (caught.value.file, caught.value.line, caught.value.core) == ("affine.cpp", 24, "AIV 0")

    (cure,) = re.findall(r"^    (PipeBarrier.*)$", TEXT, re.M)
    lines = kernel.splitlines()
    (tmp_path / "cured").mkdir()
    (tmp_path / "cured" / "affine.cpp").write_text("\n".join([*lines[:23], cure, *lines[23:]]))
    monkeypatch.chdir(tmp_path / "cured")
    names: dict[str, object] = {}
    exec(program, names)  # compares the result itself
    report = names["report"]
    assert isinstance(report, LaunchReport)
    assert report.bytes == {"GM_UB": 4 * 4096, "UB_GM": 4 * 4096}
    assert report.seconds >= report.bound_seconds > 0


def test_the_call_by_hand() -> None:
    names: dict[str, object] = {"torch": torch}
    with emulator_report() as outer:
        exec(blocks("python")[1], names)
    assert outer.launches == []  # the inner one has them
    assert names["report"].seconds > 0  # type: ignore[attr-defined]
    assert moe_jit.backends.chosen().name == "auto"


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:python|include|csrc|tests)/[\w./]*)`", TEXT))))
def test_paths_exist(path: str) -> None:
    assert (Path(__file__).parents[2] / path).exists()
