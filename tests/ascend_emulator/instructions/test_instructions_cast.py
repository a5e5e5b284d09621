"""Cast against exact rational arithmetic: all types and rounding modes, ties, limits, NaN, infinities."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from support.instructions import (
    CODES,
    FLOATS,
    MODES,
    RANGES,
    SIZES,
    TYPES,
    Driver,
    EmulatorError,
    lane_bytes,
    round_to_integer,
)

DIRECTED = ("RINT", "FLOOR", "CEIL", "ROUND", "TRUNC")
# From the table of the documentation of Cast for architecture 2201.
SUPPORTED = {
    ("int4b_t", "half"): ("NONE",),
    ("int8_t", "half"): ("NONE",),
    ("uint8_t", "half"): ("NONE",),
    ("int16_t", "half"): (*DIRECTED, "NONE"),
    ("int16_t", "float"): ("NONE",),
    ("half", "int4b_t"): (*DIRECTED, "NONE"),
    ("half", "int8_t"): (*DIRECTED, "NONE"),
    ("half", "uint8_t"): (*DIRECTED, "NONE"),
    ("half", "int16_t"): DIRECTED,
    ("half", "int32_t"): DIRECTED,
    ("half", "float"): ("NONE",),
    ("bfloat16_t", "int32_t"): DIRECTED,
    ("bfloat16_t", "float"): ("NONE",),
    ("int32_t", "int16_t"): ("NONE",),
    ("int32_t", "float"): (*DIRECTED, "NONE"),
    ("int32_t", "int64_t"): ("NONE",),
    ("float", "int16_t"): DIRECTED,
    ("float", "half"): (*DIRECTED, "ODD", "NONE"),
    ("float", "bfloat16_t"): DIRECTED,
    ("float", "int32_t"): DIRECTED,
    ("float", "float"): DIRECTED,
    ("float", "int64_t"): DIRECTED,
    ("int64_t", "int32_t"): ("NONE",),
    ("int64_t", "float"): DIRECTED,
}
CASES = [(source, target, mode) for (source, target), modes in SUPPORTED.items() for mode in modes]
SRC, DST = 65536, 0


def code_of(kind: str) -> int:
    return TYPES.index(kind)


def float_codes(kind: str, target: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random codes, special ones, ties of the target and their neighbours."""
    form = FLOATS[kind]
    unsigned = CODES[SIZES[kind]]
    random = rng.integers(0, 1 << form.bits, count, dtype=np.uint64).astype(unsigned)
    infinite = ((1 << form.exponent) - 1) << form.fraction
    special = [0, 1, 2, infinite - 1, infinite, infinite + 1, (1 << form.fraction) - 1, 1 << form.fraction]
    if target in FLOATS and target != kind:
        cut = form.fraction - FLOATS[target].fraction
        bases = rng.integers(0, infinite >> max(cut, 0), count, dtype=np.uint64) << max(cut, 0)
        half = 1 << max(cut - 1, 0)
        ties = np.concatenate([bases + half - 1, bases + half, bases + half + 1, bases]).astype(unsigned)
        # Numbers near the largest and the smallest of the target.
        edge = [
            form.encode(Fraction(s) * FLOATS[target].decode(c)) for c in (1, 2, 3, 0x7BFF) for s in (1, 3)
        ]
        special += [max(0, c + d) for c in edge for d in (-1, 0, 1)] if target == "half" else []
    else:
        wholes = rng.integers(0, 1 << min(form.fraction, 20), count)
        quarters = [form.encode(Fraction(int(w), 4)) for w in wholes]
        limits = [
            Fraction(limit) + Fraction(d, 2) for limit in RANGES.get(target, (0,)) for d in range(-3, 4)
        ]
        ties = np.array(quarters + [form.encode(v) for v in limits]).astype(unsigned)
    codes = np.concatenate([random, np.array(special, dtype=np.uint64).astype(unsigned), ties])
    signs = rng.integers(0, 2, codes.size).astype(np.uint64) << np.uint64(form.bits - 1)
    return np.unique(codes ^ signs.astype(unsigned))


def inputs(source: str, target: str, rng: np.random.Generator, count: int = 300) -> np.ndarray:
    if source in FLOATS:
        return float_codes(source, target, count, rng)
    if source == "int4b_t":
        return rng.integers(-8, 8, 2 * count).astype(np.int64)
    low, high = RANGES[source]
    values = [int(v) for v in rng.integers(low, high, count, endpoint=True, dtype=np.int64)]
    values += [low, low + 1, high - 1, high, 0, 1, -1 if low < 0 else 2]
    if target in FLOATS:
        for _ in range(count):
            width = int(rng.integers(1, high.bit_length() + 1))
            kept = FLOATS[target].fraction + 1
            base = int(rng.integers(0, 1 << min(width, kept))) << max(0, width - kept)
            tie = base + ((1 << (width - kept - 1)) if width > kept else 0)
            for value in (tie - 1, tie, tie + 1, -tie):
                values += [value] if low <= value <= high else []
    elif target in RANGES:
        values += [v + d for v in RANGES[target] for d in (-2, -1, 0, 1, 2) if low <= v + d <= high]
    return np.array(values, dtype=np.int64)


def exact(source: str, value: int) -> Fraction | float:
    return FLOATS[source].decode(value) if source in FLOATS else Fraction(value)


def negative_zero(source: str, value: int) -> bool:
    return source in FLOATS and value == 1 << (FLOATS[source].bits - 1)


def expected(source: str, target: str, mode: str, value: int) -> int:
    number = exact(source, value)
    if source == target == "float":
        if isinstance(number, float):
            return -1 if math.isnan(number) else value
        whole = Fraction(round_to_integer(number, mode))
        sign = 1 << 31 if number < 0 or negative_zero(source, value) else 0
        return FLOATS["float"].encode(whole) | sign
    if target in FLOATS:
        if negative_zero(source, value):
            return 1 << (FLOATS[target].bits - 1)
        return FLOATS[target].encode(number, "RINT" if mode == "NONE" else mode)
    low, high = RANGES[target]
    if isinstance(number, float):
        return 0 if math.isnan(number) else high if number > 0 else low
    return min(max(round_to_integer(number, "RINT" if mode == "NONE" else mode), low), high)


def pack(kind: str, values: np.ndarray) -> np.ndarray:
    if kind == "int4b_t":
        nibbles = (values & 15).astype(np.uint8)
        return nibbles[0::2] | nibbles[1::2] << 4
    return values.astype(CODES[SIZES[kind]]).view(np.uint8)


def unpack(kind: str, image: np.ndarray, count: int) -> list[int]:
    if kind == "int4b_t":
        pairs = image[: count // 2].astype(np.int64)
        nibbles = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)
        return [int(n) - 16 * (n > 7) for n in nibbles]
    unsigned = image[: count * SIZES[kind]].view(CODES[SIZES[kind]])
    if kind in FLOATS or kind.startswith("u"):
        return [int(v) for v in unsigned]
    return [int(v) for v in unsigned.view(unsigned.dtype.name.lstrip("u"))]


def same(target: str, got: int, want: int) -> bool:
    if want == -1 and target in FLOATS:
        return math.isnan(FLOATS[target].decode(got))
    return got == want


@pytest.mark.parametrize(("source", "target", "mode"), CASES)
def test_every_pair_and_mode(driver: Driver, rng: np.random.Generator, source: str, target: str, mode: str):
    values = inputs(source, target, rng)
    if target == "uint8_t":
        values = np.array([v for v in values if not exact(source, int(v)) < 0])
    values = values[: values.size // 2 * 2]
    data = pack(source, values)
    image = np.full(131072, 0xA5, np.uint8)
    image[SRC : SRC + data.size] = data
    before = image.copy()
    driver("Cast", code_of(target), code_of(source), DST, SRC, MODES.index(mode), 0, values.size, UB=image)
    got = unpack(target, image, values.size)
    for value, one in zip(values.tolist(), got, strict=True):
        want = expected(source, target, mode, value)
        assert same(target, one, want), (hex(value), exact(source, value), one, want)
    written = values.size * SIZES[target] if target != "int4b_t" else values.size // 2
    assert np.array_equal(image[written:], before[written:])


ALL_PAIRS = [(s, t) for s in TYPES for t in TYPES if (s, t) != ("int32_t", "half")]


@pytest.mark.parametrize(("source", "target"), ALL_PAIRS)
def test_the_rest_is_refused_by_name(driver: Driver, source: str, target: str):
    for mode in MODES:
        image = np.zeros(131072, np.uint8)
        allowed = SUPPORTED.get((source, target), ())
        call = ("Cast", code_of(target), code_of(source), DST, SRC, MODES.index(mode), 0, 16)
        if mode in allowed:
            driver(*call, UB=image)
            continue
        problem = (
            f"{source} to {target} has no mode CAST_{mode}"
            if allowed
            else f"{source} to {target} on this chip"
        )
        with pytest.raises(EmulatorError, match=problem):
            driver(*call, UB=image)


@pytest.mark.parametrize("scale", [1.0, 0.5, -3.0, 2.0**-14, 1.3330078125])
def test_int32_to_half_multiplies_by_the_scale(driver: Driver, rng: np.random.Generator, scale: float):
    values = np.concatenate(
        [rng.integers(-(2**17), 2**17, 500), rng.integers(-(2**31), 2**31, 100), [0, 1, -1]]
    )
    image = np.zeros(131072, np.uint8)
    image[SRC : SRC + 4 * values.size] = values.astype(np.int32).view(np.uint8)
    form = FLOATS["half"]
    driver("CastWithDeqScale", DST, SRC, form.encode(Fraction(scale)), values.size, UB=image)
    for value, got in zip(values.tolist(), unpack("half", image, values.size), strict=True):
        want = form.encode(Fraction(value) * Fraction(scale))
        assert got == want or (value == 0 and got & 0x7FFF == 0), (value, hex(got), hex(want))


def test_int32_to_half_needs_a_scale(driver: Driver):
    with pytest.raises(EmulatorError, match="DEQSCALE, which was never set"):
        driver("Cast", code_of("half"), code_of("int32_t"), DST, SRC, 0, 0, 16, UB=np.zeros(131072, np.uint8))


def test_a_negative_number_has_no_uint8(driver: Driver):
    image = np.zeros(131072, np.uint8)
    image[SRC : SRC + 2] = np.array([0xBC00], np.uint16).view(np.uint8)
    with pytest.raises(EmulatorError, match="negative number has no uint8_t"):
        driver("Cast", code_of("uint8_t"), code_of("half"), DST, SRC, 1, 0, 16, UB=image)


# The larger type sets the number of lanes; repeat strides count blocks of each operand's own type.
@pytest.mark.parametrize(
    ("source", "target"), [("half", "float"), ("float", "half"), ("int8_t", "half"), ("float", "int32_t")]
)
@pytest.mark.parametrize("bits", [False, True])
def test_masks_and_strides(driver: Driver, rng: np.random.Generator, source: str, target: str, bits: bool):
    mode = SUPPORTED[source, target][0]
    sizes = SIZES[source], SIZES[target]
    lanes = 256 // max(*sizes, 2)
    repeats, strides = 5, (2, 1, 17, 9)  # dst block, src block, dst repeat, src repeat
    image = rng.integers(0, 256, 131072, dtype=np.uint8)
    if source in FLOATS:  # no NaN, whose payload is not compared
        exponents = image.view(CODES[sizes[0]])
        exponents &= np.array(~(1 << (FLOATS[source].bits - 3))).astype(exponents.dtype)
    before = image.copy()
    mask = int(rng.integers(1, lanes + 1))
    words = [int(w) for w in rng.integers(0, 2**63, 2)]
    active = [lane for lane in range(lanes) if (words[lane // 64] >> lane % 64 & 1 if bits else lane < mask)]
    form = (2, *words) if bits else (1, mask, 0)
    driver(
        "Cast",
        code_of(target),
        code_of(source),
        DST,
        SRC,
        MODES.index(mode),
        *form,
        repeats,
        *strides,
        UB=image,
    )
    want = before.copy()
    for repeat in range(repeats):
        for lane in active:
            at = lane_bytes(SRC, sizes[0], strides[1], strides[3], repeat, lane)
            value = unpack(source, before[at : at + sizes[0]], 1)[0]
            to = lane_bytes(DST, sizes[1], strides[0], strides[2], repeat, lane)
            result = np.array([expected(source, target, mode, value)], dtype=np.int64)
            want[to : to + sizes[1]] = pack(target, result)
    assert np.array_equal(image, want)


def test_four_bit_masks_keep_bytes_whole(driver: Driver):
    image = np.zeros(131072, np.uint8)
    call = ("Cast", code_of("half"), code_of("int4b_t"), DST, SRC, 0)
    with pytest.raises(EmulatorError, match="odd number of 4-bit elements"):
        driver(*call, 0, 7, UB=image)
    with pytest.raises(EmulatorError, match="divides the byte of lanes 2 and 3"):
        driver(*call, 2, 0b1011, 0, 1, 1, 1, 8, 2, UB=image)


def test_in_place_conversion_to_another_size_is_refused(driver: Driver):
    with pytest.raises(EmulatorError, match="overlap"):
        driver("Cast", code_of("half"), code_of("float"), 0, 0, 1, 0, 64, UB=np.zeros(131072, np.uint8))
