"""Random products of npu_grouped_matmul with groups of the reduction dimension."""

from __future__ import annotations

import torch

import moe_jit
from support.ascend import Inputs
from support.calls import poisoned_allocations
from support.matmul import units


def operands(inputs: Inputs, dtype: torch.dtype, k: int, m: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """x as a transposed view."""
    return inputs.normal(k, m, dtype=dtype).T, inputs.normal(k, n, dtype=dtype)


def check_product(y: torch.Tensor, x: torch.Tensor, w: torch.Tensor, counts: list[int], note: str) -> None:
    """fp32 sums, rounded once."""
    assert tuple(y.shape) == (len(counts), x.shape[0], w.shape[1])
    begin = 0
    for group, count in enumerate(counts):
        part = slice(begin, begin + count)
        a, b = x[:, part].double(), w[part].double()
        exact, bound = a @ b, a.abs() @ b.abs()
        sums = (count + 4) * 2.0**-24 * bound
        tolerance = 0.5 * (1 + 2.0**-8) * units(exact.abs() + sums, y.dtype) + sums
        error = (y[group].double() - exact).abs()
        wrong = (~(error <= tolerance)).nonzero().tolist()
        assert not wrong, f"{note} group {group} of {count}: {len(wrong)} wrong, first {wrong[0]}"
        assert count or not y[group].any(), f"{note} group {group}"
        begin += count


def multiply(x: torch.Tensor, w: list[torch.Tensor], counts: list[int], kind: int = 1) -> torch.Tensor:
    sizes = torch.tensor(counts, device=x.device)
    groups = sizes if kind == 1 else sizes.cumsum(0)
    with poisoned_allocations():
        (y,) = moe_jit.npu_grouped_matmul(
            [x], w, group_list=groups, group_list_type=kind, group_type=2, split_item=3
        )
    return y
