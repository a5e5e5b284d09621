"""npu_grouped_matmul_finalize_routing against the reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from support.ascend import Inputs, backends, inputs_on
from support.calls import poisoned_allocations
from support.matmul import ROWS, Problem, stored_weight

import moe_jit
from moe_jit.ascend import finalize_routing
from moe_jit.reference import ascend as reference

INT8, INT4 = "i8-bf16-f32scale-token", "i8i4-f16"


@pytest.fixture(params=backends("grouped_matmul_finalize_routing", "grouped_matmul"))
def inputs(request) -> Iterator[Inputs]:
    yield from inputs_on(request.param)


def problem_of(inputs: Inputs, name: str, counts: list[int], tail: int = 0, **options: Any) -> Problem:
    k, n = (32, 256) if name == INT8 else (256, 128)
    options = {"bias": name == INT4} | options
    return Problem(inputs, ROWS[name], counts, options.pop("k", k), options.pop("n", n), tail=tail, **options)


def call(problem: Problem, index: torch.Tensor, kind: str = "counts", **changes: Any) -> torch.Tensor:
    arguments = {
        "x": problem.x,
        "w": stored_weight(problem.w, problem.layout, problem.row.w == "int4"),
        "row_index": index,
        "pertoken_scale": problem.parameters["per_token_scale"],
        "scale": problem.arguments()["scale"][0],
        **{name: problem.parameters[name] for name in ("bias", "offset") if name in problem.parameters},
        **problem.group_list(kind),
    }
    with poisoned_allocations():
        return moe_jit.npu_grouped_matmul_finalize_routing(**(arguments | changes))


def expected(
    problem: Problem, index: torch.Tensor, output_rows: int, logit: torch.Tensor | None = None, **shared: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The exact result, and its tolerance from a sum of magnitudes."""
    live = sum(problem.counts)
    product = problem.expected()
    factor = 1.0 if logit is None else logit.double().cpu()[:, None]
    terms, bounds = (product.exact * factor)[:live], (product.bound * factor)[:live].abs()
    index = index.cpu()[:live]
    exact = reference.scatter_rows(terms, index, output_rows, **shared)
    bound = reference.scatter_rows(bounds, index, output_rows)
    if shared:
        bound = bound + (exact - reference.scatter_rows(terms, index, output_rows)).abs()
    return exact, bound * 2.0**-24 * (live + problem.k_groups + 8)


def check(y: torch.Tensor, exact: torch.Tensor, tolerance: torch.Tensor, note: str) -> None:
    assert y.dtype == torch.float32
    assert y.shape == exact.shape
    error = (y.cpu().double() - exact).abs()
    assert (error <= tolerance).all(), f"{note}: {error.max()}"


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("kind", ["counts", "cumulative"])
@pytest.mark.parametrize("layout", ["nd", "nz", "transposed", "nz-transposed"])
@pytest.mark.parametrize("name", [INT8, INT4])
def test_layouts_and_group_lists(inputs: Inputs, name: str, layout: str, kind: str, index_dtype: torch.dtype):
    if name == INT4 and ("transposed" in layout or index_dtype == torch.int32):
        pytest.skip("not a form of int4 weights")
    problem = problem_of(inputs, name, [4, 0, 9, 2], tail=6, layout=layout)
    index = inputs.integers(21, low=0, high=7, dtype=index_dtype)
    logit = inputs.normal(21)
    type_of = {"counts": 1, "cumulative": 0}[kind]
    y = call(problem, index, kind, logit=logit, output_bs=8, group_list_type=type_of)
    check(y, *expected(problem, index, 8, logit), inputs.note)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("name", [INT8, INT4])
@pytest.mark.parametrize("offset", [0, 3])
def test_shared_input(inputs: Inputs, name: str, offset: int, dtype: torch.dtype):
    problem = problem_of(inputs, name, [5, 6])
    index = inputs.integers(11, low=0, high=8, dtype=torch.int64)
    shared = {
        "shared_input": inputs.normal(5, problem.n, dtype=dtype),
        "shared_input_weight": 0.5,
        "shared_input_offset": offset,
    }
    y = call(problem, index, output_bs=9, **shared)
    check(
        y,
        *expected(problem, index, 9, **(shared | {"shared_input": shared["shared_input"].cpu()})),
        inputs.note,
    )


@pytest.mark.parametrize("k_groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("offset", [False, True])
def test_int4_parameters(inputs: Inputs, offset: bool, bias: bool, k_groups: int):
    problem = problem_of(inputs, INT4, [5, 6], k=512, bias=bias, offset=offset, k_groups=k_groups)
    index = inputs.integers(11, low=0, high=10, dtype=torch.int64)
    check(call(problem, index), *expected(problem, index, 11), inputs.note)


@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize("has_logit", [True, False])
@pytest.mark.parametrize("has_bias", [True, False])
def test_int8_bit_by_bit(
    inputs: Inputs, has_bias: bool, has_logit: bool, per_token: bool, scale_dtype: torch.dtype
):
    """(acc * scale) * (logit * pertoken_scale) + bias * logit, summed in ascending row order."""
    problem = problem_of(inputs, INT8, [7, 1, 12], tail=3)
    rows, n = 23, problem.n
    scale = problem.parameters["scale"].to(scale_dtype)
    logit = inputs.normal(rows) if has_logit else None
    bias = inputs.normal(3, n, dtype=torch.bfloat16) if has_bias else None
    token = problem.parameters["per_token_scale"] if per_token else None
    index = inputs.integers(rows, low=0, high=3, dtype=torch.int64)
    y = call(problem, index, scale=scale, logit=logit, bias=bias, pertoken_scale=token, output_bs=4)
    ones = torch.ones(rows)
    weight = ones if logit is None else logit.cpu()
    factor = weight * (ones if token is None else token.cpu())
    terms = []
    for expert, begin, end in problem.ranges():
        accumulator = reference.accumulate(problem.x[begin:end].cpu(), problem.w[expert].cpu())
        term = (accumulator.float() * scale[expert].float().cpu()) * factor[begin:end, None]
        if bias is not None:
            term = term + bias[expert].float().cpu() * weight[begin:end, None]
        terms.append(term)
    assert torch.equal(y.cpu(), reference.scatter_rows(torch.cat(terms), index.cpu()[:20], 4)), inputs.note


def test_equals_index_add_of_the_grouped_product(inputs: Inputs):
    problem = problem_of(inputs, INT8, [6, 3, 4])
    accumulator = problem.call(output_dtype=torch.int32, scale=None, per_token_scale=None)[0]
    expert = reference.row_experts(torch.tensor(problem.counts), 1, 13)
    terms = (
        accumulator.float()
        * problem.parameters["scale"][expert]
        * problem.parameters["per_token_scale"][:, None]
    )
    index = inputs.integers(13, low=0, high=5, dtype=torch.int64)
    direct = torch.zeros(6, problem.n, device=inputs.device).index_add(0, index, terms)
    torch.testing.assert_close(call(problem, index, output_bs=6), direct, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 200, 1024])
def test_many_groups_and_no_rows_at_all(inputs: Inputs, groups: int):
    problem = problem_of(inputs, INT8, inputs.counts(groups, 30).tolist())
    index = inputs.integers(30, low=0, high=29, dtype=torch.int64)
    check(call(problem, index), *expected(problem, index, 30), inputs.note)
    nothing = torch.zeros(groups, dtype=torch.int64, device=inputs.device)
    assert not call(problem, index, group_list=nothing).any()


def test_rows_outside_the_output_and_after_the_last_group(inputs: Inputs):
    problem = problem_of(inputs, INT8, [3, 4], tail=4)
    index = torch.tensor([0, -1, 2, 99, 2, 0, 1, 2, 2, 2, 2], device=inputs.device)
    logit = inputs.normal(11)
    logit[7:] = float("nan")
    y = call(problem, index, logit=logit, output_bs=3)
    check(y, *expected(problem, index, 3, logit), inputs.note)


def test_results_repeat(inputs: Inputs):
    problem = problem_of(inputs, INT4, [60, 0, 41], k=512, k_groups=2)
    index = inputs.integers(101, low=0, high=4, dtype=torch.int64)
    results = [call(problem, index, output_bs=5) for _ in range(4)]
    assert all(torch.equal(results[0], y) for y in results)


@pytest.mark.parametrize("name", [INT8, INT4])
def test_repeated_signatures_take_the_new_tensors(inputs: Inputs, name: str):
    """The second call of a signature skips the checks, but neither the values nor the group list."""
    for counts in ([3, 5, 2], [0, 9, 1], [4, 0, 0]):
        problem = problem_of(inputs, name, counts, tail=10 - sum(counts))
        index, logit = inputs.integers(10, low=0, high=5, dtype=torch.int64), inputs.normal(10)
        for rows in (6, 8):
            y = call(problem, index, logit=logit, output_bs=rows)
            check(y, *expected(problem, index, rows, logit), inputs.note)
        strided = logit.repeat_interleave(2)[::2]
        assert torch.equal(call(problem, index, logit=strided, output_bs=rows), y)
    with pytest.raises(TypeError, match="output_bs"):
        call(problem, index, output_bs=True)
    assert all(
        not plan.weight.tensors and plan.groups.values is None for plan in finalize_routing._plans.values()
    )
