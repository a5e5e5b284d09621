"""How a call is divided over an Ascend chip: pure functions of sizes, and the structs that kernels read.

The structs are those of ``include/moe_jit/ascend/tiling.h``: 32-bit members in the same order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields
from typing import NamedTuple

BLOCK = 32
VECTOR = 64
_UB_BYTES = 192 * 1024 - 256 - 8 * 1024  # some instructions reserve 8 KB


class Chip(NamedTuple):
    """Cores and usable bytes of each memory of NPU architecture 2201 (Atlas A2 and A3)."""

    cube_cores: int = 24
    vector_cores: int = 48
    l1: int = 512 * 1024 - 256
    l0a: int = 64 * 1024
    l0b: int = 64 * 1024
    l0c: int = 128 * 1024
    ub: int = _UB_BYTES


CHIP = Chip()


class Plan(NamedTuple):
    """One launch: the entry point (and file in csrc/ascend), its tiling, cores and bytes of workspace."""

    entry: str
    tiling: bytes
    blocks: int
    workspace: int


@dataclass(frozen=True)
class Struct:
    def pack(self) -> bytes:
        return b"".join(_pack(getattr(self, field.name)) for field in fields(self))


def _pack(value: Struct | float | int) -> bytes:
    if isinstance(value, Struct):
        return value.pack()
    return struct.pack("<f" if isinstance(value, float) else "<i", value)


@dataclass(frozen=True)
class GroupListTiling(Struct):
    """``type`` is that of ``group_list_type``; ``only_group`` -1 means all entries."""

    num_groups: int = 0
    type: int = 0
    num_experts: int = 1
    only_group: int = -1


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


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


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


def dequant_swiglu_quant_split(half: int, rows: int, element: int, cores: int) -> tuple[int, int]:
    """Rows and columns of each half that a core holds at a time.

    As many columns as fit, at most 2048; whole rows are batched, but not beyond what every core gets."""

    def fits(columns: int, batch_rows: int) -> bool:
        return dequant_swiglu_quant_bytes(half, columns, batch_rows, element) <= CHIP.ub

    columns = min(half, 2048)
    while columns > VECTOR and not fits(columns, 1):
        columns = round_up(columns // 2, VECTOR)
    if not fits(columns, 1):
        raise ValueError(f"x.shape[-1] / 2 must fit the vector core's memory, got {half}")
    batch = 1
    share = min(MAX_BATCH_ROWS, max(1, -(-rows // cores)))
    while columns == half and batch < share and fits(columns, batch + 1):
        batch += 1
    return batch, columns


def plan_dequant_swiglu_quant(
    x_format: str,
    *,
    rows: int,
    half: int,
    bias_format: int = 0,
    bias_rows: int = 1,
    quant_is_scalar: bool = False,
    activate_left: bool = False,
    dynamic: bool = True,
    divide_by_scale: bool = False,
    swiglu_mode: int = 0,
    clamp_limit: float = 7.0,
    glu_alpha: float = 1.702,
    glu_bias: float = 1.0,
    is_grouped: bool = False,
    num_groups: int = 0,
    group_list_type: int = 1,
    cores: int = CHIP.vector_cores,
) -> Plan:
    """A launch of npu_dequant_swiglu_quant on ``cores`` vector cores.

    ``x_format`` is i32, f16 or bf16; ``bias_format`` 0 fp32, 1 fp16, 2 bf16, 3 int32."""
    element = 4 if x_format == "i32" else 2
    batch_rows, columns = dequant_swiglu_quant_split(half, rows, element, cores)
    tiling = DequantSwigluQuantTiling(
        rows=rows,
        half=half,
        batch_rows=batch_rows,
        columns=columns,
        bias_format=bias_format,
        bias_rows=bias_rows,
        quant_is_scalar=int(quant_is_scalar),
        activate_left=int(activate_left),
        dynamic=int(dynamic),
        divide_by_scale=int(divide_by_scale),
        swiglu_mode=swiglu_mode,
        clamp_limit=float(clamp_limit),
        glu_alpha=float(glu_alpha),
        glu_bias=float(glu_bias),
        is_grouped=int(is_grouped),
        reserved=0,
        groups=GroupListTiling(num_groups, group_list_type, max(num_groups, 1)),
    )
    return Plan(f"dequant_swiglu_quant_{x_format}", tiling.pack(), cores, 0)
