"""An Ascend chip, and the structs that tell its kernels how a call is divided over it.

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


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
