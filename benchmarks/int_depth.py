"""npu_grouped_matmul with groups of the reduction dimension: the gradient of grouped weights."""

from __future__ import annotations

import torch
from int_workloads import Contender, Roofs, Workload, relative_l2

import moe_jit

CHECKED_COLUMNS = 64


class DepthProduct(Workload):
    """y[g] = x[:, of g] @ w[of g] in bf16; ``rows`` of k for each of ``groups``. x is a transposed view."""

    family = "bf16 groups of k"
    tolerance = 0.01
    layouts = ("nd",)
    calls = 2

    def __init__(self, groups: int, m: int, n: int, layout: str) -> None:
        self.groups, self.m, self.n = groups, m, n

    def with_rows(self, rows: int) -> DepthProduct:
        workload = DepthProduct(self.groups, self.m, self.n, "nd")
        workload.rows, workload.k = rows, self.groups * rows
        workload.label = f"{self.groups} x [{self.m}, {rows}] x [{rows}, {self.n}]"
        workload.counts = torch.full((self.groups,), rows, dtype=torch.int64, device="cuda")
        workload.ends = workload.counts.cumsum(0).int()
        workload.x = [workload.make_rows(self.m).T for _ in range(self.calls)]
        workload.w = [workload.make_rows(self.n) for _ in range(self.calls)]
        return workload

    def make_rows(self, columns: int) -> torch.Tensor:
        return torch.randn(self.k, columns, device="cuda").bfloat16()

    def bound_us(self, roofs: Roofs) -> float:
        num_bytes = 2 * (self.k * (self.m + self.n) + self.groups * self.m * self.n)
        products = 2 * self.k * self.m * self.n
        return 1e6 * max(num_bytes / roofs.read_bytes, products / roofs.bf16_products)

    def contenders(self) -> list[Contender]:
        return [
            Contender("moe_jit", lambda: self.ours, is_rival=False),
            Contender("torch._grouped_mm", lambda: self.by_grouped_mm),
            Contender("functional.grouped_mm", lambda: self.by_functional),
        ]

    def ours(self, index: int) -> torch.Tensor:
        (out,) = moe_jit.npu_grouped_matmul(
            [self.x[index]],
            [self.w[index]],
            group_list=self.counts,
            group_list_type=1,
            group_type=2,
            split_item=3,
        )
        return out

    def by_grouped_mm(self, index: int) -> torch.Tensor:
        return torch._grouped_mm(self.x[index], self.w[index], offs=self.ends)

    def by_functional(self, index: int) -> torch.Tensor:
        return torch.nn.functional.grouped_mm(self.x[index], self.w[index], offs=self.ends)

    def error(self, output: torch.Tensor) -> float:
        last = slice((self.groups - 1) * self.rows, None)
        some = slice(0, CHECKED_COLUMNS)
        expected = self.x[0][some, last].double() @ self.w[0][last].double()
        return relative_l2(output[-1, some], expected)
