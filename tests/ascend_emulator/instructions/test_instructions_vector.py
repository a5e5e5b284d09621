"""Arithmetic, fills and copies of the vector unit against exact arithmetic, with all masks and strides."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from support.instructions import CODES, FLOATS, RANGES, SIZES, TYPES, Driver, EmulatorError, lane_bytes

COUNT, MASK, BITS, COUNTER = range(4)
NUMBERS = ("int16_t", "half", "int32_t", "float")
REALS = ("half", "float")
UB = 131072
Number = Fraction | float

BINARY: dict[str, tuple[Callable[[Fraction, Fraction], Fraction], tuple[str, ...]]] = {
    "Add": (lambda a, b: a + b, NUMBERS),
    "Sub": (lambda a, b: a - b, NUMBERS),
    "Mul": (lambda a, b: a * b, NUMBERS),
    "Max": (max, NUMBERS),
    "Min": (min, NUMBERS),
    "Div": (lambda a, b: a / b, REALS),
    "And": (lambda a, b: Fraction(int(a) & int(b)), ("int16_t",)),
    "Or": (lambda a, b: Fraction(int(a) | int(b)), ("int16_t",)),
}
# Of the destination before, and the sources.
TERNARY: dict[str, tuple[Callable[[Fraction, Fraction, Fraction], Fraction], tuple[str, ...]]] = {
    "FusedMulAdd": (lambda d, a, b: d * a + b, REALS),
    "MulAddDst": (lambda d, a, b: a * b + d, REALS),
}
UNARY: dict[str, tuple[Callable[[Fraction], Fraction], tuple[str, ...]]] = {
    "Abs": (abs, REALS),
    "Relu": (lambda a: max(a, Fraction(0)), ("half", "int32_t", "float")),
    "Reciprocal": (lambda a: 1 / a, REALS),
}
SCALAR: dict[str, Callable[[Fraction, Fraction], Fraction]] = {
    "Adds": lambda a, b: a + b,
    "Muls": lambda a, b: a * b,
    "Maxs": max,
    "Mins": min,
}


def random_values(kind: str, count: int, rng: np.random.Generator) -> np.ndarray:
    """Codes of finite numbers other than zero whose products fit."""
    if kind in FLOATS:
        form = FLOATS[kind]
        bias = (1 << (form.exponent - 1)) - 1
        spread = min(bias // 4, 12)
        fields = rng.integers(bias - spread, bias + spread, count, dtype=np.uint64) << form.fraction
        codes = fields | rng.integers(0, 1 << form.fraction, count, dtype=np.uint64)
        return (codes | rng.integers(0, 2, count).astype(np.uint64) << np.uint64(form.bits - 1)).astype(
            CODES[SIZES[kind]]
        )
    largest = 2 ** (4 * SIZES[kind] - 1) - 1
    values = rng.integers(1, largest, count) * rng.choice([-1, 1], count)
    return values.astype(f"int{8 * SIZES[kind]}").view(CODES[SIZES[kind]])


def value_of(kind: str, code: int) -> Fraction:
    if kind in FLOATS:
        number = FLOATS[kind].decode(code)
        assert isinstance(number, Fraction)
        return number
    half = 1 << (8 * SIZES[kind] - 1)
    return Fraction(code - 2 * half * (code >= half))


def code_of(kind: str, value: Fraction) -> int:
    if kind in FLOATS:
        return FLOATS[kind].encode(value)
    assert RANGES[kind][0] <= value <= RANGES[kind][1]
    return int(value) % (1 << (8 * SIZES[kind]))


class Forms:
    """A random mask or count with random strides: what to pass, and which lanes take part."""

    def __init__(self, form: int, kind: str, operands: int, rng: np.random.Generator):
        lanes = 256 // SIZES[kind]
        if form == COUNT:
            self.count = int(rng.integers(1, 5 * lanes))
            self.parameters: list[int] = [form, self.count]
            self.blocks, self.repeats = [1] * operands, [8] * operands
            self.active = [(i // lanes, i % lanes) for i in range(self.count)]
            return
        repeats = int(rng.integers(1, 6))
        words = [int(w) for w in rng.integers(0, 2**64, 2, dtype=np.uint64)]
        if form == MASK:
            words = [int(rng.integers(1, lanes + 1)), 0]
            self.active = [(r, lane) for r in range(repeats) for lane in range(words[0])]
        elif form == BITS:
            self.active = [
                (r, n) for r in range(repeats) for n in range(lanes) if words[n // 64] >> n % 64 & 1
            ]
        else:
            words = [int(rng.integers(1, 4 * lanes)), 0]
            self.active = [(i // lanes, i % lanes) for i in range(words[0])]
        self.blocks = [int(rng.integers(1, 3))] + [int(rng.integers(0, 3)) for _ in range(operands - 1)]
        self.repeats = [int(rng.integers(8, 10)) * self.blocks[0]] + [
            int(rng.integers(0, 17)) for _ in range(operands - 1)
        ]
        self.parameters = [form, *words, repeats, *self.blocks, *self.repeats]

    def places(self, addresses: list[int], size: int) -> list[list[int]]:
        return [
            [
                lane_bytes(a, size, b, r, repeat, lane)
                for a, b, r in zip(addresses, self.blocks, self.repeats, strict=True)
            ]
            for repeat, lane in self.active
        ]


def run(
    driver: Driver,
    rng: np.random.Generator,
    name: str,
    kind: str,
    form: int,
    sources: int,
    compute: Callable[..., Fraction],
    scalar: int | None = None,
    updates: bool = False,
) -> None:
    size = SIZES[kind]
    addresses = [0, 40960, 81920][: sources + 1]
    image = rng.integers(0, 256, UB, dtype=np.uint8)
    for address in addresses if updates else addresses[1:]:
        image[address : address + 40960] = random_values(kind, 40960 // size, rng).view(np.uint8)
    forms = Forms(form, kind, sources + 1, rng)
    want = image.copy()
    for target, *origins in forms.places(addresses, size):
        origins = [target, *origins] if updates else origins
        codes = [int(want[at : at + size].view(CODES[size])[0]) for at in origins]
        result = code_of(kind, compute(*[value_of(kind, code) for code in codes]))
        want[target : target + size] = np.array([result], CODES[size]).view(np.uint8)
    scalars = [] if scalar is None else [scalar]
    driver(name, TYPES.index(kind), *addresses, *scalars, *forms.parameters, UB=image)
    wrong = np.flatnonzero(image != want)
    assert wrong.size == 0, (forms.parameters, wrong[:8], image[wrong[:8]], want[wrong[:8]])


def cases(table: dict[str, tuple[object, tuple[str, ...]]]) -> list[tuple[str, str]]:
    return [(name, kind) for name, (_, kinds) in table.items() for kind in kinds]


@pytest.mark.parametrize("form", [COUNT, MASK, BITS, COUNTER])
@pytest.mark.parametrize(("name", "kind"), cases(BINARY))
def test_binary(driver: Driver, rng: np.random.Generator, name: str, kind: str, form: int):
    run(driver, rng, name, kind, form, 2, BINARY[name][0])


@pytest.mark.parametrize("form", [COUNT, MASK, BITS, COUNTER])
@pytest.mark.parametrize(("name", "kind"), cases(TERNARY))
def test_updates(driver: Driver, rng: np.random.Generator, name: str, kind: str, form: int):
    run(driver, rng, name, kind, form, 2, TERNARY[name][0], updates=True)


@pytest.mark.parametrize("form", [COUNT, MASK, BITS, COUNTER])
@pytest.mark.parametrize(("name", "kind"), cases(UNARY))
def test_unary(driver: Driver, rng: np.random.Generator, name: str, kind: str, form: int):
    run(driver, rng, name, kind, form, 1, UNARY[name][0])


@pytest.mark.parametrize("form", [COUNT, MASK, BITS, COUNTER])
@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("name", list(SCALAR))
def test_with_a_scalar(driver: Driver, rng: np.random.Generator, name: str, kind: str, form: int):
    code = int(random_values(kind, 1, rng)[0])
    operand = value_of(kind, code)
    run(driver, rng, name, kind, form, 1, lambda a: SCALAR[name](a, operand), scalar=code)


@pytest.mark.parametrize("places", [0, 1, 4])
def test_shifts(driver: Driver, rng: np.random.Generator, places: int):
    run(driver, rng, "ShiftRight", "int16_t", COUNT, 1, lambda a: Fraction(int(a) >> places), scalar=places)
    run(driver, rng, "ShiftLeft", "int16_t", COUNT, 1, lambda a: Fraction(int(a) << places), scalar=places)


@pytest.mark.parametrize("kind", REALS)
@pytest.mark.parametrize(
    ("name", "function"),
    [("Exp", np.exp), ("Ln", np.log), ("Sqrt", np.sqrt), ("Rsqrt", lambda x: 1 / np.sqrt(x))],
)
def test_functions(
    driver: Driver, rng: np.random.Generator, name: str, function: Callable[..., np.ndarray], kind: str
):
    dtype = np.dtype({"half": "float16", "float": "float32"}[kind])
    x = (rng.uniform(-10, 10, 1000) if name == "Exp" else rng.uniform(1e-4, 1000, 1000)).astype(dtype)
    image = np.zeros(UB, np.uint8)
    image[40960 : 40960 + x.nbytes] = x.view(np.uint8)
    driver(name, TYPES.index(kind), 0, 40960, COUNT, x.size, UB=image)
    got = image[: x.nbytes].view(dtype).astype(np.float64)
    want = function(x.astype(np.float64))
    ulp = np.spacing(want.astype(dtype)).astype(np.float64)
    assert np.max(np.abs(got - want) / ulp) <= (1.0 if name == "Exp" else 0.5001)


@pytest.mark.parametrize("name", ["Add", "Max", "Min", "Mul"])
def test_nan_is_kept(driver: Driver, name: str):
    image = np.zeros(UB, np.uint8)
    image[4096:4104] = np.array([np.nan, 1], np.float32).view(np.uint8)
    image[8192:8200] = np.array([1, np.nan], np.float32).view(np.uint8)
    driver(name, TYPES.index("float"), 0, 4096, 8192, COUNT, 2, UB=image)
    assert all(math.isnan(v) for v in image[:8].view(np.float32))


@pytest.mark.parametrize("kind", ["int16_t", "int32_t"])
def test_integer_overflow_is_refused(driver: Driver, kind: str):
    image = np.full(UB, 0x7F, np.uint8)
    with pytest.raises(EmulatorError, match=f"{kind} overflow"):
        driver("Add", TYPES.index(kind), 0, 4096, 8192, COUNT, 16, UB=image)


@pytest.mark.parametrize("name", [*BINARY, "Exp", "Duplicate"])
@pytest.mark.parametrize("kind", ["int8_t", "uint8_t"])
def test_formats_that_the_chip_lacks(driver: Driver, name: str, kind: str):
    operands = {"Exp": [0, 4096], "Duplicate": [0, 1]}.get(name, [0, 4096, 8192])
    with pytest.raises(EmulatorError, match=f"has no form for {kind}"):
        driver(name, TYPES.index(kind), *operands, COUNT, 16, UB=np.zeros(UB, np.uint8))


@pytest.mark.parametrize("form", [COUNT, MASK, BITS, COUNTER])
@pytest.mark.parametrize("kind", ["half", "bfloat16_t", "float", "int16_t", "int32_t", "uint32_t"])
def test_duplicate(driver: Driver, rng: np.random.Generator, kind: str, form: int):
    size = SIZES[kind]
    image = rng.integers(0, 256, UB, dtype=np.uint8)
    code = int(rng.integers(0, 1 << (8 * size)))
    forms = Forms(form, kind, 1, rng)
    want = image.copy()
    for (target,) in forms.places([0], size):
        want[target : target + size] = np.array([code], CODES[size]).view(np.uint8)
    driver("Duplicate", TYPES.index(kind), 0, code, *forms.parameters, UB=image)
    assert np.array_equal(image, want)


@pytest.mark.parametrize("form", [MASK, BITS, COUNTER])
@pytest.mark.parametrize("kind", ["half", "bfloat16_t", "float", "int32_t"])
def test_copy(driver: Driver, rng: np.random.Generator, kind: str, form: int):
    size = SIZES[kind]
    image = rng.integers(0, 256, UB, dtype=np.uint8)
    forms = Forms(form, kind, 2, rng)
    if form == COUNTER:  # counts within each repeat here
        repeats = forms.parameters[3]
        count = int(rng.integers(1, 2 * 256 // size))
        forms.parameters[1] = count
        forms.repeats[0] = forms.parameters[6] = 2 * 8 * forms.blocks[0]
        forms.active = [(r, lane) for r in range(repeats) for lane in range(count)]
    want = image.copy()
    for target, origin in forms.places([0, 81920], size):
        want[target : target + size] = image[origin : origin + size]
    driver("Copy", TYPES.index(kind), 0, 81920, *forms.parameters, UB=image)
    assert np.array_equal(image, want)


@pytest.mark.parametrize("kind", ["half", "float", "int32_t"])
@pytest.mark.parametrize(("block", "repeat"), [(1, 8), (2, 16), (1, 9)])
def test_brcb(driver: Driver, rng: np.random.Generator, kind: str, block: int, repeat: int):
    size, repeats = SIZES[kind], 7
    image = rng.integers(0, 256, UB, dtype=np.uint8)
    want = image.copy()
    for i in range(repeats):
        for j in range(8):
            element = image[81920 + (8 * i + j) * size :][:size]
            want[32 * (i * repeat + j * block) :][:32] = np.tile(element, 32 // size)
    driver("Brcb", TYPES.index(kind), 0, 81920, repeats, block, repeat, UB=image)
    assert np.array_equal(image, want)


@pytest.mark.parametrize("counter", [False, True])
def test_mask_set_before(driver: Driver, rng: np.random.Generator, counter: bool):
    image = np.zeros(UB, np.uint8)
    a, b = rng.normal(size=(2, 192)).astype(np.float32)
    image[4096 : 4096 + a.nbytes] = a.view(np.uint8)
    image[8192 : 8192 + b.nbytes] = b.view(np.uint8)
    low = 130 if counter else 0xF00F
    driver("MulWithSetMask", counter, 0, low, 0, 4096, 8192, 2, UB=image)
    got = image[: a.nbytes].view(np.float32)
    lanes = np.arange(192)
    on = lanes < 130 if counter else (lanes < 128) & ((low >> lanes % 64 & 1) == 1)
    assert np.array_equal(got, np.where(on, a * b, np.float32(0)))


@pytest.mark.parametrize(("counter", "low"), [(True, 130), (True, 3), (False, 0xF00F)])
def test_mask_set_before_a_count(driver: Driver, counter: bool, low: int):
    image = np.zeros(UB, np.uint8)
    driver("AddsWithSetMask", counter, low, 0, 4096, UB=image)
    got = image[:1024].view(np.float32)
    want = np.arange(256) < low if counter else [lane < 64 and low >> lane & 1 for lane in range(256)]
    assert np.array_equal(got, np.array(want, np.float32))


def test_a_count_leaves_a_full_mask(driver: Driver):
    image = np.zeros(UB, np.uint8)
    driver("MaskAfterCount", 0, 4096, UB=image)
    assert np.array_equal(image[:256].view(np.float32), np.ones(64, np.float32))


def test_accumulation_over_repeats(driver: Driver, rng: np.random.Generator):
    """A destination of repeat stride 0 that is the second source too adds all repeats up."""
    image = np.zeros(UB, np.uint8)
    x = rng.integers(-100, 100, (6, 64)).astype(np.float32)
    image[4096 : 4096 + x.nbytes] = x.reshape(-1).view(np.uint8)
    driver("Add", TYPES.index("float"), 0, 4096, 0, MASK, 64, 0, 6, 1, 1, 1, 0, 8, 0, UB=image)
    assert np.array_equal(image[:256].view(np.float32), x.sum(axis=0))


@pytest.mark.parametrize(
    ("addresses", "strides"),
    [
        ((0, 32, 8192), (1, 1, 1, 8, 8, 8)),  # half of the blocks
        ((256, 0, 8192), (1, 1, 1, 8, 8, 8)),  # repeat 1 reads what repeat 0 wrote
        ((0, 8192, 0), (1, 1, 1, 4, 8, 8)),
    ],
)
def test_overlap_is_refused(driver: Driver, addresses: tuple[int, ...], strides: tuple[int, ...]):
    with pytest.raises(EmulatorError, match="overlap"):
        driver("Add", TYPES.index("float"), *addresses, MASK, 64, 0, 3, *strides, UB=np.zeros(UB, np.uint8))


def test_in_place(driver: Driver, rng: np.random.Generator):
    image = np.zeros(UB, np.uint8)
    x = rng.normal(size=500).astype(np.float32)
    image[: x.nbytes] = x.view(np.uint8)
    driver("Mul", TYPES.index("float"), 0, 0, 0, COUNT, 500, UB=image)
    assert np.array_equal(image[: x.nbytes].view(np.float32), x * x)


def test_a_destination_block_stride_of_zero_is_refused(driver: Driver):
    with pytest.raises(EmulatorError, match="block stride is 0"):
        driver(
            "Add",
            TYPES.index("float"),
            0,
            4096,
            8192,
            MASK,
            64,
            0,
            1,
            0,
            1,
            1,
            8,
            8,
            8,
            UB=np.zeros(UB, np.uint8),
        )


@pytest.mark.parametrize("address", [4, 16, 2])
def test_unaligned_operands_are_refused(driver: Driver, address: int):
    for form in ([COUNT, 64], [BITS, 5, 0, 1, 1, 1, 1, 8, 8, 8]):
        with pytest.raises(EmulatorError, match="misaligned"):
            driver("Add", TYPES.index("float"), 0, 4096 + address, 8192, *form, UB=np.zeros(UB, np.uint8))


def test_an_empty_mask_or_count_does_nothing(driver: Driver, rng: np.random.Generator):
    image = rng.integers(0, 256, UB, dtype=np.uint8)
    before = image.copy()
    for form in ([COUNT, 0], [MASK, 0, 0, 1, 1, 1, 1, 8, 8, 8], [MASK, 64, 0, 0, 1, 1, 1, 8, 8, 8]):
        driver("Add", TYPES.index("float"), 0, 4096, 8192, *form, UB=image)
        assert np.array_equal(image, before)


@pytest.mark.parametrize(("hf32", "name"), [(False, "Transpose"), (True, "SetHF32Mode")])
def test_what_is_not_modelled_says_so(driver: Driver, hf32: bool, name: str):
    with pytest.raises(EmulatorError, match=f"{name}: is not modelled"):
        driver("NotModelled", hf32, UB=np.zeros(64, np.uint8))
