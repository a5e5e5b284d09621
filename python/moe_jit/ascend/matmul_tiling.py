"""Tiles of the grouped products on an Ascend chip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

from moe_jit.autotuner.buckets import round_up as round_up_rows

from .kernel_structs import CHIP, GroupListTiling, Plan, Struct, round_up

STAGES, WIDENED_STAGES = 4, 5  # slots of rings; weights are widened four segments ahead of the sums
_FRACTAL = 16
_TABLE_BYTES = 2 * 4 + 8  # of a column: two biases and a requantisation word in L1


class WeightLayout(IntEnum):
    """``WeightLayout`` of include/moe_jit/ascend/tiling.h."""

    ROWS = 0
    TRANSPOSED = 1
    BLOCKED = 2
    BLOCKED_TRANSPOSED = 3


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows and columns of an output tile, the depth of its operands in L1 and in L0, whether int4 weights
    become int8 for int8 x, and whether 16-bit x becomes int4 digits for int4 weights: what is chosen for
    speed alone."""

    base_m: int
    base_n: int
    l1_k: int
    l0_k: int
    widens: bool = False
    digits: bool = False


@dataclass(frozen=True)
class MatmulTiling(Struct):
    rows: int
    k: int
    n: int
    weight_layout: int
    base_m: int
    base_n: int
    l1_k: int
    l0_k: int
    stages: int
    chunk_k: int
    segments: int
    zero_tail: int
    act_type: int
    scale_is_bf16: int
    bias_is_bf16: int
    pieces: int
    groups: GroupListTiling


@dataclass(frozen=True)
class FinalizeTiling(Struct):
    matmul: MatmulTiling
    output_rows: int
    shared_rows: int
    shared_offset: int
    shared_format: int
    shared_weight: float
    row_index_is_int64: int
    combine_columns: int
    slab_columns: int


class Operands(NamedTuple):
    """Bits of the operands in the matrix unit, bytes of a result in the ring, rows of it for a row of x, and
    vector instructions that make 64 weights operands (0: they are used as they are stored), whether the
    vector cores widen weights from int4 to int8, and bits of a weight in memory if they are others."""

    bits: int
    ring_bytes: int
    pieces: int = 1
    conversion: float = 0.0
    widens_weights: bool = False
    stored_bits: int = 0

    @property
    def converts_weights(self) -> bool:
        return self.conversion > 0

    @property
    def square(self) -> int:
        """Side of the squares that transposing loads work on, 256 bits; converted weights begin with whole
        blocks of 64."""
        return 64 if self.converts_weights else max(256 // self.bits, _FRACTAL)


_OPERANDS = {
    "i8_i32": Operands(8, 4),
    "i8_i8": Operands(8, 1),
    "i8_f16": Operands(8, 4),
    "i8_bf16": Operands(8, 4),
    "i8": Operands(8, 4),
    "f16": Operands(16, 2),
    "bf16": Operands(16, 2),
    "f32": Operands(32, 4),
    "f16_i8": Operands(16, 2, conversion=1.5, stored_bits=8),
    "bf16_i8": Operands(16, 2, conversion=3.5, stored_bits=8),
    "f16_i4": Operands(16, 2, conversion=1.5, stored_bits=4),
    "bf16_i4": Operands(16, 2, conversion=3.5, stored_bits=4),
    "i8_i4_f16": Operands(4, 4, 2),
    "i8_i4_bf16": Operands(4, 4, 2),
    "i8_i4": Operands(4, 4, 2),
    "i4_f16": Operands(4, 4),
    "i4_bf16": Operands(4, 4),
}
_WIDENED = Operands(8, 4, widens_weights=True, stored_bits=4)
_WIDENED_DEPTH = 256  # of a segment: sums of its int4 weights are exact in fp16
_WIDENED_BLOCK = 64
_DIGITS = Operands(4, 4, 8)
_DIGIT_ENTRIES = ("f16_i4", "bf16_i4")
_DIGIT_BLOCK = 64  # of k: segments are whole blocks

_CHUNK_K = 256  # of converted weights: small chunks fill the pipeline soon, and the L2 cache little


def _part_width(m: int, n: int) -> int:
    """Columns of the sums of which L0C holds two."""
    return n if 2 * m * n * 4 <= CHIP.l0c else n // 2


def check_tile(tile: Tile, operands: Operands) -> None:
    """Raise ValueError for a tile that no core holds, or that is not made of whole fractals."""
    m, n = tile.base_m * operands.pieces, tile.base_n
    bits, square = operands.bits, operands.square
    if (
        tile.base_m % _FRACTAL
        or _part_width(m, n) % max(square, 32)
        or tile.l0_k % square
        or tile.l1_k % tile.l0_k
    ):
        raise ValueError(f"tile {tile} is not made of whole fractals")
    uses = {
        "L0A": (2 * m * tile.l0_k * bits // 8, CHIP.l0a),
        "L0B": (2 * _part_width(m, n) * tile.l0_k * bits // 8, CHIP.l0b),
        "L0C": (2 * m * _part_width(m, n) * 4, CHIP.l0c),
        "L1": (2 * (m + n) * tile.l1_k * bits // 8 + n * _TABLE_BYTES, CHIP.l1),
    }
    for memory, (used, size) in uses.items():
        if used > size:
            raise ValueError(f"tile {tile} needs {used} bytes of {memory}, which has {size}")
    if n > 256:
        raise ValueError(f"tile {tile} is wider than 256 columns, the size of the bias table")


def _deepest(base_m: int, base_n: int, k: int, operands: Operands) -> Tile:
    m, square, bits = base_m * operands.pieces, operands.square, operands.bits
    whole_k = round_up(k, square)
    l0_bytes = min(CHIP.l0a, CHIP.l0b) // 2
    l0_k = min(l0_bytes * 8 // bits // max(m, _part_width(m, base_n)) // square * square, whole_k, 1024)
    l1_bytes = (CHIP.l1 - base_n * _TABLE_BYTES) // 2
    deepest = _CHUNK_K if operands.converts_weights else 4096
    l0_k = min(l0_k, deepest)
    l1_k = min(l1_bytes * 8 // bits // (m + base_n), deepest) // l0_k * l0_k
    return Tile(base_m, base_n, min(l1_k, round_up(k, l0_k)), l0_k)


def candidates(
    entry: str, k: int, n: int, expected_rows: int, *, pieces: int | None = None, segments: int = 1
) -> Iterator[Tile]:
    """Tiles that fit, wide ones first."""
    operands = _operands(entry, pieces)
    most = 128 // operands.pieces // _FRACTAL * _FRACTAL
    height = round_up(max(expected_rows, 1), _FRACTAL)
    for base_n in (256, 128, 64):
        if base_n == 64 or n > base_n // 2:
            yield _deepest(min(most, height), base_n, k, operands)
    segment = k // segments
    if entry in _DIGIT_ENTRIES and segment % _DIGIT_BLOCK == 0:
        yield from (replace(tile, digits=True) for tile in _digit_tiles(segment, n))
    if operands.pieces == 1 or segments == 1 or segment > _WIDENED_DEPTH or segment % _WIDENED_BLOCK:
        return
    for most, base_n in ((256, 128), (128, 128)):
        tile = _deepest(min(most, height), base_n, segment, _WIDENED)
        yield replace(tile, l1_k=round_up(segment, tile.l0_k), widens=True)


def _digit_tiles(segment: int, n: int) -> Iterator[Tile]:
    for base_n in (256, 128, 64):
        if base_n == 64 or n > base_n // 2:
            yield _deepest(_FRACTAL, base_n, segment, _DIGITS)


def tiles_to_measure(
    entry: str,
    rows: int,
    k: int,
    n: int,
    num_groups: int,
    cores: int,
    expected_rows: int | None = None,
    has_bias: bool = False,
    segments: int = 1,
) -> tuple[Tile, ...]:
    """The tile without measurements, then others: of all widths, and, unless ``expected_rows`` of a group are
    given, also for twice as many rows as a group has on average."""
    pieces = _pieces(has_bias)
    default = choose_tile(entry, rows, k, n, num_groups, cores, expected_rows, pieces, segments)
    whole = round_up_rows(rows)
    expected = expected_rows or -(-whole // max(num_groups, 1))
    heights = (expected,) if expected_rows else (expected, 2 * expected)
    others = (
        tile
        for height in heights
        for tile in candidates(entry, k, n, height, pieces=pieces, segments=segments)
    )
    return tuple(dict.fromkeys((default, *others)))


def _pieces(has_bias: bool) -> int:
    return 2 if has_bias else 3


def _operands(entry: str, pieces: int | None, tile: Tile | None = None) -> Operands:
    """``pieces``: of a row of int8 x."""
    if tile is not None and tile.digits:
        return _DIGITS
    operands = _WIDENED if tile is not None and tile.widens else _OPERANDS[entry]
    return operands if pieces is None or operands.pieces == 1 else operands._replace(pieces=pieces)


_MEMORY_BYTES = 889  # in a cycle, of all cores together
_L2_BYTES, _STORE_BYTES = 110, 86  # of a core in a cycle: what it reads from the L2 cache, and writes
_VECTOR_CORES = 2  # of a cube core
_LINE = 128  # bytes in which global memory is read: a row of a narrow weight tile takes one
_WIDEN, _ADD_UP = 3 / 128, 3 / 64  # cycles of two vector cores for a widened weight, and for a scaled sum
_SPLIT = 31 / 64  # of a vector core for the digits of a value


def _cycles(tile: Tile, rows: int, k: int, segments: int, operands: Operands) -> float:
    """Of one output tile with so many rows: multiplying, loading, storing or converting, which go on at
    once."""
    m, n = round_up(min(rows, tile.base_m) * operands.pieces, _FRACTAL), tile.base_n
    multiply = m / _FRACTAL * n / _FRACTAL * k * operands.bits / 256
    if operands.bits == 32:  # a quarter of the rate of 16 bits
        multiply *= 2
    load = k * (m * operands.bits / 8 + round_up(n * operands.bits // 8, _LINE)) / _L2_BYTES
    store = segments * m * n * operands.ring_bytes / _STORE_BYTES
    convert = k * n * operands.conversion / 64 / _VECTOR_CORES
    if operands.widens_weights:
        convert = (k * n * _WIDEN + segments * m * n * _ADD_UP) / _VECTOR_CORES
    return max(multiply, load, store, convert)


def choose_tile(
    entry: str,
    rows: int,
    k: int,
    n: int,
    num_groups: int,
    cores: int,
    expected_rows: int | None = None,
    pieces: int | None = None,
    segments: int = 1,
) -> Tile:
    """The tile with which the last core is done first; of equal ones the widest."""
    groups = max(num_groups, 1)
    expected = expected_rows or -(-rows // groups)

    def estimate(tile: Tile) -> float:
        operands = _operands(entry, pieces, tile)
        row_tiles, column_tiles = -(-expected // tile.base_m), -(-n // tile.base_n)
        tiles = min(groups, max(rows, 1)) * row_tiles * column_tiles
        one = _cycles(tile, expected, k, segments, operands)
        weights = k * tile.base_n * (operands.stored_bits or operands.bits) / 8 / row_tiles
        memory = weights / _MEMORY_BYTES  # of a tile, if tiles of the same columns share their weights
        full, rest = divmod(tiles, cores)
        split = -(-rows // (cores * _VECTOR_CORES)) * k * _SPLIT if tile.digits else 0.0
        return split + full * max(one, cores * memory) + (max(one, rest * memory) if rest else 0.0)

    return min(candidates(entry, k, n, expected, pieces=pieces, segments=segments), key=estimate)


def _matmul_tiling(
    entry: str,
    *,
    rows: int,
    k: int,
    n: int,
    weight_layout: int = WeightLayout.ROWS,
    groups: GroupListTiling | None = None,
    zero_tail: bool = True,
    act_type: int = 0,
    segments: int = 1,
    scale_is_bf16: bool = False,
    bias_is_bf16: bool = False,
    has_bias: bool = False,
    cores: int = CHIP.cube_cores,
    tile: Tile | None = None,
    expected_rows: int | None = None,
) -> tuple[MatmulTiling, int]:
    """The tiling, and the bytes of workspace that its kernel takes."""
    pieces = _pieces(has_bias)
    groups = groups or GroupListTiling()
    chosen = tile or choose_tile(entry, rows, k, n, groups.num_groups, cores, expected_rows, pieces, segments)
    operands = _operands(entry, pieces, chosen)
    if operands.bits == 4:
        segment = k // segments
        l0_k = min(chosen.l0_k, round_up(segment, operands.square))
        chosen = replace(chosen, l0_k=l0_k, l1_k=max(chosen.l1_k // l0_k, 1) * l0_k)
    check_tile(chosen, operands)
    tiling = MatmulTiling(
        rows=rows,
        k=k,
        n=n,
        weight_layout=int(weight_layout),
        base_m=chosen.base_m,
        base_n=chosen.base_n,
        l1_k=chosen.l1_k,
        l0_k=chosen.l0_k,
        stages=WIDENED_STAGES if operands.widens_weights else STAGES,
        chunk_k=k // segments if operands.widens_weights else chosen.l1_k,
        segments=segments,
        zero_tail=int(zero_tail),
        act_type=act_type,
        scale_is_bf16=int(scale_is_bf16),
        bias_is_bf16=int(bias_is_bf16),
        pieces=0 if operands.widens_weights else operands.pieces,
        groups=groups,
    )
    return tiling, _workspace(tiling, operands, cores)


def _workspace(tiling: MatmulTiling, operands: Operands, cores: int) -> int:
    if operands.converts_weights:
        slots = tiling.stages * tiling.chunk_k * tiling.base_n * operands.bits // 8
        results = 4 * tiling.stages * tiling.base_m * tiling.base_n
        return cores * (slots + results)
    ring = cores * tiling.stages * tiling.base_m * operands.pieces * tiling.base_n * operands.ring_bytes
    if operands.widens_weights:
        ring += cores * tiling.stages * (tiling.chunk_k + 4) * tiling.base_n
    elif operands.bits != 4:
        return ring
    split = tiling.rows * tiling.pieces * tiling.k // 2
    row_sums = 4 * tiling.rows * (tiling.segments if operands is _DIGITS else 0)
    return ring + round_up(split, 512) + round_up(4 * tiling.rows, 512) + row_sums


def plan_grouped_matmul(entry_suffix: str, *, cores: int = CHIP.cube_cores, **sizes: object) -> Plan:
    """A launch of npu_grouped_matmul on ``cores`` cube cores and twice as many vector cores.

    ``entry_suffix`` names operands and result: i8_i32, i8_i8, i8_f16, i8_bf16, f16, bf16, f32, f16_i8,
    bf16_i8, f16_i4, bf16_i4, i8_i4_f16, i8_i4_bf16. ``sizes`` are those of operands and group list; ``tile``
    or ``expected_rows`` (of a group) guide the tiles. Raises ValueError for a tile that does not fit."""
    tiling, workspace = _matmul_tiling(entry_suffix, cores=cores, **sizes)  # type: ignore[arg-type]
    entry = f"{entry_suffix}_digits" if tiling.pieces == _DIGITS.pieces else entry_suffix
    return Plan(f"grouped_matmul_{entry}", tiling.pack(), cores, workspace)


_SLAB_TILES = 16  # of a core, at least: between them the slab before is summed


def _slab_columns(tiling: MatmulTiling, cores: int) -> int:
    """Columns that are summed at a time: all, or a quarter if that has enough tiles."""
    tiles = -(-tiling.rows // tiling.base_m) * -(-tiling.n // tiling.base_n) // cores
    slabs = min(max(tiles // _SLAB_TILES, 1), 4)
    return round_up(-(-tiling.n // slabs), tiling.base_n)


_SHARED_FORMATS = {"f32": 0, "f16": 1, "bf16": 2}


def plan_finalize_routing(
    entry_suffix: str,
    *,
    output_rows: int,
    shared_rows: int = 0,
    shared_offset: int = 0,
    shared_format: str = "f32",
    shared_weight: float = 1.0,
    row_index_is_int64: bool = True,
    cores: int = CHIP.cube_cores,
    **sizes: object,
) -> Plan:
    """A launch of npu_grouped_matmul_finalize_routing; ``entry_suffix`` is i8 or i8_i4."""
    matmul, workspace = _matmul_tiling(entry_suffix, cores=cores, **sizes)  # type: ignore[arg-type]
    tiling = FinalizeTiling(
        matmul=matmul,
        output_rows=output_rows,
        shared_rows=shared_rows,
        shared_offset=shared_offset,
        shared_format=_SHARED_FORMATS[shared_format],
        shared_weight=float(shared_weight),
        row_index_is_int64=int(row_index_is_int64),
        combine_columns=min(round_up(matmul.n, 8), 4096),
        slab_columns=_slab_columns(matmul, cores) if entry_suffix == "i8" else matmul.n,
    )
    products = round_up(4 * matmul.rows * matmul.n, 512)
    return Plan(f"grouped_matmul_finalize_routing_{entry_suffix}", tiling.pack(), cores, workspace + products)
