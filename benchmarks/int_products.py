"""Grouped products of the int family: random operands, what computes them, and an oracle for a few rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from copy import copy
from functools import partial

import torch
from int_workloads import Call, Contender, Roofs, Workload, relative_l2
from rivals import triton_int

import moe_jit
from moe_jit.ascend.formats import unpack_int4

ROTATED_BYTES = 2_000_000_000
MAX_SETS = 4
CHECKED_GROUPS = 4


class GroupedProduct(Workload):
    """``groups`` products of ``rows`` rows each. Weights rotate, so that they are not in the L2 cache."""

    weight_bits = 8
    x_bytes = 1
    out_bytes = 2
    tolerance = 0.01
    layouts: tuple[str, ...] = ("transposed", "nd")

    def __init__(self, groups: int, k: int, n: int, layout: str) -> None:
        self.groups, self.k, self.n, self.layout = groups, k, n, layout
        self.weight_bytes = groups * k * n * self.weight_bits // 8
        self.calls = max(2, min(MAX_SETS, 1 + ROTATED_BYTES // self.weight_bytes))
        self.weights = [self.make_weight() for _ in range(self.calls)]
        self.prepare_weights()

    def with_rows(self, rows: int) -> GroupedProduct:
        """The workload for groups of ``rows`` rows, with the same weights."""
        workload = copy(self)
        workload.rows, workload.m = rows, self.groups * rows
        workload.bytes = self.weight_bytes + workload.m * (self.k * self.x_bytes + self.n * self.out_bytes)
        workload.label = f"{self.groups} x [{rows}, {self.k}] x [{self.k}, {self.n}] {self.layout}"
        workload.counts = torch.full((self.groups,), rows, dtype=torch.int64, device="cuda")
        workload.ends = workload.counts.cumsum(0).int()
        workload.x = workload.make_x()
        workload.row_scale = torch.rand(workload.m, device="cuda") + 0.5
        workload.prepare_rows()
        return workload

    def bound_us(self, roofs: Roofs) -> float:
        products = 2 * self.m * self.k * self.n
        return 1e6 * max(self.bytes / roofs.read_bytes, products / self.product_roof(roofs))

    def product_roof(self, roofs: Roofs) -> float:
        return roofs.int8_products if self.x_bytes == 1 else roofs.bf16_products

    def make_x(self) -> torch.Tensor:
        return torch.randint(-128, 128, (self.m, self.k), dtype=torch.int8, device="cuda")

    def make_weight(self) -> torch.Tensor:
        """[groups, k, n]; "transposed" has neighbours along k."""
        shape = (
            (self.groups, self.n, self.k) if self.layout == "transposed" else (self.groups, self.k, self.n)
        )
        weight = torch.empty(shape, dtype=torch.int8, device="cuda").random_(-128, 128)
        return weight.transpose(1, 2) if self.layout == "transposed" else weight

    def prepare_weights(self) -> None:
        self.scale = (torch.rand(self.groups, self.n, device="cuda") * 1e-3 + 1e-3).bfloat16()

    def prepare_rows(self) -> None:
        """What else depends on the number of rows."""

    @abstractmethod
    def dense(self, group: int) -> torch.Tensor:
        """float64 [k, n] weight of the first call, scales included."""

    def expected(self, row: int, dense: torch.Tensor) -> torch.Tensor:
        return (self.x[row].double() @ dense) * self.row_scale[row].double()

    def error(self, output: torch.Tensor) -> float:
        picked = range(0, self.groups, max(1, self.groups // CHECKED_GROUPS))
        rows = [group * self.rows + self.rows // 2 for group in picked]
        expected = torch.stack([self.expected(r, self.dense(g)) for r, g in zip(rows, picked, strict=True)])
        return relative_l2(output[rows], expected)

    def product(self, index: int, **arguments: object) -> torch.Tensor:
        (out,) = moe_jit.npu_grouped_matmul(
            [self.x],
            [self.weights[index]],
            group_list=self.counts,
            group_list_type=1,
            group_type=0,
            split_item=3,
            **arguments,
        )
        return out

    def triton(self, call: Callable[[triton_int.Config, int], torch.Tensor]) -> Contender:
        return Contender("triton", lambda: triton_int.tuned(self.family, call, self.rows, self.calls))


class Int8Product(GroupedProduct):
    family = "a8w8"

    def contenders(self) -> list[Contender]:
        return [
            Contender("moe_jit", lambda: self.ours, is_rival=False),
            Contender("torch._int_mm loop", lambda: self.int_mm),
            self.triton(self.by_triton),
        ]

    def ours(self, index: int) -> torch.Tensor:
        return self.product(
            index, scale=[self.scale], per_token_scale=[self.row_scale], output_dtype=torch.bfloat16
        )

    def sums(self, index: int, out: torch.Tensor) -> torch.Tensor:
        """torch._int_mm takes more than 16 rows: smaller groups are computed with those after them."""
        rows = max(self.rows, 32)
        for group, weight in enumerate(self.weights[index]):
            first = min(group * self.rows, self.m - rows)
            skip = group * self.rows - first
            product = torch._int_mm(self.x[first : first + rows], weight)
            out[group * self.rows : (group + 1) * self.rows] = product[skip : skip + self.rows]
        return out

    def int_mm(self, index: int) -> torch.Tensor:
        if self.m < 32:
            raise ValueError("torch._int_mm takes more than 16 rows")
        sums = self.sums(index, torch.empty(self.m, self.n, dtype=torch.int32, device="cuda"))
        by_group = sums.view(self.groups, self.rows, self.n).float() * self.scale.float()[:, None]
        return (by_group.view(self.m, self.n) * self.row_scale[:, None]).bfloat16()

    def by_triton(self, config: triton_int.Config, index: int) -> torch.Tensor:
        return triton_int.grouped_int8(
            config, self.x, self.weights[index], self.ends, self.scale, self.row_scale, torch.bfloat16
        )

    def dense(self, group: int) -> torch.Tensor:
        return self.weights[0][group].double() * self.scale[group].double()


class Int8Sums(Int8Product):
    family = "a8w8 int32"
    out_bytes = 4
    tolerance = 0.0

    def ours(self, index: int) -> torch.Tensor:
        return self.product(index, output_dtype=torch.int32)

    def int_mm(self, index: int) -> torch.Tensor:
        if self.m < 32:
            raise ValueError("torch._int_mm takes more than 16 rows")
        return self.sums(index, torch.empty(self.m, self.n, dtype=torch.int32, device="cuda"))

    def by_triton(self, config: triton_int.Config, index: int) -> torch.Tensor:
        return triton_int.grouped_int8(
            config, self.x, self.weights[index], self.ends, None, None, torch.int32
        )

    def dense(self, group: int) -> torch.Tensor:
        return self.weights[0][group].double()

    def expected(self, row: int, dense: torch.Tensor) -> torch.Tensor:
        return self.x[row].double() @ dense


class Int4Weights(GroupedProduct):
    weight_bits = 4
    layouts = ("nd",)
    group: int | None  # k that share a scale; None: all

    def scales(self) -> torch.Tensor:
        shape = (self.groups, self.k // (self.group or self.k), self.n)
        return (torch.rand(shape, device="cuda") * 1e-3 + 1e-3).bfloat16()

    def make_weight(self) -> torch.Tensor:
        shape = (self.groups, self.k, self.n // 8)
        return torch.empty(shape, dtype=torch.int32, device="cuda").random_(-(2**31), 2**31)

    def dense(self, group: int) -> torch.Tensor:
        scale = self.group_scale[group].double()
        return self.unpacked(0, group).double() * scale.repeat_interleave(self.k // scale.shape[0], dim=0)

    def unpacked(self, index: int, group: int) -> torch.Tensor:
        return unpack_int4(self.weights[index][group])


class Int8Int4Product(Int4Weights):
    """The bias is the prescribed one, 8 * sum_k(w * scale), so that the result is x @ (w * scale)."""

    family = "a8w4 per 256"
    group: int | None = 256

    def prepare_weights(self) -> None:
        self.group_scale = self.scales()
        self.packed_scale = self.group_scale.float().view(torch.int32).long()
        self.biases = [self.bias_of(weight) for weight in self.weights]

    def bias_of(self, weights: torch.Tensor) -> torch.Tensor:
        sums = [
            unpack_int4(w).view(self.group_scale.shape[1], -1, self.n).sum(1, dtype=torch.int32).double()
            for w in weights
        ]
        return torch.stack(
            [8 * (s * g.double()).sum(0) for s, g in zip(sums, self.group_scale, strict=True)]
        ).float()

    def contenders(self) -> list[Contender]:
        return [Contender("moe_jit", lambda: self.ours, is_rival=False), self.triton(self.by_triton)]

    def ours(self, index: int) -> torch.Tensor:
        return self.product(
            index,
            scale=[self.packed_scale],
            bias=[self.biases[index]],
            per_token_scale=[self.row_scale],
            output_dtype=torch.bfloat16,
        )

    def by_triton(self, config: triton_int.Config, index: int) -> torch.Tensor:
        return triton_int.grouped_int4(
            config, self.x, self.weights[index], self.ends, self.group_scale, self.row_scale
        )


class Int8Int4Channels(Int8Int4Product):
    family = "a8w4"
    group = None


class _Bf16Rows:
    x_bytes = 2

    def make_x(self) -> torch.Tensor:
        return torch.randn(self.m, self.k, device="cuda").bfloat16()

    def expected(self, row: int, dense: torch.Tensor) -> torch.Tensor:
        return self.x[row].double() @ dense

    def copies(self) -> Call:
        """torch._grouped_mm with a bf16 copy of every weight."""
        copies = [
            torch.stack([self.dequantised(index, group) for group in range(self.groups)])
            for index in range(self.calls)
        ]
        return lambda index: torch._grouped_mm(self.x, copies[index], offs=self.ends)


class Bf16Product(_Bf16Rows, GroupedProduct):
    family = "bf16"
    weight_bits = 16

    def make_weight(self) -> torch.Tensor:
        shape = (
            (self.groups, self.n, self.k) if self.layout == "transposed" else (self.groups, self.k, self.n)
        )
        weight = torch.empty(shape, dtype=torch.bfloat16, device="cuda").normal_()
        return weight.transpose(1, 2) if self.layout == "transposed" else weight

    def prepare_weights(self) -> None:
        pass

    def contenders(self) -> list[Contender]:
        return [
            Contender("moe_jit", lambda: partial(self.product, output_dtype=torch.bfloat16), is_rival=False),
            Contender("torch._grouped_mm", lambda: self.by_grouped_mm),
            Contender("functional.grouped_mm", lambda: self.by_functional),
        ]

    def by_grouped_mm(self, index: int) -> torch.Tensor:
        return torch._grouped_mm(self.x, self.weights[index], offs=self.ends)

    def by_functional(self, index: int) -> torch.Tensor:
        return torch.nn.functional.grouped_mm(self.x, self.weights[index], offs=self.ends)

    def dense(self, group: int) -> torch.Tensor:
        return self.weights[0][group].double()


class Bf16Int8Product(_Bf16Rows, GroupedProduct):
    family = "a16w8"
    layouts = ("nd",)

    def contenders(self) -> list[Contender]:
        return [
            Contender("moe_jit", lambda: self.ours, is_rival=False),
            Contender("torch._grouped_mm, bf16 copy", self.copies),
        ]

    def ours(self, index: int) -> torch.Tensor:
        return self.product(index, antiquant_scale=[self.scale], output_dtype=torch.bfloat16)

    def dequantised(self, index: int, group: int) -> torch.Tensor:
        return (self.weights[index][group].float() * self.scale[group].float()).bfloat16()

    def dense(self, group: int) -> torch.Tensor:
        return self.dequantised(0, group).double()


class Bf16Int4Product(_Bf16Rows, Int4Weights):
    family = "a16w4 per 128"
    group: int | None = 128

    def prepare_weights(self) -> None:
        self.group_scale = self.scales()

    def contenders(self) -> list[Contender]:
        return [
            Contender("moe_jit", lambda: self.ours, is_rival=False),
            self.triton(self.by_triton),
            Contender("torch._grouped_mm, bf16 copy", self.copies),
        ]

    def ours(self, index: int) -> torch.Tensor:
        return self.product(index, antiquant_scale=[self.group_scale], output_dtype=torch.bfloat16)

    def by_triton(self, config: triton_int.Config, index: int) -> torch.Tensor:
        return triton_int.grouped_int4(config, self.x, self.weights[index], self.ends, self.group_scale)

    def dequantised(self, index: int, group: int) -> torch.Tensor:
        scale = self.group_scale[group].float()
        scale = scale.repeat_interleave(self.k // scale.shape[0], dim=0)
        return (self.unpacked(index, group).float() * scale).bfloat16()


class Bf16Int4Channels(Bf16Int4Product):
    family = "a16w4"
    group = None


class Bf16Int4Transposed(Bf16Int4Product):
    """Packed along k."""

    family = "a16w4 per 128 transposed"
    layouts = ("transposed",)

    def make_weight(self) -> torch.Tensor:
        shape = (self.groups, self.n, self.k // 8)
        return torch.empty(shape, dtype=torch.int32, device="cuda").random_(-(2**31), 2**31).transpose(1, 2)

    def unpacked(self, index: int, group: int) -> torch.Tensor:
        return unpack_int4(self.weights[index][group].T).T

    def contenders(self) -> list[Contender]:
        return [one for one in super().contenders() if one.name != "triton"]


PRODUCTS: tuple[type[GroupedProduct], ...] = (
    Int8Product,
    Int8Sums,
    Int8Int4Channels,
    Int8Int4Product,
    Bf16Product,
    Bf16Int8Product,
    Bf16Int4Channels,
    Bf16Int4Product,
    Bf16Int4Transposed,
)
