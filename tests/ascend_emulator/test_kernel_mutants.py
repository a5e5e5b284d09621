"""The kernels' flags, events and barriers are needed, and the emulator says so when they are taken out.

Each mutant is a copy of the sources without one flag between cores, without one event, or without the vector
barriers of one file. The operators' own tests run on it until one fails, which must be because of an
``EmulatorError``: results in the emulator do not depend on barriers.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = ROOT / "include/moe_jit/ascend"
FLAG = re.compile(
    r"^ *(?:.*\) )?((?:(?:PipeBarrier|SyncAll|CrossCoreSetFlag)<[^;]*>|CrossCoreWaitFlag)\([^;]*\);)", re.M
)
BARRIER = "vector_barrier();"
EVENT = re.compile(r"SetFlag<HardEvent::(\w+)>")

# Comes before SyncAll, which in the emulator waits for the core's own pipes too;
# the documentation leaves it open.
KEPT = "PipeBarrier<PIPE_ALL>();"

# Where a file's kernels are tested: files of tests, and a selection.
TESTS = {
    "antiquant": ("test_grouped_matmul.py", "(rows_and_layouts or antiquant) and bf16"),
    "antiquant/digits.h": ("../ascend_emulator/test_kernels_matmul.py", "digits"),
    "antiquant/digit_matmul.h": ("../ascend_emulator/test_kernels_matmul.py", "digits"),
    "cube/column_table.h": ("../ascend_emulator/test_kernels_matmul.py", "small_tiles and i8-i8"),
    "cube": ("test_grouped_matmul.py", "(rows_and_layouts or odd_sizes) and i8-i32"),
    "dequant_swiglu_quant.h": ("test_dequant_swiglu_quant.py", "not dynamic_quant"),
    "dsq": ("test_dequant_swiglu_quant.py", "not dynamic_quant"),
    "finalize": ("test_finalize_many_rows.py test_finalize_routing.py", ""),
    "finalize_routing.h": ("test_finalize_routing.py", ""),
    "int4": ("test_grouped_matmul.py", "i8i4-bf16"),
    "int4/widen.h": ("../ascend_emulator/test_kernels_matmul.py", "that_become_int8"),
    "ring.h": ("test_grouped_matmul.py", "(rows_and_layouts or odd_sizes) and i8-bf16"),
    "vector/int8.h": ("test_dequant_swiglu_quant.py", "not dynamic_quant"),
    "vector": ("test_grouped_matmul.py", "(rows_and_layouts or activations or bias) and i8-bf16"),
}


@dataclass(frozen=True)
class Mutant:
    source: str  # from the kernels' directory
    line: int
    removed: str
    text: str  # of the whole file

    def __str__(self) -> str:
        return f"{self.source}:{self.line} {self.removed}"


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _mutants() -> list[Mutant]:
    found = []
    for path in sorted(KERNELS.rglob("*.h")):
        name, text = str(path.relative_to(KERNELS)), path.read_text()
        for match in FLAG.finditer(text):
            begin, end = match.span(1)
            if "inline void" in match.group(0) or match.group(1) == KEPT:
                continue
            without = text[:begin] + ";" + text[end:]
            found.append(Mutant(name, _line(text, begin), match.group(1), without))
        if BARRIER in text:
            first = _line(text, text.index(BARRIER))
            found.append(Mutant(name, first, BARRIER, text.replace(BARRIER, ";")))
        for event in sorted(set(EVENT.findall(text))):
            without = re.sub(rf"(?:SetFlag|WaitFlag)<HardEvent::{event}>\([^;]*\);", ";", text)
            line = _line(text, text.index(f"SetFlag<HardEvent::{event}>"))
            found.append(Mutant(name, line, event, without))
    return found


def _tests_of(source: str) -> tuple[str, str]:
    parts = source.split("/")
    return next(TESTS[key] for key in (source, parts[0]) if key in TESTS)


@pytest.mark.slow
@pytest.mark.ascend_emulator
@pytest.mark.parametrize("mutant", _mutants(), ids=str)
def test_the_emulator_misses_what_was_removed(mutant: Mutant, tmp_path: Path) -> None:
    for part in ("python", "include", "csrc", "tests"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "include/moe_jit/ascend" / mutant.source).write_text(mutant.text)
    files, selection = _tests_of(mutant.source)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "ascend_emulator"]
    command += ["-k", selection, *(f"tests/ascend/{file}" for file in files.split())]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "python")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 1, f"the tests pass without it, or did not run: {done.stdout[-2000:]}"
    assert "EmulatorError: " in done.stdout, done.stdout[-4000:]
