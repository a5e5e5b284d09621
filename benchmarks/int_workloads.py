"""What the benchmark of the int family times: workloads without weights, and what all workloads provide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from layers import graph_time_us
from models import FP8_FLOP_PER_S, READ_BYTES_PER_S
from rivals import triton_int

import moe_jit
from moe_jit.reference import ascend as reference

ROTATED_BYTES = 400_000_000  # more than the L2 cache holds
MAX_SETS = 64
CHECKED_ROWS = 16

Call = Callable[[int], torch.Tensor]


class Contender(NamedTuple):
    """``make`` prepares and returns the call of an index. What has another result is not checked; what is no
    rival is timed with all rows."""

    name: str
    make: Callable[[], Call]
    has_result: bool = True
    is_rival: bool = True


class Roofs(NamedTuple):
    """Rates per second. Those of reading and of 8-bit products are constants of the machine (models.py)."""

    read_bytes: float
    int8_products: float
    bf16_products: float


class Workload(ABC):
    """One shape. ``calls`` is the number of operand sets, which a call's index selects."""

    family: str
    label: str
    rows: int
    calls: int
    tolerance: float

    @abstractmethod
    def bound_us(self, roofs: Roofs) -> float: ...

    @abstractmethod
    def contenders(self) -> list[Contender]:
        """Ours first."""

    @abstractmethod
    def error(self, output: torch.Tensor) -> float:
        """Relative deviation of the first call's output from the oracle."""


def relative_l2(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual.double() - expected).norm() / expected.norm()).item()


def measure_roofs(size: int = 8192) -> Roofs:
    """bf16 through torch. Its int8 product is slower than what is measured here, and so is no bound."""
    a = torch.randn(size, size, device="cuda").bfloat16()
    us = graph_time_us([lambda: torch.mm(a, a.T)] * 4, replays=5)
    return Roofs(READ_BYTES_PER_S, FP8_FLOP_PER_S, 2e6 * size**3 / us)


def copy_us(num_bytes: int) -> float:
    """Time of a copy that reads and writes ``num_bytes`` in total, outside the L2 cache."""
    sets = min(256, max(2, ROTATED_BYTES // num_bytes + 1))
    pairs = [torch.empty(2, num_bytes // 32 * 16, dtype=torch.uint8, device="cuda") for _ in range(sets)]
    return graph_time_us([lambda p=p: p[0].copy_(p[1]) for p in pairs], replays=7)


class _Rows(Workload):
    """Operands of rows, rotated; the bound is the time of a copy of as many bytes."""

    bytes: int

    def rotate(self, num_bytes: int) -> None:
        self.bytes = num_bytes
        self.calls = max(2, min(MAX_SETS, ROTATED_BYTES // num_bytes + 1))

    def bound_us(self, roofs: Roofs) -> float:
        return copy_us(max(self.bytes, 4096))


class SwigluRows(_Rows):
    """npu_dequant_swiglu_quant: int32 sums with scales, or bf16, in groups; y in int8."""

    family = "dequant_swiglu_quant"
    tolerance = 0.002  # values next to a tie may round the other way

    def __init__(self, dtype: torch.dtype, rows: int, width: int, groups: int = 32) -> None:
        self.rows, self.width, self.integers = rows, width, dtype == torch.int32
        self.label = f"{rows} rows, 2H {width}, {str(dtype).removeprefix('torch.')}, {groups} groups"
        table_bytes = 4 * groups * width if self.integers else 0
        self.rotate(rows * (width * dtype.itemsize + width // 2 + 4 + 4 * self.integers) + table_bytes)
        owners = torch.randint(0, groups, (rows,), device="cuda")
        self.counts = torch.bincount(owners, minlength=groups)
        self.ends = self.counts.cumsum(0).int()
        self.x = [self._x(dtype) for _ in range(self.calls)]
        self.scale = torch.rand(groups, width, device="cuda") * 1e-4 if self.integers else None
        self.row_scale = torch.rand(rows, device="cuda") if self.integers else None

    def _x(self, dtype: torch.dtype) -> torch.Tensor:
        shape = (self.rows, self.width)
        if self.integers:
            return torch.randint(-20000, 20000, shape, dtype=dtype, device="cuda")
        return torch.randn(shape, device="cuda").to(dtype)

    def contenders(self) -> list[Contender]:
        return [
            Contender("moe_jit", lambda: self.ours, is_rival=False),
            Contender("torch", lambda: self.by_torch),
            Contender("triton", lambda: self.by_triton),
        ]

    def arguments(self) -> dict[str, object]:
        return {
            "weight_scale": self.scale,
            "activation_scale": self.row_scale,
            "group_index": self.counts,
            "activate_left": True,
            "quant_mode": 1,
        }

    def ours(self, index: int) -> torch.Tensor:
        return moe_jit.npu_dequant_swiglu_quant(self.x[index], **self.arguments())[0]

    def by_torch(self, index: int) -> torch.Tensor:
        value = self.x[index].float()
        if self.scale is not None and self.row_scale is not None:
            owner = torch.searchsorted(self.ends, torch.arange(self.rows, device="cuda"), right=True)
            value = value * self.scale[owner] * self.row_scale[:, None]
        left, right = value.chunk(2, dim=1)
        value = torch.nn.functional.silu(left) * right
        return (value / (value.abs().amax(dim=1, keepdim=True) / 127)).round().to(torch.int8)

    def by_triton(self, index: int) -> torch.Tensor:
        return triton_int.dequant_swiglu_quant(self.x[index], self.scale, self.row_scale, self.ends)

    def error(self, output: torch.Tensor) -> float:
        """Share of elements that are not the rounded exact value."""
        some = torch.randperm(self.rows)[:CHECKED_ROWS].sort().values
        arguments = self.arguments()
        owner = torch.searchsorted(self.ends.cpu(), some, right=True)
        arguments["group_index"] = torch.bincount(owner, minlength=self.counts.numel())
        on_cpu = {
            name: value.cpu() if isinstance(value, torch.Tensor) else value
            for name, value in arguments.items()
        }
        if self.row_scale is not None:
            on_cpu["activation_scale"] = self.row_scale.cpu()[some]
        expected = reference.dequant_swiglu_quant(self.x[0].cpu()[some], **on_cpu).rounded()
        return (output.cpu()[some] != expected).double().mean().item()


class DynamicRows(_Rows):
    """npu_dynamic_quant of bf16 rows."""

    family = "dynamic_quant"
    tolerance = 0.002

    def __init__(self, rows: int, width: int) -> None:
        self.rows = rows
        self.label = f"{rows} rows of {width}, bfloat16"
        self.rotate(rows * (3 * width + 4))
        self.x = [torch.randn(rows, width, device="cuda").bfloat16() for _ in range(self.calls)]

    def contenders(self) -> list[Contender]:
        return [
            Contender(
                "moe_jit", lambda: lambda index: moe_jit.npu_dynamic_quant(self.x[index])[0], is_rival=False
            ),
            Contender("torch", lambda: self.by_torch),
        ]

    def by_torch(self, index: int) -> torch.Tensor:
        x = self.x[index]
        scale = x.abs().amax(dim=1, keepdim=True).float() / 127
        return (x / scale).round().to(torch.int8)

    def error(self, output: torch.Tensor) -> float:
        rows = slice(0, CHECKED_ROWS)
        expected = reference.dynamic_quant(self.x[0][rows].cpu()).rounded()
        return (output[rows].cpu() != expected).double().mean().item()
