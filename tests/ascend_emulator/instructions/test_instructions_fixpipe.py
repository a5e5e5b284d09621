"""Fixpipe: conversions against the definition of the quantisation word, layouts against index formulas."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from support.instructions import CODES, FLOATS, SIZES, Driver, EmulatorError, round_to_integer

QUANT = (
    "NoQuant",
    "F322F16",
    "F322BF16",
    "DEQF16",
    "VDEQF16",
    "QF322B8_PRE",
    "VQF322B8_PRE",
    "REQ8",
    "VREQ8",
)
OUTPUTS = ("half", "float", "bfloat16_t", "int8_t", "uint8_t", "int32_t")
FIXPIPE = [
    ("NoQuant", "float", "float"),
    ("NoQuant", "int32_t", "int32_t"),
    ("F322F16", "float", "half"),
    ("F322BF16", "float", "bfloat16_t"),
    ("DEQF16", "int32_t", "half"),
    ("VDEQF16", "int32_t", "half"),
    *[(mode, "float", kind) for mode in ("QF322B8_PRE", "VQF322B8_PRE") for kind in ("int8_t", "uint8_t")],
    *[(mode, "int32_t", kind) for mode in ("REQ8", "VREQ8") for kind in ("int8_t", "uint8_t")],
]


def quantisation_word(scale: float, offset: int, signed: bool) -> int:
    bits = int(np.float32(scale).view(np.uint32))
    return bits | (offset & 0x1FF) << 37 | int(signed) << 46


def converted(mode: str, source: str, target: str, code: int, word: int, relu: bool) -> int:
    """By exact arithmetic: fp19 multiplier, product rounded to float, nine bits, offset, eight bits."""
    value = FLOATS["float"].decode(code) if source == "float" else Fraction(code - (code >> 31 << 32))
    assert isinstance(value, Fraction)
    if relu:
        value = max(value, Fraction(0))
    if mode == "NoQuant":
        return FLOATS["float"].encode(value) if target == "float" else int(value) & 0xFFFFFFFF
    if mode.startswith("F32"):
        return FLOATS[target].encode(value)
    scale = FLOATS["float"].decode(word & 0xFFFFE000)
    single = FLOATS["float"]
    number = value if source == "float" else single.decode(single.encode(value))
    product = single.decode(single.encode(number * scale))
    assert isinstance(product, Fraction)
    if target == "half":
        return FLOATS["half"].encode(product)
    offset = (word >> 37 & 0x1FF) - (word >> 45 & 1) * 512
    nine = min(max(round_to_integer(product, "RINT"), -256), 255) + offset
    low, high = (-128, 127) if word >> 46 & 1 else (0, 255)
    return min(max(nine, low), high) & 255


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("nz", [False, True])
@pytest.mark.parametrize(("mode", "source", "target"), FIXPIPE)
@pytest.mark.parametrize(("m", "n"), [(16, 16), (24, 48), (3, 64)])
def test_conversions_on_the_way_out(
    driver: Driver,
    rng: np.random.Generator,
    mode: str,
    source: str,
    target: str,
    m: int,
    n: int,
    nz: bool,
    relu: bool,
):
    src_stride, size = 48, SIZES[target]
    if source == "float":
        codes = (rng.normal(size=(src_stride, n)) * 200).astype(np.float32).view(np.uint32)
        codes[0, :4] = np.array([0.5, 1.5, -2.5, 65520.0], np.float32).view(np.uint32)
    else:
        codes = rng.integers(-(2**20), 2**20, (src_stride, n)).astype(np.int32).view(np.uint32)
        codes[0, :2] = [2**24 + 1, 2**32 - 2**24 - 1]
    spread = 1.0 if source == "float" else 2e-4
    scales = np.exp2(rng.uniform(-1, 1, n)) * spread * rng.choice([-1, 1], n)
    words = [
        quantisation_word(s, int(rng.integers(-256, 256)) if size == 1 else 0, target == "int8_t")
        for s in scales
    ]
    by_column = mode.startswith("V")
    dst_stride = (
        (m + 5 if nz else n + 7) if not nz else -(-(m * 32 * (1 if size == 1 else size // 2)) // 32) + 3
    )
    width = (32 if size == 1 else 16) if nz else n
    gm = rng.integers(0, 256, 65536, dtype=np.uint8)
    want = gm.copy().view(CODES[size])
    base = 64 // size
    for row in range(m):
        for column in range(n):
            word = words[column if by_column else 0]
            value = converted(mode, source, target, int(codes[row, column]), word, relu)
            if nz:  # blocks of 16 columns, of 32 for bytes but for a last odd one
                block = column // width
                together = min(width, n - block * width)
                at = block * dst_stride * 32 // size + row * together + column % width
            else:
                at = row * dst_stride + column
            want[base + at] = value
    table = np.array(words, np.uint64).view(np.uint8)
    image = (
        np.ascontiguousarray(codes.reshape(src_stride, n // 16, 16).transpose(1, 0, 2))
        .reshape(-1)
        .view(np.uint8)
    )
    driver(
        "Fixpipe",
        source == "float",
        OUTPUTS.index(target),
        64,
        0,
        32 if by_column else -1,
        nz,
        0,
        n,
        m,
        src_stride,
        dst_stride,
        QUANT.index(mode),
        words[0],
        relu,
        cube=True,
        GM=gm,
        L0C=image,
        L1=np.concatenate([np.zeros(32, np.uint8), table]),
    )
    if target == "half":  # zeros may have either sign
        for zeros in (gm.view(np.uint16), want):
            zeros[zeros == 0x8000] = 0
    wrong = np.flatnonzero(gm != want.view(np.uint8))
    assert wrong.size == 0, (wrong[:8], gm[wrong[:8]], want.view(np.uint8)[wrong[:8]])


def test_results_add_atomically(driver: Driver, rng: np.random.Generator):
    old, new = rng.integers(-1000, 1000, (2, 16, 16)).astype(np.int32)
    gm, l0 = old.copy().reshape(-1).view(np.uint8), new.copy().reshape(-1).view(np.uint8)
    driver(
        "Fixpipe",
        0,
        OUTPUTS.index("int32_t"),
        0,
        0,
        -1,
        0,
        1,
        16,
        16,
        16,
        16,
        0,
        0,
        0,
        cube=True,
        GM=gm,
        L0C=l0,
    )
    assert np.array_equal(gm.view(np.int32).reshape(16, 16), old + new)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"n": 24}, "nSize is 24"),
        ({"m": 8193}, "mSize is 8193"),
        ({"word": quantisation_word(math.inf, 0, True)}, "not a normal number"),
        ({"word": quantisation_word(1e-40, 0, True)}, "not a normal number"),
        ({"word": quantisation_word(1.0, 0, True) | 1 << 36}, "bit 36"),
        ({"mode": "VREQ8"}, "needs a table"),
        ({"mode": "DEQF16"}, "DEQF16 does not convert int32_t to int8_t"),
    ],
)
def test_what_the_way_out_refuses(driver: Driver, change: dict[str, int | str], problem: str):
    call = {"n": 16, "m": 16, "word": quantisation_word(1.0, 0, True), "mode": "REQ8", **change}
    with pytest.raises(EmulatorError, match=problem):
        driver(
            "Fixpipe",
            0,
            OUTPUTS.index("int8_t"),
            0,
            0,
            -1,
            0,
            0,
            call["n"],
            call["m"],
            16,
            64,
            QUANT.index(str(call["mode"])),
            call["word"],
            0,
            cube=True,
            GM=np.zeros(65536, np.uint8),
            L0C=np.zeros(65536, np.uint8),
        )
