"""The matrix unit: fractal layouts against index formulas, products against exact sums."""

from __future__ import annotations

import numpy as np
import pytest
from support.instructions import CODES, SIZES, TYPES, Driver, EmulatorError
from test_instructions_copies import POSITIONS, random_bytes

A2, B2 = POSITIONS.index("A2"), POSITIONS.index("B2")
BITS = {kind: 4 if kind == "int4b_t" else 8 * size for kind, size in [*SIZES.items(), ("int4b_t", 0)]}


def nibbles(data: np.ndarray) -> np.ndarray:
    """Elements of 4 bits, the low half of a byte first."""
    return np.stack([data & 15, data >> 4], axis=-1).reshape(*data.shape[:-1], -1)


def elements(kind: str, data: np.ndarray) -> np.ndarray:
    return nibbles(data) if kind == "int4b_t" else data.view(CODES[SIZES[kind]])


def as_bytes(kind: str, values: np.ndarray) -> np.ndarray:
    if kind == "int4b_t":
        return (values[0::2] | values[1::2] << 4).astype(np.uint8)
    return values.view(np.uint8)


@pytest.mark.parametrize("from_gm", [False, True])
@pytest.mark.parametrize(
    ("start", "repeats", "src_stride", "dst_gap"), [(0, 4, 1, 0), (3, 5, 2, 1), (1, 3, 0, 2), (0, 1, 0, 0)]
)
@pytest.mark.parametrize("position", [A2, B2])
def test_fractals(
    driver: Driver,
    rng: np.random.Generator,
    position: int,
    start: int,
    repeats: int,
    src_stride: int,
    dst_gap: int,
    from_gm: bool,
):
    source, l0 = random_bytes(rng, 16384), random_bytes(rng, 16384)
    want = l0.copy()
    for i in range(repeats):
        fractal = source[32 + 512 * (start + i * src_stride) :][:512]
        want[512 + 512 * i * (1 + dst_gap) :][:512] = fractal
    memory = "L0A" if position == A2 else "L0B"
    images = {memory: l0, "GM" if from_gm else "L1": source}
    driver(
        "LoadData",
        TYPES.index("int8_t"),
        from_gm,
        position,
        512,
        32,
        start,
        repeats,
        src_stride,
        dst_gap,
        0,
        cube=True,
        **images,
    )
    assert np.array_equal(l0, want)


@pytest.mark.parametrize("kind", ["half", "bfloat16_t", "int16_t"])
def test_transposed_fractals_of_16_bits(driver: Driver, rng: np.random.Generator, kind: str):
    l1, l0 = random_bytes(rng, 8192), random_bytes(rng, 8192)
    want = l0.copy()
    for i in range(3):
        square = l1[512 * (1 + 2 * i) :][:512].view(np.uint16).reshape(16, 16)
        want[512 * 2 * i :][:512] = np.ascontiguousarray(square.T).reshape(-1).view(np.uint8)
    driver("LoadData", TYPES.index(kind), 0, A2, 0, 0, 1, 3, 2, 1, 1, cube=True, L1=l1, L0A=l0)
    assert np.array_equal(l0, want)
    with pytest.raises(EmulatorError, match="ifTranspose takes 16-bit elements"):
        driver("LoadData", TYPES.index("int8_t"), 0, A2, 0, 0, 1, 3, 2, 1, 1, cube=True, L1=l1, L0A=l0)


# Fractals that make a square, whether they lie below each other, the square's side.
SQUARES = {
    "int8_t": (2, True, 32),
    "half": (1, True, 16),
    "bfloat16_t": (1, True, 16),
    "float": (2, False, 16),
    "int32_t": (2, False, 16),
    "int4b_t": (4, True, 64),
}


@pytest.mark.parametrize("kind", SQUARES)
@pytest.mark.parametrize(
    ("start", "repeats", "src_stride", "dst_gap", "fractal_gap"),
    [(0, 1, 0, 0, 0), (1, 3, 1, 7, 0), (0, 3, 2, 0, 2)],
)
def test_transposed_squares(
    driver: Driver,
    rng: np.random.Generator,
    kind: str,
    start: int,
    repeats: int,
    src_stride: int,
    dst_gap: int,
    fractal_gap: int,
):
    fractals, below, side = SQUARES[kind]
    if fractals == 4 and fractal_gap:
        fractal_gap = 3  # so that fractals do not overlap
    l1, l0 = random_bytes(rng, 32768), random_bytes(rng, 32768)
    want = l0.copy()
    for i in range(repeats):
        begin = 32 + 512 * fractals * (start + i * src_stride)
        parts = elements(kind, l1[begin : begin + 512 * fractals].copy()).reshape(fractals, 16, -1)
        square = np.concatenate(list(parts), axis=0 if below else 1)
        assert square.shape == (side, side)
        turned = np.ascontiguousarray(square.T)
        pieces = np.split(turned, fractals, axis=0 if below else 1)
        for j, piece in enumerate(pieces):
            at = 512 * (i * (1 + dst_gap) + j * (1 + fractal_gap))
            want[at : at + 512] = as_bytes(kind, np.ascontiguousarray(piece).reshape(-1))
    driver(
        "LoadDataWithTranspose",
        TYPES.index(kind),
        B2,
        0,
        32,
        start,
        repeats,
        src_stride,
        dst_gap,
        fractal_gap,
        cube=True,
        L1=l1,
        L0B=l0,
    )
    assert np.array_equal(l0, want)


def test_what_transposed_squares_refuse(driver: Driver):
    l1, l0 = np.zeros(8192, np.uint8), np.zeros(8192, np.uint8)
    with pytest.raises(EmulatorError, match="int4b_t can be loaded to L0B only"):
        driver(
            "LoadDataWithTranspose", TYPES.index("int4b_t"), A2, 0, 0, 0, 1, 1, 0, 0, cube=True, L1=l1, L0A=l0
        )
    with pytest.raises(EmulatorError, match="fractals of the destination overlap"):
        driver(
            "LoadDataWithTranspose", TYPES.index("int8_t"), B2, 0, 0, 0, 2, 1, 0, 0, cube=True, L1=l1, L0B=l0
        )
    with pytest.raises(EmulatorError, match="misaligned"):
        driver(
            "LoadDataWithTranspose",
            TYPES.index("int8_t"),
            B2,
            256,
            0,
            0,
            1,
            1,
            0,
            0,
            cube=True,
            L1=l1,
            L0B=l0,
        )


@pytest.mark.parametrize(("k", "n"), [(64, 64), (96, 32), (32, 160)])
def test_a_weight_in_rows_reaches_the_layout_of_b(driver: Driver, rng: np.random.Generator, k: int, n: int):
    """[k, n] bytes through Nd2Nz and transposing loads: fractal (k / 32, n / 16) has 16 columns."""
    w = rng.integers(-128, 128, (k, n)).astype(np.int8)
    l1, l0 = np.zeros(k * n, np.uint8), np.zeros(k * n, np.uint8)
    driver(
        "Nd2Nz",
        TYPES.index("int8_t"),
        0,
        0,
        1,
        k,
        n,
        0,
        n,
        k,
        1,
        0,
        cube=True,
        GM=w.reshape(-1).view(np.uint8),
        L1=l1,
    )
    for block in range(k // 32):  # squares of one row of blocks are k / 32 squares apart in L1
        part = np.zeros(k * n, np.uint8)
        driver(
            "LoadDataWithTranspose",
            TYPES.index("int8_t"),
            B2,
            0,
            0,
            block,
            n // 32,
            k // 32,
            1,
            0,
            cube=True,
            L1=l1,
            L0B=part,
        )
        l0[block * 32 * n :][: 32 * n] = part[: 32 * n]
    got = l0.view(np.int8).reshape(k // 32, n // 16, 16, 32)
    for i, j in np.ndindex(k // 32, n // 16):
        assert np.array_equal(got[i, j], w[32 * i : 32 * i + 32, 16 * j : 16 * j + 16].T)


# Code of the driver, input type, elements of 32 bytes.
PRODUCTS = {"int8_t": (0, 32), "int4b_t": (1, 64), "half": (2, 16), "bfloat16_t": (3, 16), "float": (4, 8)}


def to_codes(kind: str, values: np.ndarray) -> np.ndarray:
    """Whole numbers of small magnitude, or multiples of 1/8, exactly."""
    if kind == "int4b_t":
        return (values & 15).astype(np.uint8)
    if kind == "int8_t":
        return values.astype(np.int8).view(np.uint8)
    single = (values / 8).astype(np.float32)
    if kind == "bfloat16_t":
        return (single.view(np.uint32) >> 16).astype(np.uint16)
    return single.astype({"half": np.float16, "float": np.float32}[kind]).view(CODES[SIZES[kind]])


def left_image(kind: str, a: np.ndarray, row_fractals: int, fill: int) -> np.ndarray:
    """Zz: fractals of 16 rows by 32 bytes, rows of fractals one after another."""
    c0 = PRODUCTS[kind][1]
    m, k = a.shape
    whole = np.full((-(-m // 16) * 16, row_fractals * c0), fill, a.dtype)
    whole[:m, :k] = a
    return as_bytes(kind, whole.reshape(-1, 16, row_fractals, c0).transpose(0, 2, 1, 3).reshape(-1).copy())


def right_image(kind: str, b: np.ndarray, fill: int) -> np.ndarray:
    """Zn: fractals of 32 bytes of k by 16 contiguous columns, rows of fractals one after another."""
    c0 = PRODUCTS[kind][1]
    k, n = b.shape
    whole = np.full((-(-k // c0) * c0, -(-n // 16) * 16), fill, b.dtype)
    whole[:k, :n] = b
    return as_bytes(
        kind, whole.reshape(-1, c0, whole.shape[1] // 16, 16).transpose(0, 2, 3, 1).reshape(-1).copy()
    )


def result_image(c: np.ndarray) -> np.ndarray:
    """Nz: columns of 16, all rows of one after another."""
    rows, columns = c.shape
    return (
        np.ascontiguousarray(c.reshape(rows, columns // 16, 16).transpose(1, 0, 2)).reshape(-1).view(np.uint8)
    )


@pytest.mark.parametrize("kind", PRODUCTS)
@pytest.mark.parametrize(
    ("m", "n", "k"), [(16, 16, 64), (30, 40, 70), (2, 17, 9), (33, 64, 128), (1, 32, 100), (64, 16, 33)]
)
@pytest.mark.parametrize("start", ["zero", "result", "bias"])
def test_products(driver: Driver, rng: np.random.Generator, kind: str, m: int, n: int, k: int, start: str):
    code, c0 = PRODUCTS[kind]
    if kind == "int4b_t":
        k += k % 2
    low, high = (-8, 8) if kind == "int4b_t" else (-128, 128)
    a, b = rng.integers(low, high, (m, k)), rng.integers(low, high, (k, n))
    integer = kind.startswith("int")
    dtype, unit = (np.int32, 1) if integer else (np.float32, 64)
    rows, columns = -(-m // 16) * 16, -(-n // 16) * 16
    initial = rng.integers(-(2**18), 2**18, (rows, columns))
    if start == "bias":
        initial[:] = initial[0]
    exact = a @ b + (0 if start == "zero" else initial[:m, :n])
    fill = 0x7F if integer else 0x7E00  # must not be used: large, or NaN in half
    if kind == "int4b_t":
        fill = 7
    if m == 1:
        row = np.full(-(-k // c0) * c0, fill, to_codes(kind, a).dtype)
        row[:k] = to_codes(kind, a)[0]
        left = as_bytes(kind, row)
    else:
        left = left_image(kind, to_codes(kind, a), -(-k // c0), fill)
    right = right_image(kind, to_codes(kind, b), fill)
    out = result_image((initial / unit).astype(dtype))
    table = (initial[0] / unit).astype(dtype).view(np.uint8)
    images = {"L0A": left, "L0B": right, "L0C": out, "BT": np.pad(table, (0, 1024 - table.size))}
    call = ("Mmad", code, 0, 0, 0, ["zero", "result", "bias"].index(start), 0, m, n, k, 0)
    if kind == "int4b_t" and start == "bias":
        with pytest.raises(EmulatorError, match="int4b_t takes no bias"):
            driver(*call, cube=True, **images)
        return
    driver(*call, cube=True, **images)
    got = out.view(dtype).reshape(columns // 16, rows, 16).transpose(1, 0, 2).reshape(rows, columns)[:m, :n]
    assert np.array_equal(got.astype(np.float64) * unit, exact.astype(np.float64))


def test_float_products_aligned_to_16(driver: Driver, rng: np.random.Generator):
    m, n, k = 32, 16, 36
    a, b = rng.integers(-128, 128, (m, k)), rng.integers(-128, 128, (k, n))
    left = left_image("float", to_codes("float", a), 6, 0x7FC00000)  # 48 / 8 fractals
    out = np.zeros(m * n * 4, np.uint8)
    driver(
        "Mmad",
        4,
        0,
        0,
        0,
        0,
        0,
        m,
        n,
        k,
        1,
        cube=True,
        L0A=left,
        L0B=right_image("float", to_codes("float", b), 0),
        L0C=out,
    )
    assert np.array_equal(out.view(np.float32).reshape(m, n) * 64, (a @ b).astype(np.float32))


def test_integer_sums_wrap(driver: Driver):
    ones = np.full(512, 1, np.uint8)
    out = np.full(256, 2**31 - 10, np.int32).view(np.uint8)
    driver("Mmad", 0, 0, 0, 0, 1, 0, 16, 16, 32, 0, cube=True, L0A=ones, L0B=ones.copy(), L0C=out)
    assert np.all(out.view(np.int32) == -(2**31) + 22)


def test_float_sums_round_once(driver: Driver, rng: np.random.Generator):
    m, n, k = 16, 16, 64
    a, b = (rng.normal(size=shape).astype(np.float16) for shape in ((m, k), (k, n)))
    out = np.zeros(m * n * 4, np.uint8)
    driver(
        "Mmad",
        2,
        0,
        0,
        0,
        0,
        0,
        m,
        n,
        k,
        0,
        cube=True,
        L0A=left_image("half", a.view(np.uint16), 4, 0),
        L0B=right_image("half", b.view(np.uint16), 0),
        L0C=out,
    )
    exact = a.astype(np.float64) @ b.astype(np.float64)
    assert (
        np.max(
            np.abs(out.view(np.float32).reshape(m, n) - exact) / np.spacing(np.abs(exact).astype(np.float32))
        )
        <= 0.501
    )


@pytest.mark.parametrize(
    ("code", "problem"), [(5, "int8_t times int8_t to float"), (6, "uint8_t times uint8_t to int32_t")]
)
def test_products_that_do_not_exist(driver: Driver, code: int, problem: str):
    zeros = np.zeros(4096, np.uint8)
    with pytest.raises(EmulatorError, match=problem):
        driver(
            "Mmad",
            code,
            0,
            0,
            0,
            0,
            0,
            16,
            16,
            32,
            0,
            cube=True,
            L0A=zeros,
            L0B=zeros.copy(),
            L0C=zeros.copy(),
        )


def test_the_result_starts_at_a_multiple_of_1024(driver: Driver):
    zeros = np.zeros(4096, np.uint8)
    with pytest.raises(EmulatorError, match="1024"):
        driver(
            "Mmad",
            0,
            512,
            0,
            0,
            0,
            0,
            16,
            16,
            32,
            0,
            cube=True,
            L0A=zeros,
            L0B=zeros.copy(),
            L0C=zeros.copy(),
        )


@pytest.mark.parametrize(
    ("m", "n", "barrier", "passes"), [(32, 32, 0, False), (32, 32, 1, True), (64, 64, 0, True)]
)
def test_short_sums_need_a_barrier(driver: Driver, m: int, n: int, barrier: int, passes: bool):
    images = {
        "L0A": np.zeros(m * 32, np.uint8),
        "L0B": np.zeros(n * 32, np.uint8),
        "L0C": np.zeros(m * n * 4, np.uint8),
    }
    if passes:
        driver("MmadTwice", m, n, barrier, cube=True, **images)
        return
    with pytest.raises(EmulatorError, match="missing PipeBarrier<PIPE_M>"):
        driver("MmadTwice", m, n, barrier, cube=True, **images)


@pytest.mark.parametrize(
    ("mmad", "fixpipe", "problem"),
    [
        (3, 3, ""),
        (0, 0, "missing event M_FIX"),
        (2, 3, "unit flag is 0"),
        (3, 2, "unit flag of L0C block 0 is left set"),
        (1, 1, "unitFlag is 1, not 0, 2 or 3"),
    ],
)
def test_unit_flags_order_a_product_and_its_way_out(driver: Driver, mmad: int, fixpipe: int, problem: str):
    ones = np.full(256, 0x3C00, np.uint16).view(np.uint8)
    gm, l0c = np.zeros(1024, np.uint8), np.zeros(1024, np.uint8)
    images = {"L0A": ones, "L0B": ones.copy(), "L0C": l0c, "GM": gm}
    if problem:
        with pytest.raises(EmulatorError, match=problem):
            driver("UnitFlags", mmad, fixpipe, cube=True, **images)
        return
    driver("UnitFlags", mmad, fixpipe, cube=True, **images)
    assert np.all(gm.view(np.float32) == 16)
