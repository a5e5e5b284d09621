"""Copies between memories against index formulas on random bytes."""

from __future__ import annotations

import numpy as np
import pytest
from support.instructions import CODES, FLOATS, SIZES, TYPES, Driver, EmulatorError

POSITIONS = (
    "GM",
    "A1",
    "A2",
    "B1",
    "B2",
    "C1",
    "C2",
    "CO1",
    "CO2",
    "VECIN",
    "VECOUT",
    "VECCALC",
    "TSCM",
    "C2PIPE2GM",
)
A1, C1, C2, CO1, VECCALC, FB = (POSITIONS.index(p) for p in ("A1", "C1", "C2", "CO1", "VECCALC", "C2PIPE2GM"))
A2 = POSITIONS.index("A2")


def random_bytes(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.integers(0, 256, count, dtype=np.uint8)


@pytest.mark.parametrize(("position", "memory"), [(VECCALC, "UB"), (A1, "L1")])
@pytest.mark.parametrize(
    ("count", "length", "src_gap", "dst_gap"), [(1, 8, 0, 0), (5, 3, 2, 4), (4, 1, 0, 7), (7, 2, 5, 0)]
)
def test_blocks_with_gaps(
    driver: Driver,
    rng: np.random.Generator,
    position: int,
    memory: str,
    count: int,
    length: int,
    src_gap: int,
    dst_gap: int,
):
    gm, local = random_bytes(rng, 8192), random_bytes(rng, 8192)
    want = local.copy()
    for i in range(count):
        source, target = 12 + 32 * i * (length + src_gap), 64 + 32 * i * (length + dst_gap)
        want[target : target + 32 * length] = gm[source : source + 32 * length]
    cube = memory == "L1"
    parameters = (TYPES.index("float"), position, 64, 12, count, length, src_gap, dst_gap)
    driver("CopyIn", *parameters, cube=cube, GM=gm, **{memory: local})
    assert np.array_equal(local, want)
    out = random_bytes(rng, 8192)
    want = out.copy()
    for i in range(count):
        source, target = 64 + 32 * i * (length + src_gap), 12 + 32 * i * (length + dst_gap)
        want[target : target + 32 * length] = local[source : source + 32 * length]
    parameters = (TYPES.index("float"), 12, position, 64, count, length, src_gap, dst_gap)
    driver("CopyOut", *parameters, cube=cube, GM=out, **{memory: local})
    assert np.array_equal(out, want)


def test_elements(driver: Driver, rng: np.random.Generator):
    gm, local = random_bytes(rng, 8192), random_bytes(rng, 8192)
    want = local.copy()
    want[32 : 32 + 96] = gm[6:102]
    driver("CopyInCount", TYPES.index("half"), VECCALC, 32, 6, 48, GM=gm, UB=local)
    assert np.array_equal(local, want)
    with pytest.raises(EmulatorError, match="no multiple of 32"):
        driver("CopyInCount", TYPES.index("half"), VECCALC, 32, 6, 49, GM=gm, UB=local)


# Units of the destination; into FB distances are from start to start.
@pytest.mark.parametrize(
    ("to", "memory", "unit", "count", "length", "src_gap", "dst_gap"),
    [
        (C2, "BT", 64, 1, 4, 0, 0),
        (C2, "BT", 64, 3, 2, 1, 1),
        (FB, "FB", 128, 1, 5, 0, 0),
        (FB, "FB", 128, 3, 1, 6, 2),
    ],
)
def test_tables(
    driver: Driver,
    rng: np.random.Generator,
    to: int,
    memory: str,
    unit: int,
    count: int,
    length: int,
    src_gap: int,
    dst_gap: int,
):
    l1, table = random_bytes(rng, 4096), random_bytes(rng, 1024)
    want = table.copy()
    size = unit * length
    for i in range(count):
        source = i * (32 * src_gap if memory == "FB" else size + 32 * src_gap)
        target = i * (unit * dst_gap if memory == "FB" else size + unit * dst_gap)
        want[target : target + size] = l1[32 + source : 32 + source + size]
    driver("CopyLocal", to, 0, C1, 32, count, length, src_gap, dst_gap, cube=True, L1=l1, **{memory: table})
    assert np.array_equal(table, want)


def test_within_the_unified_buffer(driver: Driver, rng: np.random.Generator):
    ub = random_bytes(rng, 8192)
    want = ub.copy()
    for i in range(3):
        want[32 * i * 5 :][:64] = ub[4096 + 32 * i * 3 :][:64]
    driver("CopyLocal", VECCALC, 0, VECCALC, 4096, 3, 2, 1, 3, UB=ub)
    assert np.array_equal(ub, want)
    with pytest.raises(EmulatorError, match="overlap"):
        driver("CopyLocal", VECCALC, 0, VECCALC, 32, 1, 2, 0, 0, UB=ub)


@pytest.mark.parametrize(("to", "source"), [(C2, A2), (A1, A1), (FB, CO1)])
def test_paths_that_do_not_exist(driver: Driver, to: int, source: int):
    memory = np.zeros(4096, np.uint8)
    with pytest.raises(EmulatorError, match=r"no path from|has no pipe V"):
        driver(
            "CopyLocal",
            to,
            0,
            source,
            0,
            1,
            1,
            0,
            0,
            cube=True,
            L1=memory,
            L0A=memory.copy(),
            L0C=memory.copy(),
        )


@pytest.mark.parametrize("kind", ["int8_t", "half", "bfloat16_t", "int32_t", "float"])
@pytest.mark.parametrize(("elements", "count"), [(1, 1), (5, 3), (17, 4), (16, 2), (32, 2), (33, 1)])
def test_unaligned_bursts(driver: Driver, rng: np.random.Generator, kind: str, elements: int, count: int):
    size = SIZES[kind]
    length, src_gap, dst_gap = elements * size, 3 * size, 2
    gm, ub = random_bytes(rng, 4096), random_bytes(rng, 8192)
    want = ub.copy()
    whole = -(-length // 32) * 32
    for i in range(count):
        target = 64 + i * (whole + 32 * dst_gap)
        want[target : target + length] = gm[5 * size + i * (length + src_gap) :][:length]
        want[target + length : target + whole] = 0xFF if kind in FLOATS else 0x7F  # dummy data
    call = (TYPES.index(kind), VECCALC, 64, 5 * size, count, length, src_gap, dst_gap)
    driver("CopyPadIn", *call, 0, 0, 0, 0, 0, GM=gm, UB=ub)
    assert np.array_equal(ub, want)

    out = random_bytes(rng, 4096)
    want = out.copy()
    for i in range(count):
        want[7 + i * (length + 11) :][:length] = ub[64 + i * (whole + 32 * dst_gap) :][:length]
    driver("CopyPadOut", TYPES.index(kind), 7, VECCALC, 64, count, length, dst_gap, 11, 0, GM=out, UB=ub)
    assert np.array_equal(out, want)


@pytest.mark.parametrize("by_register", [False, True])
@pytest.mark.parametrize(("left", "right"), [(0, 3), (2, 0), (3, 5), (8, 8)])
def test_padding(driver: Driver, rng: np.random.Generator, left: int, right: int, by_register: bool):
    gm, ub = random_bytes(rng, 4096), random_bytes(rng, 4096)
    elements, count = 7, 3
    value = 0x3FC00000
    want = ub.copy().view(np.uint32)
    whole = -(-(left + elements + right) // 8) * 8
    for i in range(count):
        row = np.full(whole, value, np.uint32)
        row[left : left + elements] = gm[i * 4 * elements :][: 4 * elements].view(np.uint32)
        want[i * whole : (i + 1) * whole] = row
    driver(
        "CopyPadIn",
        TYPES.index("float"),
        VECCALC,
        0,
        0,
        count,
        4 * elements,
        0,
        0,
        not by_register,
        left,
        right,
        value,
        by_register,
        GM=gm,
        UB=ub,
    )
    assert np.array_equal(ub, want.view(np.uint8))


def test_limits_of_unaligned_copies(driver: Driver):
    gm, ub = np.zeros(65536, np.uint8), np.zeros(65536, np.uint8)
    call = (TYPES.index("float"), VECCALC, 0, 0)
    with pytest.raises(EmulatorError, match="no multiple of float's size"):
        driver("CopyPadIn", *call, 1, 6, 0, 0, 0, 0, 0, 0, 0, GM=gm, UB=ub)
    with pytest.raises(EmulatorError, match="at most 4095"):
        driver("CopyPadIn", *call, 4096, 4, 0, 0, 0, 0, 0, 0, 0, GM=gm, UB=ub)
    with pytest.raises(EmulatorError, match="at most 32 bytes"):
        driver("CopyPadIn", *call, 1, 4, 0, 0, 1, 9, 0, 0, 0, GM=gm, UB=ub)
    with pytest.raises(EmulatorError, match="misaligned"):
        driver("CopyPadIn", TYPES.index("float"), VECCALC, 16, 0, 1, 4, 0, 0, 0, 0, 0, 0, 0, GM=gm, UB=ub)


def test_unaligned_copies_to_l1_do_not_exist(driver: Driver):
    gm, l1 = np.zeros(4096, np.uint8), np.zeros(4096, np.uint8)
    with pytest.raises(EmulatorError, match="exists between GM and UB only on this chip, not for L1"):
        driver("CopyPadIn", 1, A1, 0, 0, 1, 4, 0, 0, 0, 0, 0, 0, 0, cube=True, GM=gm, L1=l1)
    with pytest.raises(EmulatorError, match="exists between GM and UB only on this chip, not for L1"):
        driver("CopyPadOut", 1, 0, A1, 0, 1, 4, 0, 0, 0, cube=True, GM=gm, L1=l1)


@pytest.mark.parametrize("kind", ["half", "bfloat16_t", "float", "int32_t", "int16_t", "int8_t"])
def test_atomic_addition(driver: Driver, rng: np.random.Generator, kind: str):
    size, count = SIZES[kind], 19
    if kind in FLOATS:
        form = FLOATS[kind]
        bias = (1 << (form.exponent - 1)) - 1
        codes = (rng.integers(bias - 3, bias + 3, 2 * count) << form.fraction) | rng.integers(
            0, 1 << form.fraction, 2 * count
        )
        old, new = codes.reshape(2, count)
        total = [
            form.encode(form.decode(int(a)) + form.decode(int(b))) for a, b in zip(old, new, strict=True)
        ]
    else:
        old, new = rng.integers(-60, 60, (2, count))
        total = (old + new).tolist()
    unsigned = CODES[size]
    gm, ub = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    gm[: count * size] = old.astype(np.int64).astype(unsigned).view(np.uint8)
    ub[: count * size] = new.astype(np.int64).astype(unsigned).view(np.uint8)
    driver("CopyPadOut", TYPES.index(kind), 0, VECCALC, 0, 1, count * size, 0, 0, 1, GM=gm, UB=ub)
    assert np.array_equal(gm[: count * size].view(unsigned), np.array(total, np.int64).astype(unsigned))


def test_atomic_addition_in_another_format_is_refused(driver: Driver):
    with pytest.raises(EmulatorError, match="SetAtomicAdd is on for another type than int32_t"):
        driver("AtomicOfAnotherType", GM=np.zeros(64, np.uint8), UB=np.zeros(64, np.uint8))


@pytest.mark.parametrize("kind", ["int8_t", "half", "bfloat16_t", "int32_t", "float", "int4b_t"])
@pytest.mark.parametrize(
    ("matrices", "rows", "columns", "width", "row_stride", "extra"),
    [
        (1, 16, 64, 64, 1, 0),
        (1, 23, 41, 50, 1, 9),
        (3, 8, 23, 23, 2, 5),
        (1, 1, 7, 7, 1, 15),
        (2, 17, 33, 40, 1, 0),
    ],
)
def test_rows_to_fractals(
    driver: Driver,
    rng: np.random.Generator,
    kind: str,
    matrices: int,
    rows: int,
    columns: int,
    width: int,
    row_stride: int,
    extra: int,
):
    """Element (n, d) goes to (d / C0) * dstNzC0Stride * C0 + n * dstNzNStride * C0 + d % C0."""
    size = 1 if kind == "int4b_t" else SIZES[kind]  # 4-bit data are given as bytes
    c0 = 32 // size
    column_stride = rows * row_stride + extra
    matrix = -(-columns // c0) * column_stride * c0
    gm, l1 = random_bytes(rng, 3 + matrices * rows * width * size), random_bytes(rng, 65536)
    unsigned = CODES[size]
    source = gm[3 : 3 + matrices * rows * width * size].copy().view(unsigned)
    want = l1.copy().view(unsigned)
    base = 64 // size
    for m in range(matrices):
        for n in range(rows):
            for d in range(-(-columns // c0) * c0):
                at = base + m * matrix + (d // c0) * column_stride * c0 + n * row_stride * c0 + d % c0
                want[at] = source[m * rows * width + n * width + d] if d < columns else 0
    driver(
        "Nd2Nz",
        TYPES.index(kind),
        64,
        3,
        matrices,
        rows,
        columns,
        rows * width,
        width,
        column_stride,
        row_stride,
        matrix,
        cube=True,
        GM=gm,
        L1=l1,
    )
    assert np.array_equal(l1, want.view(np.uint8))


def test_a_repeated_row(driver: Driver, rng: np.random.Generator):
    """Source stride 0 copies the same row into every matrix."""
    gm, l1 = random_bytes(rng, 40), np.zeros(4096, np.uint8)
    driver("Nd2Nz", TYPES.index("float"), 0, 0, 4, 1, 10, 0, 10, 1, 1, 16, cube=True, GM=gm, L1=l1)
    got = l1[: 4 * 64].view(np.uint32).reshape(4, 16)
    want = np.zeros(16, np.uint32)
    want[:10] = gm.view(np.uint32)
    assert np.array_equal(got, np.tile(want, (4, 1)))


def test_limits_of_rows_to_fractals(driver: Driver):
    gm, l1 = np.zeros(65536, np.uint8), np.zeros(65536, np.uint8)
    with pytest.raises(EmulatorError, match="nValue 16385"):
        driver("Nd2Nz", TYPES.index("half"), 0, 0, 1, 16385, 1, 0, 1, 1, 1, 0, cube=True, GM=gm, L1=l1)
    with pytest.raises(EmulatorError, match="strides of the destination at most 16384"):
        driver("Nd2Nz", TYPES.index("half"), 0, 0, 1, 2, 16, 0, 16, 16385, 1, 0, cube=True, GM=gm, L1=l1)
    with pytest.raises(EmulatorError, match=r"a vector core has no pipe|belongs to the cube cores"):
        driver("Nd2Nz", TYPES.index("half"), 0, 0, 1, 2, 16, 0, 16, 2, 1, 0, GM=gm)
