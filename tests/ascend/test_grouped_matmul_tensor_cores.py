"""npu_grouped_matmul where sizes and alignment allow tensor cores: every dtype row, layout and tile."""

from __future__ import annotations

import pytest
import torch
from support.ascend import Inputs
from support.calls import poisoned_allocations
from support.matmul import BF16, F16, INT4, ROWS, Problem

import moe_jit
from moe_jit.ascend import cuda_plan, grouped_matmul

pytestmark = pytest.mark.cuda

NAMES = [name for name in ROWS if name != "f32"]
COUNTS = {
    "few": [3, 0, 8, 1, 16, 2],
    "some": [40, 0, 64, 17, 1],
    "many": [70, 129, 5],
    "most": [333, 0, 161, 400],
}


@pytest.fixture
def inputs() -> Inputs:
    return Inputs("cuda")


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[cuda_plan.TensorCoreProduct | None]:
    """What is planned during the test."""
    products = []
    original = cuda_plan.tensor_core_product

    def remember(r, p):
        products.append(original(r, p))
        return products[-1]

    monkeypatch.setattr(cuda_plan, "tensor_core_product", remember)
    grouped_matmul._plans.clear()
    return products


def check(problem: Problem, planned: list[cuda_plan.TensorCoreProduct | None]) -> None:
    (y,) = problem.call()
    assert planned, "no plan was made"
    assert planned[-1] is not None, "not on tensor cores"
    problem.check(y)
    rows = sum(problem.counts)
    assert not y[rows:].any()
    assert torch.equal(problem.call()[0], y)


def takes(name: str, layout: str) -> bool:
    return layout != "transposed" or ROWS[name].w != INT4 or ROWS[name].x in (F16, BF16)


@pytest.mark.parametrize("load", COUNTS)
@pytest.mark.parametrize("layout", ["nd", "transposed", "nz"])
@pytest.mark.parametrize("name", NAMES)
def test_rows_layouts_and_tiles(inputs: Inputs, planned: list, name: str, layout: str, load: str):
    if not takes(name, layout):
        pytest.skip("not a layout of these dtypes")
    problem = Problem(inputs, ROWS[name], COUNTS[load], 448, 448, tail=3, layout=layout)
    check(problem, planned)


@pytest.mark.parametrize("load", ["few", "some", "many"])
@pytest.mark.parametrize("layout", ["nd", "nz", "transposed"])
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize(("name", "k", "k_groups"), [
    ("f16-i4", 320, 10),
    ("f16-i4", 320, 5),
    ("bf16-i4", 896, 7),
    ("bf16-i4", 1024, 4),
    ("bf16-i4", 1536, 3),
    ("f16-i4", 512, 1),
    ("bf16-i4", 512, 1),
    ("f16-i8", 512, 1),
    ("bf16-i8", 512, 1),
])  # fmt: skip
def test_antiquant_parameters(
    inputs: Inputs, planned: list, name: str, k: int, k_groups: int, offset: bool, layout: str, load: str
):
    if not takes(name, layout):
        pytest.skip("not a layout of these dtypes")
    problem = Problem(
        inputs, ROWS[name], COUNTS[load], k, 448, layout=layout, offset=offset, k_groups=k_groups
    )
    check(problem, planned)


@pytest.mark.parametrize("load", ["few", "many"])
@pytest.mark.parametrize("layout", ["nd", "transposed", "nz"])
@pytest.mark.parametrize(
    ("name", "k_groups", "offset"),
    [
        ("f16", 1, False),
        ("bf16", 1, False),
        ("i8-i8", 1, False),
        ("i8-bf16-token", 1, False),
        ("bf16-i8", 1, True),
        ("bf16-i4", 4, False),
        ("f16-i4", 1, True),
    ],
)
def test_lists_of_weights(
    inputs: Inputs, planned: list, name: str, k_groups: int, offset: bool, layout: str, load: str
):
    if not takes(name, layout):
        pytest.skip("not a layout of these dtypes")
    sizes = {"k": 512, "n": 448, "k_groups": k_groups, "offset": offset, "tail": 3}
    check(Problem(inputs, ROWS[name], COUNTS[load], layout=layout, stacked=False, **sizes), planned)


@pytest.mark.parametrize("tokens", ["positive", "alternating", "paired", "huge", "tiny"])
@pytest.mark.parametrize("k_groups", [1, 6, 24])
def test_rows_that_show_a_bias_of_weights(inputs: Inputs, planned: list, k_groups: int, tokens: str):
    """Sums would grow with it; others are near the ends of the range."""
    problem = Problem(inputs, ROWS["bf16-i4"], COUNTS["few"], 3072, 448, bias=False, k_groups=k_groups)
    magnitude = problem.x.abs() + 1
    sign = torch.ones(3072, dtype=torch.bfloat16)
    if tokens == "alternating":
        sign[1::2] = -1
    elif tokens == "paired":
        sign[2::4] = sign[3::4] = -1
    problem.x = magnitude * sign.to(magnitude.device) * {"huge": 2.0**100, "tiny": 2.0**-100}.get(tokens, 1)
    check(problem, planned)


@pytest.mark.parametrize("load", ["few", "some"])
@pytest.mark.parametrize("layout", ["nd", "nz"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("name", "k_groups"), [("i8i4-bf16", 3), ("i8i4-f16", 3), ("i8i4-f16", 1), ("i4-bf16", 6)]
)
def test_int4_segments(
    inputs: Inputs, planned: list, name: str, k_groups: int, bias: bool, layout: str, load: str
):
    problem = Problem(
        inputs,
        ROWS[name],
        COUNTS[load],
        768,
        448,
        bias=bias,
        k_groups=k_groups,
        offset=name == "i8i4-f16",
        layout=layout,
    )
    check(problem, planned)


@pytest.mark.parametrize("groups", [1, 129, 1024])
@pytest.mark.parametrize("name", ["bf16", "i8-bf16-token", "i8i4-bf16", "bf16-i4"])
def test_number_of_groups(inputs: Inputs, planned: list, name: str, groups: int):
    problem = Problem(inputs, ROWS[name], inputs.counts(groups, 60).tolist(), 128, 64)
    check(problem, planned)


def check_list(outputs: list[torch.Tensor], problem: Problem, planned: list) -> None:
    assert planned, "no plan was made"
    assert planned[-1] is not None, "not on tensor cores"
    problem.check(torch.cat([y.reshape(-1, y.shape[-1]) for y in outputs]))


@pytest.mark.parametrize("load", ["few", "many"])
@pytest.mark.parametrize("layout", ["nd", "transposed"])
@pytest.mark.parametrize("name", ["bf16", "bf16-i8", "f16-i4"])
def test_lists_of_rows(inputs: Inputs, planned: list, name: str, layout: str, load: str):
    """One x for each group, with one output, or as separate products."""
    problem = Problem(inputs, ROWS[name], COUNTS[load], 512, 448, layout=layout, stacked=False)
    wide = torch.cat([problem.x, problem.x], dim=1)[:, 512:]
    pieces = list(wide.split(problem.counts))
    check_list(problem.call(x=pieces, group_list=None, split_item=2), problem, planned)
    separate = problem.call(x=pieces, group_list=None, group_type=-1, split_item=0)
    assert [y.shape[0] for y in separate] == problem.counts
    check_list(separate, problem, planned)


@pytest.mark.parametrize("load", ["few", "most"])
@pytest.mark.parametrize("name", ["bf16", "i8-bf16-token", "i8-i8", "bf16-i8"])
def test_one_output_for_each_group(inputs: Inputs, planned: list, name: str, load: str):
    problem = Problem(inputs, ROWS[name], COUNTS[load], 512, 448, tail=3, stacked=False)
    outputs = problem.call(split_item=0)
    assert [y.shape[0] for y in outputs] == problem.counts
    tail = torch.zeros(3, 448, dtype=outputs[0].dtype, device=outputs[0].device)
    check_list([*outputs, tail], problem, planned)


@pytest.mark.parametrize("name", ["f16", "bf16-i8", "bf16-i4"])
def test_separate_products_of_different_sizes(inputs: Inputs, planned: list, name: str):
    sizes = ((12, 128, 64), (5, 128, 64), (0, 128, 64), (70, 320, 32), (9, 64, 320))
    problems = [Problem(inputs, ROWS[name], [m], k, n, stacked=False) for m, k, n in sizes]
    parts = [problem.arguments() for problem in problems]
    lists = [key for key in parts[0] if isinstance(parts[0][key], list)]
    with poisoned_allocations():
        outputs = moe_jit.npu_grouped_matmul(**{key: [part[key][0] for part in parts] for key in lists})
    for problem, y in zip(problems, outputs, strict=True):
        check_list([y], problem, planned)
