"""No refusal of the emulator is without a test: words of each message stand in one of these tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EMULATOR = ROOT / "include/moe_jit/ascend_emulator"
TESTED = "".join(path.read_text() for path in sorted((ROOT / "tests").glob("ascend*/**/*.py"))).replace(
    "\\", ""
)
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')
WORDS = 3  # in a row


def call_text(text: str, begin: int) -> str:
    """A call's arguments, from behind its parenthesis."""
    depth, at = 1, begin
    while depth:
        string = STRING.match(text, at)
        at = string.end() if string else at + 1
        depth += {"(": 1, ")": -1}.get(text[at - 1], 0) if not string else 0
    return text[begin : at - 1]


def refusals() -> list[tuple[str, list[str]]]:
    """Where one is, and what its message says between the values that it names."""
    found = []
    for path in sorted(EMULATOR.rglob("*.h")):
        text = path.read_text()
        for call in re.finditer(r"\b(?:require|raise|fail)\(", text):
            strings = STRING.findall(call_text(text, call.end()))
            parts = [part.strip() for string in strings for part in re.split("%(?:ll)?[usd]", string)]
            parts = [part for part in parts if len(part) >= 5]
            if parts:
                line = text.count("\n", 0, call.start()) + 1
                found.append((f"{path.relative_to(EMULATOR)}:{line}", parts))
    return found


def is_tested(part: str) -> bool:
    words = part.split()
    size = min(WORDS, len(words))
    return any(" ".join(words[i : i + size]) in TESTED for i in range(len(words) - size + 1))


def test_refusals_are_found() -> None:
    assert len(refusals()) > 130


@pytest.mark.parametrize(
    ("place", "parts"), refusals(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_the_refusal_has_a_test(place: str, parts: list[str]) -> None:
    assert any(map(is_tested, parts)), f"{place}: {parts}"
