"""Tilings: what they promise fits the chip, and the kernels read what they pack."""

from __future__ import annotations

import random
import struct
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from support.problems import fresh_seed

from moe_jit.ascend import dequant_tiling, kernel_structs, matmul_tiling, tiling
from moe_jit.ascend.matmul_tiling import Tile

HEADER = Path(__file__).parents[2] / "include/moe_jit/ascend/tiling.h"
ENTRIES = sorted(matmul_tiling._OPERANDS)


def members_in_header(name: str) -> list[str]:
    body = HEADER.read_text().split(f"struct {name} {{")[1].split("};")[0]
    lines = [line.split("//")[0].strip() for line in body.splitlines()]
    declarations = [part for part in " ".join(lines).split(";") if part.strip()]
    return [member.strip() for one in declarations for member in one.split(None, 1)[1].split(",")]


@pytest.mark.parametrize(
    "one",
    [
        kernel_structs.GroupListTiling,
        matmul_tiling.MatmulTiling,
        matmul_tiling.FinalizeTiling,
        dequant_tiling.DequantSwigluQuantTiling,
    ],
)
def test_structs_have_the_members_of_the_header(one: Any) -> None:
    assert is_dataclass(one)
    assert [field.name for field in fields(one)] == members_in_header(one.__name__)


def test_packing_is_little_endian_in_order() -> None:
    packed = kernel_structs.GroupListTiling(3, 1, 7, -1).pack()
    assert struct.unpack("<4i", packed) == (3, 1, 7, -1)
    plan = tiling.plan_dequant_swiglu_quant(x_format="i32", rows=9, half=33, glu_alpha=1.5)
    words = struct.unpack("<20i", plan.tiling)
    assert words[:2] == (9, 33)
    assert struct.unpack("<20f", plan.tiling)[12] == 1.5


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_candidate_fits_the_chip(entry: str) -> None:
    seed = fresh_seed()
    rng = random.Random(seed)
    for _ in range(200):
        k, n, rows = rng.randint(1, 20000), rng.randint(1, 9000), rng.randint(1, 9000)
        pieces = rng.choice((2, 3))
        segments = rng.choice((1, rng.randint(2, 70)))
        k = k if segments == 1 else segments * rng.choice((64, 192, 256, 512))
        candidates = list(tiling.candidates(entry, k, n, rows, pieces=pieces, segments=segments))
        assert candidates, (seed, k, n, rows)
        groups, cores, has_bias = rng.randint(0, 64), rng.randint(1, 24), pieces == 2
        candidates += tiling.tiles_to_measure(entry, rows, k, n, groups, cores, has_bias=has_bias)
        for tile in candidates:
            matmul_tiling.check_tile(tile, matmul_tiling._operands(entry, pieces, tile))
            assert tile.l1_k - tile.l0_k < max(k, tile.l0_k), (seed, tile)


@pytest.mark.parametrize(
    ("tile", "memory"),
    [
        (Tile(128, 256, 1024, 128), "L1"),
        (Tile(128, 256, 512, 512), "L0A|L0B"),
        (Tile(256, 256, 256, 64), "L0C"),
        (Tile(16, 512, 128, 32), "L0B|wider"),
        (Tile(8, 64, 64, 32), "fractals"),
        (Tile(16, 64, 96, 64), "fractals"),
    ],
)
def test_tiles_that_do_not_fit_raise(tile: Tile, memory: str) -> None:
    with pytest.raises(ValueError, match=memory):
        tiling.plan_grouped_matmul("i8_i32", rows=99, k=2048, n=512, tile=tile)


def test_wide_tiles_unless_cores_would_idle() -> None:
    many = matmul_tiling.choose_tile("i8_i32", 8192, 7168, 4096, 8, 24)
    assert (many.base_m, many.base_n) == (128, 256)
    few = matmul_tiling.choose_tile("i8_i32", 16, 7168, 2048, 1, 24)
    assert few.base_n < 256
    assert few.base_m == 16


def test_weights_are_widened_where_storing_sums_would_take_longest() -> None:
    """With a scale for each 256 of k and more than some 50 rows of an expert, and only then."""

    def widens(rows: int, segments: int, entry: str = "i8_i4_bf16") -> bool:
        return matmul_tiling.choose_tile(entry, rows, 7168, 4096, 8, 24, None, 2, segments).widens

    assert [widens(rows, 28) for rows in (8, 256, 1024, 8192)] == [False, False, True, True]
    assert not widens(8192, 1)
    assert not widens(8192, 14)
    assert not widens(8192, 28, "i4_bf16")


@pytest.mark.parametrize("entry", ["f16_i4", "bf16_i4"])
def test_few_activations_become_digits(entry: str) -> None:
    """While eight rows of int4 for each of x multiply in the time that the weights take to arrive."""

    def becomes_digits(rows: int, k: int = 7168) -> bool:
        return matmul_tiling.choose_tile(entry, rows, k, 4096, 8, 24).digits

    assert [becomes_digits(rows) for rows in (8, 32, 256, 512, 8192)] == [True, True, True, False, False]
    assert not becomes_digits(32, 7168 - 32)
    assert tiling.plan_grouped_matmul(entry, rows=8, k=7168, n=4096).entry.endswith("_digits")


def test_the_last_wave_of_tiles_counts() -> None:
    """128 tiles of 256 columns leave most of 24 cores idle at the end; 256 narrower ones do not."""
    assert matmul_tiling.choose_tile("bf16", 1024, 7168, 4096, 8, 24).base_n == 128
    assert matmul_tiling.choose_tile("bf16", 1024, 7168, 4096, 8, 16).base_n == 256


def test_expected_rows_decide_the_height() -> None:
    plans = [
        tiling.plan_grouped_matmul("i8_i32", rows=4096, k=512, n=512, expected_rows=rows).tiling
        for rows in (5, 100)
    ]
    heights = [struct.unpack("<20i", plan)[4] for plan in plans]
    assert heights == [16, 112]


@pytest.mark.parametrize("half", [1, 64, 2048, 7000, 20000])
@pytest.mark.parametrize("element", [2, 4])
def test_rows_fit_the_vector_core(half: int, element: int) -> None:
    for rows in (1, 40, 5000):
        for batch in tiling.batches_to_measure(half, rows, element, 48):
            assert batch.rows >= 1
            assert batch.rows == 1 or batch.columns == half
            used = dequant_tiling.dequant_swiglu_quant_bytes(half, batch.columns, batch.rows, element)
            assert used <= tiling.CHIP.ub


def test_rows_are_halved_where_a_core_has_one() -> None:
    """So that one half is computed while the other one is loaded; the tuner measures whole rows, too."""
    for rows, columns in ((1, 1024), (48, 1024), (49, 2048), (4096, 2048)):
        assert tiling.batches_to_measure(2048, rows, 4, 48)[0].columns == columns
    assert tiling.Batch(1, 2048) in tiling.batches_to_measure(2048, 1, 4, 48)
    assert tiling.batches_to_measure(64, 1, 4, 48)[0] == tiling.Batch(1, 64)


def test_rows_that_are_too_wide_raise() -> None:
    with pytest.raises(ValueError, match=r"x\.shape\[-1\]"):
        tiling.plan_dequant_swiglu_quant(x_format="i32", rows=1, half=60000)
