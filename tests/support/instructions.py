"""Runs single instructions of the emulator on memories that a test fills, and knows their number formats."""

from __future__ import annotations

import ctypes
import math
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import filelock
import numpy as np

from moe_jit.jit.toolchain import find_host_compiler

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "tests" / "ascend_emulator" / "instructions"
INCLUDE = ROOT / "include"
MEMORIES = ("GM", "UB", "L1", "L0A", "L0B", "L0C", "BT", "FB")
TYPES = (
    "half",
    "float",
    "bfloat16_t",
    "int8_t",
    "uint8_t",
    "int16_t",
    "uint16_t",
    "int32_t",
    "uint32_t",
    "int64_t",
    "int4b_t",
)
MODES = ("NONE", "RINT", "FLOOR", "CEIL", "ROUND", "TRUNC", "ODD")


class EmulatorError(Exception):
    """The emulator refused the instruction."""


class Driver:
    def __init__(self, library: Path):
        self._run = ctypes.CDLL(str(library)).run_instruction
        self._run.restype = ctypes.c_char_p

    def __call__(self, name: str, *parameters: int, cube: bool = False, **images: np.ndarray) -> None:
        """Runs the instruction; `images` holds the bytes of memories by name and is written in place."""
        numbers = [int(value) & 0xFFFFFFFFFFFFFFFF for value in parameters]
        pointers = (ctypes.c_void_p * len(MEMORIES))()
        sizes = (ctypes.c_int64 * len(MEMORIES))()
        for memory, image in images.items():
            assert image.dtype == np.uint8
            assert image.flags.c_contiguous
            pointers[MEMORIES.index(memory)] = image.ctypes.data
            sizes[MEMORIES.index(memory)] = image.nbytes
        array = (ctypes.c_int64 * max(1, len(numbers)))(*[ctypes.c_int64(n).value for n in numbers])
        message = self._run(name.encode(), array, len(numbers), pointers, sizes, int(cube))
        if message:
            raise EmulatorError(message.decode())


def build(directory: Path) -> Driver:
    """Compiles the driver once for all workers of a test run."""
    library = directory / "instructions.so"
    with filelock.FileLock(directory / "instructions.lock"):
        if not library.exists():
            compiler = find_host_compiler().command
            flags = ["-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"]
            flags += ["-I", str(INCLUDE / "moe_jit" / "ascend_emulator"), "-I", str(INCLUDE)]

            def compile_one(source: Path) -> str:
                target = str(directory / (source.stem + ".o"))
                subprocess.run([*compiler, *flags, "-c", str(source), "-o", target], check=True)
                return target

            with ThreadPoolExecutor(2) as pool:
                objects = list(pool.map(compile_one, sorted(SOURCES.glob("*.cpp"))))
            partial = library.with_suffix(".partial")
            subprocess.run([*compiler, "-shared", *objects, "-o", str(partial)], check=True)
            partial.rename(library)
    return Driver(library)


@dataclass(frozen=True)
class Float:
    """A binary format: its values as Fractions, infinities and NaN as Python floats."""

    fraction: int
    exponent: int

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.fraction

    def decode(self, code: int) -> Fraction | float:
        negative = code >> (self.bits - 1) & 1
        field = code >> self.fraction & ((1 << self.exponent) - 1)
        rest = code & ((1 << self.fraction) - 1)
        if field == (1 << self.exponent) - 1:
            return math.nan if rest else math.copysign(math.inf, -1 if negative else 1)
        whole = rest + (1 << self.fraction if field else 0)
        place = max(field, 1) - self.bias - self.fraction
        value = Fraction(whole << place) if place >= 0 else Fraction(whole, 1 << -place)
        return -value if negative else value

    @property
    def bias(self) -> int:
        return (1 << (self.exponent - 1)) - 1

    def neighbours(self, value: Fraction) -> tuple[int, int]:
        """Codes of the largest finite magnitude not above |value| and of the next one."""
        infinite = ((1 << self.exponent) - 1) << self.fraction
        magnitude = abs(value)
        if magnitude == 0:
            return 0, 1
        top = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
        top -= magnitude < Fraction(2) ** top  # 2^top <= magnitude < 2^(top + 1)
        place = max(top, 1 - self.bias) - self.fraction
        below = min(
            int(magnitude / Fraction(2) ** place)
            + ((place + self.fraction + self.bias - 1) << self.fraction),
            infinite - 1,
        )
        assert self.decode(below) <= magnitude
        assert self.decode(below + 1) > magnitude or below + 1 == infinite
        return below, below + 1

    def encode(self, value: Fraction | float, mode: str = "RINT") -> int:
        """One rounding, from the definition of the mode."""
        sign = 1 << (self.bits - 1)
        infinite = ((1 << self.exponent) - 1) << self.fraction
        if isinstance(value, float):
            if math.isnan(value):
                return -1
            if math.isinf(value):
                return infinite | (sign if value < 0 else 0)
            negative = math.copysign(1, value) < 0
            value = Fraction(value)
        else:
            negative = value < 0
        low, high = self.neighbours(value)
        exact_low = self.decode(low)
        assert isinstance(exact_low, Fraction)
        if exact_low == abs(value):
            code = low
        elif mode in ("FLOOR", "CEIL", "TRUNC"):
            code = high if (mode == "FLOOR" and negative) or (mode == "CEIL" and not negative) else low
        elif mode == "ODD":
            code = low if low % 2 else high
        else:
            # Beyond the largest number the next one would be a power of two.
            step = Fraction(2) ** (self.bias - self.fraction)
            above = exact_low + step if high == infinite else self.decode(high)
            assert isinstance(above, Fraction)
            twice = 2 * abs(value) - exact_low - above
            away = twice > 0 or (twice == 0 and (mode == "ROUND" or low % 2 == 1))
            code = high if away else low
        if mode == "ODD" and code == infinite:
            code = infinite - 1
        return code | (sign if negative else 0)


HALF, BFLOAT16, FLOAT = Float(10, 5), Float(7, 8), Float(23, 8)
FLOATS = {"half": HALF, "bfloat16_t": BFLOAT16, "float": FLOAT}
SIZES = {
    "half": 2,
    "float": 4,
    "bfloat16_t": 2,
    "int8_t": 1,
    "uint8_t": 1,
    "int16_t": 2,
    "uint16_t": 2,
    "int32_t": 4,
    "uint32_t": 4,
    "int64_t": 8,
}
RANGES = {
    "int4b_t": (-8, 7),
    "int8_t": (-128, 127),
    "uint8_t": (0, 255),
    "int16_t": (-(2**15), 2**15 - 1),
    "int32_t": (-(2**31), 2**31 - 1),
    "int64_t": (-(2**63), 2**63 - 1),
}
CODES = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}


def round_to_integer(value: Fraction, mode: str) -> int:
    """From the definition of the mode; ties of RINT go to even, of ROUND away from zero."""
    low = math.floor(value)
    rest = value - low
    if rest == 0:
        return low
    if mode == "FLOOR":
        return low
    if mode == "CEIL":
        return low + 1
    if mode == "TRUNC":
        return low if value > 0 else low + 1
    if rest != Fraction(1, 2):
        return low + (rest > Fraction(1, 2))
    if mode == "ROUND":
        return low + 1 if value > 0 else low
    return low + low % 2


def lane_bytes(address: int, size: int, block_stride: int, repeat_stride: int, repeat: int, lane: int) -> int:
    """Where a lane of a repeat begins: strides count blocks of 32 bytes."""
    place = lane * size
    return address + 32 * (repeat * repeat_stride + place // 32 * block_stride) + place % 32
