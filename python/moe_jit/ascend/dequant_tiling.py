"""How npu_dequant_swiglu_quant is divided over the vector cores of an Ascend chip."""

from __future__ import annotations

from dataclasses import dataclass

from moe_jit.autotuner.buckets import round_up as round_up_rows

from .kernel_structs import BLOCK, CHIP, VECTOR, GroupListTiling, Plan, Struct, round_up


@dataclass(frozen=True)
class DequantSwigluQuantTiling(Struct):
    rows: int
    half: int
    batch_rows: int
    columns: int
    bias_format: int
    bias_rows: int
    quant_is_scalar: int
    activate_left: int
    dynamic: int
    divide_by_scale: int
    swiglu_mode: int
    clamp_limit: float
    glu_alpha: float
    glu_bias: float
    is_grouped: int
    reserved: int
    groups: GroupListTiling


def dequant_swiglu_quant_bytes(half: int, columns: int, batch_rows: int, element: int) -> int:
    """Local memory that the kernel takes: what its constructor allocates."""
    pitch, parts = round_up(columns, VECTOR), -(-half // columns)
    tile, padded = batch_rows * pitch, round_up(batch_rows, 8)
    inputs = 2 * 2 * tile * element + padded * 4 + padded * BLOCK
    scales = padded * BLOCK * 2 + 2 * padded * 4
    parameters = 2 * pitch * 4 * 4 + 2 * pitch * 4  # wide: staged, weight_scale, both biases; narrow: two
    values = (parts + 2) * tile * 4
    work = round_up(pitch, VECTOR * 8) // 8 * 4
    outputs = 2 * tile + padded * 4
    return 8192 + inputs + scales + parameters + values + work + outputs


MAX_BATCH_ROWS = 64
_START = 256  # columns that a core could compute while a batch's instructions start; an assumption


def element_bytes(x_format: str) -> int:
    return 4 if x_format == "i32" else 2


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows and columns of each half that a core holds at a time: what is chosen for speed alone."""

    rows: int
    columns: int


def _fits(half: int, batch: Batch, element: int) -> bool:
    return dequant_swiglu_quant_bytes(half, batch.columns, batch.rows, element) <= CHIP.ub


def _widest(half: int, element: int) -> int:
    """Columns of a row that fit, at most 2048."""
    columns = min(half, 2048)
    while columns > VECTOR and not _fits(half, Batch(1, columns), element):
        columns = round_up(columns // 2, VECTOR)
    if not _fits(half, Batch(1, columns), element):
        raise ValueError(f"x.shape[-1] / 2 must fit the vector core's memory, got {half}")
    return columns


def _part(half: int, parts: int) -> Batch:
    """One of so many parts of a row."""
    return Batch(1, min(round_up(-(-half // parts), VECTOR), half))


def dequant_swiglu_quant_split(half: int, rows: int, element: int, cores: int) -> Batch:
    """The batch without measurements: as many columns as fit, and if these are whole rows, as many of them,
    or a half of one, as let the busiest core end first."""
    columns = _widest(half, element)
    if columns < half:
        return Batch(1, columns)

    def busiest(batch: Batch) -> int:
        parts, batches = -(-half // batch.columns), -(-rows // batch.rows)
        work = -(-batches // cores) * parts * (batch.rows * batch.columns + _START)
        return work + batch.rows * batch.columns // 2  # nothing is computed while the first part is loaded

    whole = [Batch(number, half) for number in range(1, MAX_BATCH_ROWS + 1)]
    return min((b for b in (*whole, _part(half, 2)) if _fits(half, b, element)), key=busiest)


def batches_to_measure(half: int, rows: int, element: int, cores: int) -> tuple[Batch, ...]:
    """The batch without measurements, then others of fewer and of more rows, and of a quarter of a row."""
    default = dequant_swiglu_quant_split(half, rows, element, cores)
    if _widest(half, element) < half:
        return (default,)
    number = dequant_swiglu_quant_split(half, round_up_rows(rows), element, cores).rows
    numbers = (number, max(number // 2, 1), max(number // 4, 1), 2 * number)
    others = [*(Batch(rows, half) for rows in numbers if rows <= MAX_BATCH_ROWS), _part(half, 4)]
    return tuple(dict.fromkeys((default, *(b for b in others if _fits(half, b, element)))))


def plan_dequant_swiglu_quant(
    *,
    x_format: str,
    rows: int,
    half: int,
    bias_format: int = 0,
    bias_rows: int = 1,
    quant_is_scalar: bool = False,
    activate_left: bool = False,
    dynamic: bool = True,
    swiglu_mode: int = 0,
    clamp_limit: float = 7.0,
    glu_alpha: float = 1.702,
    glu_bias: float = 1.0,
    is_grouped: bool = False,
    groups: GroupListTiling | None = None,
    cores: int = CHIP.vector_cores,
    batch: Batch | None = None,
) -> Plan:
    """A launch of npu_dequant_swiglu_quant on ``cores`` vector cores.

    ``x_format`` is i32, f16 or bf16; ``bias_format`` 0 fp32, 1 fp16, 2 bf16, 3 int32. ``batch`` replaces the
    default one."""
    batch = batch or dequant_swiglu_quant_split(half, rows, element_bytes(x_format), cores)
    tiling = DequantSwigluQuantTiling(
        rows=rows,
        half=half,
        batch_rows=batch.rows,
        columns=batch.columns,
        bias_format=bias_format,
        bias_rows=bias_rows,
        quant_is_scalar=int(quant_is_scalar),
        activate_left=int(activate_left),
        dynamic=int(dynamic),
        divide_by_scale=int(is_grouped),
        swiglu_mode=swiglu_mode,
        clamp_limit=float(clamp_limit),
        glu_alpha=float(glu_alpha),
        glu_bias=float(glu_bias),
        is_grouped=int(is_grouped),
        reserved=0,
        groups=groups or GroupListTiling(),
    )
    return Plan(f"dequant_swiglu_quant_{x_format}", tiling.pack(), cores, 0)
