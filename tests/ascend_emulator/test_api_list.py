"""The list of modelled calls names every call that a kernel makes, and every instruction that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EMULATOR = ROOT / "include" / "moe_jit" / "ascend_emulator"
KERNELS = [ROOT / "include" / "moe_jit" / "ascend", ROOT / "csrc" / "ascend"]
# Parts of calls that are listed, and what is not called by kernels.
PARTS = {"EnQue", "DeQue", "AllocTensor", "FreeTensor", "Get", "Init", "Reset", "Destroy"}


def declared(header: Path) -> set[str]:
    """Names of the functions of namespace AscendC that a header declares, by itself or with its macros."""
    text = header.read_text()
    if "namespace AscendC" not in text:
        return set()
    kernel_side = text[text.index("namespace AscendC") :]
    functions = re.findall(
        r"^\s*(?:inline |static )*(?:void|int64_t) ([A-Z]\w+)\(", kernel_side, re.MULTILINE
    )
    by_macro = re.findall(r"^MOE_JIT_\w+\((\w+)", kernel_side, re.MULTILINE)
    return {name for name in (*functions, *by_macro) if name != "NAME"}


INSTRUCTIONS = {
    name
    for header in sorted((EMULATOR / "instructions").glob("*.h"))
    if header.name != "unsupported.h"
    for name in declared(header)
}
FRAMEWORK = {name for header in sorted(EMULATOR.glob("*.h")) for name in declared(header)}
LIST = (EMULATOR / "API.md").read_text()


def listed(name: str) -> bool:
    """Also as a variant of a listed name: `WholeReduceSum/Max/Min`."""
    if re.search(rf"`[^`]*\b{name}\b[^`]*`", LIST):
        return True
    variant = re.fullmatch(r"(\w+?)(Sum|Max|Min)", name)
    return bool(variant and re.search(rf"`{variant[1]}\w+(/\w+)*/{variant[2]}(/\w+)*`", LIST))


@pytest.mark.parametrize("name", sorted(INSTRUCTIONS))
def test_instructions_are_listed(name: str):
    assert listed(name)


def called() -> set[str]:
    sources = [path for root in KERNELS for path in sorted(root.rglob("*")) if path.suffix in (".h", ".cpp")]
    text = "\n".join(path.read_text() for path in sources)
    return set(re.findall(r"\b([A-Z]\w+)\s*(?:<[^;(){}]*>)?\(", text)) & (INSTRUCTIONS | FRAMEWORK)


def test_calls_of_kernels_are_listed():
    names = called()
    assert {"DataCopy", "Mmad", "Fixpipe", "Cast", "Mul"} <= names
    assert {name for name in names - PARTS if not listed(name)} == set()


def rows_of(name: str) -> list[str]:
    return [line for line in LIST.splitlines() if line.startswith("| ") and name in line.split("|")[1]]


@pytest.mark.parametrize("name", sorted(called() - PARTS))
def test_calls_of_kernels_name_their_page(name: str):
    """In the row that lists the call, as a path in the reference, or several."""
    rows = rows_of(name) or rows_of(re.sub(r"(Sum|Max|Min)$", "", name))
    pages = [row.rstrip("| ").rsplit("|", 1)[1].strip() for row in rows]
    assert any(re.fullmatch(r"`[^`]+`(, `[^`]+`)*", page) for page in pages), pages
