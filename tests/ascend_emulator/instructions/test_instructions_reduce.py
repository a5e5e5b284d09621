"""Reductions, comparison, selection and gathering against exact arithmetic and index formulas."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from support.instructions import CODES, FLOATS, SIZES, TYPES, Driver, EmulatorError, lane_bytes

REALS = ("half", "float")
SUM, MAX, MIN = range(3)
VALUE_INDEX, INDEX_VALUE, ONLY_VALUE, ONLY_INDEX = range(4)
UB = 131072
SRC = 65536


def value_of(kind: str, code: int) -> Fraction:
    number = FLOATS[kind].decode(int(code))
    assert isinstance(number, Fraction)
    return number


def numbers(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Codes; few different ones, so that extremes repeat."""
    pool = rng.normal(size=12) * 3  # sums of thousands stay below the largest half
    values = rng.choice(pool, count)
    return values.astype({"half": np.float16, "float": np.float32}[kind]).view(CODES[SIZES[kind]])


def tree_sum(kind: str, codes: list[int | None]) -> int:
    """Neighbours in pairs, rounded at every step; missing lanes are zeros."""
    level = [0 if code is None else code for code in codes]
    while len(level) > 1:
        level = [
            FLOATS[kind].encode(value_of(kind, a) + value_of(kind, b))
            for a, b in zip(level[0::2], level[1::2], strict=True)
        ]
    return level[0]


def extreme(kind: str, codes: list[int | None], largest: bool) -> tuple[int, int]:
    pick = max if largest else min
    best = pick(value_of(kind, c) for c in codes if c is not None)
    index = next(i for i, c in enumerate(codes) if c is not None and value_of(kind, c) == best)
    code = codes[index]
    assert code is not None
    return code, index


def fill(image: np.ndarray, kind: str, rng: np.random.Generator) -> None:
    image[SRC:] = numbers(kind, (UB - SRC) // SIZES[kind], rng).view(np.uint8)


def lanes_at(
    image: np.ndarray, kind: str, active: list[bool], block: int, stride: int, repeat: int
) -> list[int | None]:
    size = SIZES[kind]
    found: list[int | None] = []
    for lane, on in enumerate(active):
        at = lane_bytes(SRC, size, block, stride, repeat, lane)
        found.append(int(image[at : at + size].view(CODES[size])[0]) if on else None)
    return found


def same_number(kind: str, got: int, want: int) -> bool:
    return value_of(kind, got) == value_of(kind, want)


@pytest.mark.parametrize("by_bits", [False, True])
@pytest.mark.parametrize("order", [VALUE_INDEX, INDEX_VALUE, ONLY_VALUE, ONLY_INDEX])
@pytest.mark.parametrize("operation", [SUM, MAX, MIN])
@pytest.mark.parametrize("kind", REALS)
def test_whole_repeats(
    driver: Driver, rng: np.random.Generator, kind: str, operation: int, order: int, by_bits: bool
):
    size, lanes = SIZES[kind], 256 // SIZES[kind]
    image = np.full(UB, 0xAB, np.uint8)
    fill(image, kind, rng)
    words = [int(w) for w in rng.integers(1, 2**64, 2, dtype=np.uint64)]
    count = int(rng.integers(1, lanes + 1))
    active = [bool(words[i // 64] >> i % 64 & 1) if by_bits else i < count for i in range(lanes)]
    repeats, step, block, stride = 5, 3, 2, 11
    unit = size if operation == SUM or order == ONLY_VALUE else 4 if order == ONLY_INDEX else 2 * size
    want = image.copy()
    for repeat in range(repeats):
        codes = lanes_at(image, kind, active, block, stride, repeat)
        at = repeat * step * unit
        if operation == SUM:
            fields = [(tree_sum(kind, codes), size)]
        else:
            code, index = extreme(kind, codes, operation == MAX)
            fields = {
                VALUE_INDEX: [(code, size), (index, size)],
                INDEX_VALUE: [(index, size), (code, size)],
                ONLY_VALUE: [(code, size)],
                ONLY_INDEX: [(index, 4)],
            }[order]
        for number, width in fields:
            want[at : at + width] = np.array([number], CODES[width]).view(np.uint8)
            at += width
    mask = words if by_bits else [count, 0]
    driver(
        "ReduceRepeat",
        REALS.index(kind),
        operation,
        0,
        SRC,
        by_bits,
        *mask,
        repeats,
        step,
        block,
        stride,
        order,
        UB=image,
    )
    assert np.array_equal(image, want)


@pytest.mark.parametrize("by_bits", [False, True])
@pytest.mark.parametrize("operation", [SUM, MAX, MIN])
@pytest.mark.parametrize("kind", REALS)
def test_blocks(driver: Driver, rng: np.random.Generator, kind: str, operation: int, by_bits: bool):
    size, lanes = SIZES[kind], 256 // SIZES[kind]
    image = np.full(UB, 0xAB, np.uint8)
    fill(image, kind, rng)
    words = [int(w) for w in rng.integers(1, 2**64, 2, dtype=np.uint64)]
    words[0] &= ~0xFFFF00  # at least one empty block
    count = int(rng.integers(1, lanes + 1))
    active = [bool(words[i // 64] >> i % 64 & 1) if by_bits else i < count for i in range(lanes)]
    repeats, step, block, stride = 4, 2, 1, 8
    want = image.copy()
    for repeat in range(repeats):
        codes = lanes_at(image, kind, active, block, stride, repeat)
        for i in range(8):
            part = codes[i * 32 // size : (i + 1) * 32 // size]
            if all(code is None for code in part):
                continue  # keeps what was there
            result = tree_sum(kind, part) if operation == SUM else extreme(kind, part, operation == MAX)[0]
            at = repeat * step * 8 * size + i * size
            want[at : at + size] = np.array([result], CODES[size]).view(np.uint8)
    mask = words if by_bits else [count, 0]
    driver(
        "ReduceDataBlock",
        REALS.index(kind),
        operation,
        0,
        SRC,
        by_bits,
        *mask,
        repeats,
        step,
        block,
        stride,
        UB=image,
    )
    assert np.array_equal(image, want)


def test_older_names(driver: Driver, rng: np.random.Generator):
    image = np.zeros(UB, np.uint8)
    x = rng.integers(-50, 50, (2, 8, 8)).astype(np.float32)
    image[SRC : SRC + x.nbytes] = x.reshape(-1).view(np.uint8)
    for code, reduce in enumerate([np.sum, np.max, np.min]):
        driver("OlderNames", 0, SRC, code, UB=image)
        assert np.array_equal(image[:8].view(np.float32), reduce(x, axis=(1, 2)))
        driver("OlderNames", 0, SRC, code + 3, UB=image)
        assert np.array_equal(image[:64].view(np.float32), reduce(x, axis=2).reshape(-1))


def test_alignment_of_results(driver: Driver):
    image = np.zeros(UB, np.uint8)
    call = (1, SRC, 0, 64, 0, 1, 1, 1, 8)
    driver("ReduceRepeat", 1, MAX, 4, *call[1:], ONLY_VALUE, UB=image)
    with pytest.raises(EmulatorError, match="misaligned"):
        driver("ReduceRepeat", 1, MAX, 4, *call[1:], VALUE_INDEX, UB=image)
    with pytest.raises(EmulatorError, match="misaligned"):
        driver("ReduceDataBlock", 1, MAX, 16, *call[1:], UB=image)


@pytest.mark.parametrize("count", [1, 5, 64, 128, 200, 1000, 8320])
@pytest.mark.parametrize("operation", [SUM, MAX, MIN])
@pytest.mark.parametrize("kind", REALS)
def test_all_elements(driver: Driver, rng: np.random.Generator, kind: str, operation: int, count: int):
    size, lanes = SIZES[kind], 256 // SIZES[kind]
    image = np.full(UB, 0xAB, np.uint8)
    codes = numbers(kind, count, rng)
    image[SRC : SRC + codes.nbytes] = codes.view(np.uint8)
    work = 4096
    driver("ReduceAll", REALS.index(kind), operation, 0, SRC, work, 4096, count, operation != SUM, UB=image)
    got = image[: 2 * size].view(CODES[size])
    if operation != SUM:
        assert tuple(int(v) for v in got) == extreme(kind, [int(c) for c in codes], operation == MAX)
        return
    total = None
    for first in range(0, count, lanes):
        part: list[int | None] = [int(c) for c in codes[first : first + lanes]]
        part += [None] * (lanes - len(part))
        one = tree_sum(kind, part)
        total = one if total is None else FLOATS[kind].encode(value_of(kind, total) + value_of(kind, one))
    assert total is not None
    assert same_number(kind, int(got[0]), total)


@pytest.mark.parametrize("operation", [SUM, MAX, MIN])
@pytest.mark.parametrize("kind", REALS)
def test_all_elements_with_a_mask(driver: Driver, rng: np.random.Generator, kind: str, operation: int):
    size, lanes, repeats, stride = SIZES[kind], 256 // SIZES[kind], 70, 9
    mask = int(rng.integers(1, lanes + 1))
    image = np.full(UB, 0xAB, np.uint8)
    fill(image, kind, rng)
    rows = [lanes_at(image, kind, [i < mask for i in range(lanes)], 1, stride, r) for r in range(repeats)]
    driver("ReduceAllMasked", REALS.index(kind), operation, 0, SRC, 4096, mask, repeats, stride, UB=image)
    got = int(image[:size].view(CODES[size])[0])
    if operation != SUM:
        assert got == extreme(kind, [code for row in rows for code in row], operation == MAX)[0]
        return
    level: list[int | None] = [tree_sum(kind, row) for row in rows]
    while len(level) > 1:
        padded = level + [None] * (-len(level) % lanes)
        level = [tree_sum(kind, padded[i : i + lanes]) for i in range(0, len(padded), lanes)]
    assert level[0] is not None
    assert same_number(kind, got, level[0])


# From the formulas of the documentation of ReduceMax: 8320 halves with an index need 176 elements.
@pytest.mark.parametrize(
    ("kind", "count", "index", "elements"),
    [("half", 8320, 1, 176), ("half", 8320, 0, 144), ("half", 512, 1, 32), ("float", 8320, 1, 288)],
)
def test_the_work_buffer_must_hold_the_rounds(
    driver: Driver, kind: str, count: int, index: int, elements: int
):
    image = np.zeros(UB, np.uint8)
    driver("ReduceAll", REALS.index(kind), MAX, 0, SRC, 4096, elements, count, index, UB=image)
    with pytest.raises(EmulatorError, match="out of bounds"):
        driver("ReduceAll", REALS.index(kind), MAX, 0, SRC, 4096, elements - 1, count, index, UB=image)


MODES = {
    "LT": np.less,
    "GT": np.greater,
    "EQ": np.equal,
    "LE": np.less_equal,
    "GE": np.greater_equal,
    "NE": np.not_equal,
}
DTYPES = {"half": np.float16, "float": np.float32, "int32_t": np.int32}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", DTYPES)
def test_compare(driver: Driver, rng: np.random.Generator, kind: str, mode: str):
    dtype = np.dtype(DTYPES[kind])
    count = 3 * 256 // dtype.itemsize
    a, b = rng.integers(-3, 4, (2, count)).astype(dtype)
    image = np.full(UB, 0xAB, np.uint8)
    image[4096 : 4096 + a.nbytes] = a.view(np.uint8)
    image[8192 : 8192 + b.nbytes] = b.view(np.uint8)
    call = (list(DTYPES).index(kind), list(MODES).index(mode), 0)
    if kind == "int32_t" and mode != "EQ":
        with pytest.raises(EmulatorError, match="no mode but EQ"):
            driver("Compare", *call, 4096, 8192, 0, count, UB=image)
        return
    driver("Compare", *call, 4096, 8192, 0, count, UB=image)
    want = np.packbits(MODES[mode](a, b), bitorder="little")
    assert np.array_equal(image[: want.size], want)
    assert image[want.size] == 0xAB
    driver("Compares", *call, 4096, int(a[:1].view(CODES[dtype.itemsize])[0]), count, UB=image)
    assert np.array_equal(image[: want.size], np.packbits(MODES[mode](a, a[0]), bitorder="little"))
    # Strides: the first source in every second block, the second one the same in every repeat.
    driver("Compare", *call, 4096, 8192, 1, 2, 2, 1, 16, 0, UB=image)
    lanes = 256 // dtype.itemsize
    per_block = 32 // dtype.itemsize
    everything = image[4096:12288].view(dtype)
    spread = np.stack(
        [
            [
                everything[(r * 16 + lane // per_block * 2) * per_block + lane % per_block]
                for lane in range(lanes)
            ]
            for r in range(2)
        ]
    )
    assert np.array_equal(
        image[: 2 * lanes // 8], np.packbits(MODES[mode](spread, b[:lanes]), axis=None, bitorder="little")
    )


def test_a_comparison_of_part_of_a_repeat_is_refused(driver: Driver):
    with pytest.raises(EmulatorError, match="no multiple of 256 bytes"):
        driver("Compare", 1, 0, 0, 4096, 8192, 0, 65, UB=np.zeros(UB, np.uint8))


@pytest.mark.parametrize("mode", [0, 1, 2])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("kind", REALS)
def test_select(driver: Driver, rng: np.random.Generator, kind: str, strided: bool, mode: int):
    dtype = np.dtype(DTYPES[kind])
    lanes, per_block = 256 // dtype.itemsize, 32 // dtype.itemsize
    image = rng.integers(0, 256, UB, dtype=np.uint8)
    for start in (8192, 32768):
        image[start : start + 8192] = rng.normal(size=8192 // dtype.itemsize).astype(dtype).view(np.uint8)
    scalar = dtype.type(rng.normal())
    bits = np.unpackbits(image[4096:5120], bitorder="little")
    other = int(np.array([scalar]).view(CODES[dtype.itemsize])[0]) if mode == 1 else 32768
    want = image.copy().view(dtype)
    if strided:
        mask, repeats, strides = int(rng.integers(1, lanes + 1)), 3, (2, 1, 0, 17, 9, 4)
        places = [(r, i) for r in range(repeats) for i in range(mask)]
        form = (1, mask, repeats, *strides)
    else:
        count, strides = 2 * lanes + 5, (1, 1, 1, 8, 8, 8)
        places = [(i // lanes, i % lanes) for i in range(count)]
        form = (0, count)
    for repeat, lane in places:
        at = [start // dtype.itemsize + (repeat * r + lane // per_block * b) * per_block + lane % per_block
              for start, b, r in zip((0, 8192, 32768), strides[:3], strides[3:], strict=True)]  # fmt: skip
        chosen = bits[lane if mode == 0 else repeat * lanes + lane]
        want[at[0]] = want[at[1]] if chosen else scalar if mode == 1 else want[at[2]]
    driver("Select", REALS.index(kind), mode, 0, 4096, 8192, other, *form, UB=image)
    assert np.array_equal(image, want.view(np.uint8))


@pytest.mark.parametrize("form", [0, 1, 2])
@pytest.mark.parametrize("kind", ["half", "float", "int32_t", "uint16_t"])
def test_gather(driver: Driver, rng: np.random.Generator, kind: str, form: int):
    size, lanes = SIZES[kind], 256 // SIZES[kind]
    image = rng.integers(0, 256, UB, dtype=np.uint8)
    repeats, stride, base = 3, 10, 64
    offsets = (rng.integers(0, 1000, repeats * lanes) * size).astype(np.uint32)
    image[32768 : 32768 + offsets.nbytes] = offsets.view(np.uint8)
    words = [int(w) for w in rng.integers(1, 2**64, 2, dtype=np.uint64)]
    count = int(rng.integers(1, repeats * lanes)) if form == 0 else int(rng.integers(1, lanes + 1))
    if form == 0:
        active, stride = [(i // lanes, i % lanes) for i in range(count)], 8
        parameters = [0, count]
    else:
        on = [i < count if form == 1 else bool(words[i // 64] >> i % 64 & 1) for i in range(lanes)]
        active = [(r, i) for r in range(repeats) for i in range(lanes) if on[i]]
        parameters = [form, *([count, 0] if form == 1 else words), repeats, stride]
    want = image.copy()
    for repeat, lane in active:
        at = 65536 + base + int(offsets[repeat * lanes + lane])
        want[repeat * stride * 32 + lane * size :][:size] = image[at : at + size]
    driver("Gather", TYPES.index(kind), 0, 65536, 32768, base, *parameters, UB=image)
    assert np.array_equal(image, want)


def test_gather_refuses_offsets_between_elements(driver: Driver):
    image = np.ones(UB, np.uint8)
    with pytest.raises(EmulatorError, match="no multiple of float's size"):
        driver("Gather", TYPES.index("float"), 0, 65536, 32768, 0, 0, 8, UB=image)


PATTERNS = {1: [0], 2: [1], 3: [0], 4: [1], 5: [2], 6: [3], 7: [0, 1, 2, 3]}


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("pattern", [*PATTERNS, None])
@pytest.mark.parametrize("kind", ["half", "float", "int32_t", "uint16_t"])
def test_gather_mask(driver: Driver, rng: np.random.Generator, kind: str, pattern: int | None, counts: bool):
    size, lanes = SIZES[kind], 256 // SIZES[kind]
    image = rng.integers(0, 256, UB, dtype=np.uint8)
    mask = int(rng.integers(1, 3 * lanes)) if counts else 0
    width = mask if counts else lanes
    block, repeats, stride, pattern_stride = 2, 4, 60, int(rng.integers(0, 2)) * 3
    kept = []
    for repeat in range(repeats):
        bits = np.unpackbits(image[16384 + repeat * pattern_stride * 32 :][:512], bitorder="little")
        for i in range(width):
            period = 2 if pattern in (1, 2) else 4
            if bits[i] if pattern is None else i % period in PATTERNS[pattern]:
                at = lane_bytes(SRC, size, block, stride, repeat, i)
                kept.append(image[at : at + size].copy())
    want = image.copy()
    if kept:
        packed = np.concatenate(kept)
        want[: packed.size] = packed
    want[32768:32776] = np.array([len(kept)], np.uint64).view(np.uint8)
    source = 16384 if pattern is None else pattern
    driver(
        "GatherMask",
        TYPES.index(kind),
        0,
        SRC,
        32768,
        source,
        pattern is None,
        counts,
        mask,
        block,
        repeats,
        stride,
        pattern_stride,
        UB=image,
    )
    assert np.array_equal(image, want)
