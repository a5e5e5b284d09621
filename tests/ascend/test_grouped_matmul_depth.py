"""npu_grouped_matmul with groups of the reduction dimension, where sizes and layout allow tensor cores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.ascend import Inputs
from support.calls import poisoned_allocations
from support.grouped_depth import check_product, multiply, operands
from support.matmul import BF16, F16

import moe_jit
from moe_jit.ascend import cuda_plan, grouped_matmul

pytestmark = pytest.mark.cuda

COUNTS = {
    "short": [1, 0, 2, 63, 64, 65, 7],
    "long": [300, 0, 1, 700, 129],
    "none": [0, 0, 0],
    "one": [200],
}


@pytest.fixture
def inputs() -> Inputs:
    return Inputs("cuda")


@pytest.fixture
def on_tensor_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan for the other module is an error."""

    def refuse(*_: Any) -> None:
        raise AssertionError("not on tensor cores")

    monkeypatch.setattr(cuda_plan, "direct_module", refuse)
    grouped_matmul._plans.clear()


@pytest.mark.usefixtures("on_tensor_cores")
@pytest.mark.parametrize("load", COUNTS)
@pytest.mark.parametrize(("m", "n"), [(8, 8), (64, 264), (136, 72), (304, 520)])
@pytest.mark.parametrize("dtype", [F16, BF16])
def test_sizes(inputs: Inputs, dtype: torch.dtype, m: int, n: int, load: str):
    counts = COUNTS[load]
    x, w = operands(inputs, dtype, sum(counts) + 3, m, n)
    for kind in (0, 1):
        check_product(multiply(x, [w], counts, kind), x, w, counts, f"{inputs.note} {m} {n}")


@pytest.mark.usefixtures("on_tensor_cores")
def test_groups_do_not_see_their_neighbours(inputs: Inputs):
    """Where what a group must not read is infinite, in either operand."""
    counts = [5, 70, 64, 1, 0, 30]
    x, w = operands(inputs, BF16, sum(counts) + 9, 72, 136)
    x[:, 5:75] = torch.inf
    w[139:140] = torch.nan
    x[:, 170:], w[170:] = torch.nan, torch.inf
    y = multiply(x, [w], counts)
    assert not y[1].isfinite().any()
    assert y[3].isnan().all()
    kept = [0, 2, 4, 5]
    parts = [slice(0, 5), slice(75, 139), slice(0, 0), slice(140, 170)]
    columns = torch.cat([torch.arange(x.shape[1], device=x.device)[part] for part in parts])
    check_product(y[kept], x[:, columns], w[columns], [5, 64, 0, 30], inputs.note)


@pytest.mark.usefixtures("on_tensor_cores")
def test_rows_of_wider_memory(inputs: Inputs):
    counts = [33, 100, 4]
    wide, w = inputs.normal(140, 160, dtype=BF16), inputs.normal(140, 72, dtype=BF16)
    x = wide[:, 16:93].T
    check_product(multiply(x, [w], counts), x, w, counts, inputs.note)


@pytest.mark.usefixtures("on_tensor_cores")
def test_slices_of_the_weight(inputs: Inputs):
    counts = [33, 100, 4, 64]
    x, w = operands(inputs, F16, sum(counts), 200, 72)
    slices = [part.clone() for part in w.split(counts)]
    together = multiply(x, slices, counts)
    assert torch.equal(together, multiply(x, [w], counts))
    ends = torch.tensor(counts, device=x.device).cumsum(0)
    with poisoned_allocations():
        separate = moe_jit.npu_grouped_matmul([x], slices, group_list=ends, group_type=2, split_item=0)
    assert torch.equal(together, torch.stack(separate))


@pytest.mark.usefixtures("on_tensor_cores")
@pytest.mark.parametrize("groups", [1, 129, 1024])
def test_number_of_groups(inputs: Inputs, groups: int):
    counts = inputs.counts(groups, 5 * groups).tolist()
    x, w = operands(inputs, BF16, sum(counts) + 1, 72, 40)
    check_product(multiply(x, [w], counts), x, w, counts, inputs.note)


@pytest.mark.usefixtures("on_tensor_cores")
def test_random_calls(inputs: Inputs):
    pick = inputs.random
    for _ in range(20):
        counts = inputs.counts(pick.choice([1, 3, 20, 60]), pick.randint(1, 900)).tolist()
        m, n = 8 * pick.randint(1, 60), 8 * pick.randint(1, 60)
        x, w = operands(inputs, pick.choice([F16, BF16]), sum(counts) + pick.choice([0, 0, 1, 13]), m, n)
        check_product(multiply(x, [w], counts), x, w, counts, f"{inputs.note} {counts} {m} {n}")
