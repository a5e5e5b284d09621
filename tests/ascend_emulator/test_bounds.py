"""Kernels on the shapes of DeepSeek-V3 take at most 1.3 times what they must.

The times are the emulator's (``chip.h`` names the sources of its rates), the bounds are computed here from
the shapes. What every kernel must do is to move its operands and its result once between memory and chip, and
to multiply. ``OWN`` names the points that another path of the chip limits, and why the work on it is needed.
Eight of the 256 experts, with 4, 128 and 1024 rows each: a small batch, a large one, a prompt.

``pytest -rP`` prints the multiples of both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from support.deepseek import EXPERTS, GROUP, HIDDEN, INNER, KERNELS

pytestmark = pytest.mark.ascend_emulator

ROWS = [EXPERTS * 4, EXPERTS * 128, EXPERTS * 1024]
WIDE = 2 * INNER  # columns of the gate and up projection

# Rates of chip.h, of the whole chip in a second, and of one core in a cycle.
CLOCK, CUBES, VECTORS = 1.8e9, 24, 48
MEMORY = 1.6e12
FROM_L2, FROM_L0C, FROM_UB = 110, 86, 64


def fractals(rows: int, k: int, n: int, bits: int) -> float:
    """Cycles of a cube: 16 x 16 products of 256 bits of k in each; float32 takes twice as many."""
    steps = EXPERTS * -(-rows // EXPERTS // 16) * (n // 16) * -(-k * bits // 256)
    return 2 * steps if bits == 32 else steps


class Needs(NamedTuple):
    """Bytes between memory and chip, and cycles of cubes."""

    moved: float
    multiplied: float = 0.0

    @property
    def seconds(self) -> float:
        return max(self.moved / MEMORY, self.multiplied / CUBES / CLOCK)


def product(x_bytes: float, w_bytes: float, y_bytes: float, bits: int) -> Callable[[int], Needs]:
    def needs(rows: int) -> Needs:
        moved = EXPERTS * HIDDEN * WIDE * w_bytes + rows * (HIDDEN * x_bytes + WIDE * y_bytes)
        return Needs(moved, fractals(rows, HIDDEN, WIDE, bits))

    return needs


def finalize(w_bytes: float) -> Callable[[int], Needs]:
    def needs(rows: int) -> Needs:
        moved = EXPERTS * INNER * HIDDEN * w_bytes + rows * INNER + summed(rows)
        return Needs(moved, fractals(rows, INNER, HIDDEN, 8))

    return needs


def summed(rows: int) -> int:
    """Bytes of the fp32 sums of two rows each."""
    return 4 * rows // 2 * HIDDEN


def swiglu(x_bytes: int) -> Callable[[int], Needs]:
    def needs(rows: int) -> Needs:
        scales = 4 * EXPERTS * WIDE if x_bytes == 4 else 0
        return Needs(rows * (WIDE * x_bytes + INNER + 4) + scales)

    return needs


NEEDS = {
    "int8 to int32": product(1, 1, 4, 8),
    "int8 to int8": product(1, 1, 1, 8),
    "int8 to bfloat16": product(1, 1, 2, 8),
    "bfloat16": product(2, 2, 2, 16),
    "float32": product(4, 4, 4, 32),
    "bfloat16 by int8": product(2, 1, 2, 16),
    "float16 by int8": product(2, 1, 2, 16),
    "int8 by int4": product(1, 0.5, 2, 8),
    "int8 by int4, groups of k": product(1, 0.5, 2, 8),
    "int4 by int4": product(0.5, 0.5, 2, 4),
    "int4 by int4, groups of k": product(0.5, 0.5, 2, 4),
    "float16 by int4": product(2, 0.5, 2, 16),
    "bfloat16 by int4": product(2, 0.5, 2, 16),
    "finalize routing": finalize(1),
    "finalize routing, groups of k": finalize(0.5),
    "swiglu of int32": swiglu(4),
    "swiglu of bfloat16": swiglu(2),
}

# ---- other paths


def stored(rows: int, k: int, n: int) -> float:
    """Seconds of the store of a sum for each group of k, on all cubes. Scales are fp32 and follow exact sums,
    which only this path takes to where they are scaled: int32, for the store has no narrower exact format."""
    return 4 * rows * n * (k // GROUP) / FROM_L0C / CUBES / CLOCK


def widened(rows: int, k: int, n: int) -> float:
    """Seconds of vector instructions where int4 weights become int8, so that one sum of a group is stored and
    not two: two conversions of weights and the sums of columns, of 128 each; a conversion, a product and an
    addition of 64 sums; and bias, token scale and a copy for 64 results."""
    repeats = EXPERTS * k * n * 3 / 128 + rows * n * (3 * (k // GROUP) + 3) / 64
    return repeats / VECTORS / CLOCK


def way_of_a_row(read_bytes: int, instructions: float) -> float:
    """Seconds of a row through one vector core: read, activated and quantised 64 columns at a time, written.
    The largest magnitude of the row is needed before its first result."""
    return (read_bytes / FROM_L2 + instructions * INNER / 64 + INNER / FROM_UB) / CLOCK


def store_of_groups(rows: int) -> float:
    return stored(rows, HIDDEN, WIDE)


SMALL, LARGE, PROMPT = ROWS
# The path, and its seconds for a number of rows.
OWN: dict[tuple[str, int], tuple[str, Callable[[int], float]]] = {
    ("int8 by int4, groups of k", LARGE): ("L0C store", store_of_groups),
    ("int8 by int4, groups of k", PROMPT): ("L0C store", store_of_groups),
    ("int4 by int4, groups of k", LARGE): ("L0C store", store_of_groups),
    ("int4 by int4, groups of k", PROMPT): ("L0C store", store_of_groups),
    # Tokens are summed when all products are there. (With int8 weights the two overlap.)
    ("finalize routing, groups of k", LARGE): (
        "vector, then y",
        lambda rows: widened(rows, INNER, HIDDEN) + summed(rows) / MEMORY,
    ),
    ("finalize routing, groups of k", PROMPT): (
        "L0C store, then y",
        lambda rows: stored(rows, INNER, HIDDEN) + summed(rows) / MEMORY,
    ),
    # Less than a row for each core. The scales of a row's expert are read, too.
    ("swiglu of int32", SMALL): ("a row on its core", lambda _: way_of_a_row(2 * 4 * WIDE, 16.5)),
    ("swiglu of bfloat16", SMALL): ("a row on its core", lambda _: way_of_a_row(2 * WIDE, 12.5)),
}


def _case(name: str, rows: int) -> object:
    takes_long = rows == PROMPT and ("float16 by" in name or "finalize" in name)
    return pytest.param(name, rows, marks=pytest.mark.slow if takes_long else ())


@pytest.mark.parametrize(("name", "rows"), [_case(name, rows) for name in KERNELS for rows in ROWS])
def test_time_is_close_to_the_bound(name: str, rows: int) -> None:
    launch, needs = KERNELS[name](rows), NEEDS[name](rows).seconds
    path, seconds = OWN.get((name, rows), ("", lambda _: 0.0))
    bound = max(needs, seconds(rows))
    multiples = f"{launch.seconds / needs:.2f} of memory and products"
    own = f"{launch.seconds / bound:.2f} of {path}" if path else "no other path"
    print(f"{name}, {rows} rows: {1e6 * launch.seconds:.1f} us, {multiples}, {own}")
    assert needs <= launch.bound_seconds * (1 + 1e-9) <= launch.own_bound_seconds * (1 + 1e-9)
    assert launch.own_bound_seconds <= launch.seconds * (1 + 1e-9)
    assert launch.seconds <= 1.3 * bound, launch


@pytest.mark.parametrize(("name", "rows"), OWN)
def test_paths_are_named_only_where_they_are_needed(name: str, rows: int) -> None:
    path, seconds = OWN[name, rows]
    assert seconds(rows) > NEEDS[name](rows).seconds, path


@pytest.mark.parametrize("rows", [LARGE, PROMPT])
@pytest.mark.parametrize("name", ["int8 by int4, groups of k", "int4 by int4, groups of k"])
def test_every_sum_of_a_group_is_stored_once(name: str, rows: int) -> None:
    launch = KERNELS[name](rows)
    assert launch.bytes["L0C_GM"] == 4 * rows * WIDE * (HIDDEN // GROUP)
    assert launch.store_seconds == pytest.approx(store_of_groups(rows))


@pytest.mark.parametrize("rows", ROWS)
def test_weights_are_read_once_from_memory(rows: int) -> None:
    launch = KERNELS["int8 to int32"](rows)
    assert launch.hbm_bytes == pytest.approx(NEEDS["int8 to int32"](rows).moved, rel=1e-3)
    assert launch.cube_operations["i8"] >= 2 * rows * HIDDEN * WIDE
    assert launch.bytes["L0C_GM"] == 4 * rows * WIDE
