"""npu_grouped_matmul_finalize_routing on a GPU: the bits of the CPU backend for every way to find rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.ascend import Inputs
from support.calls import poisoned_allocations

import moe_jit

pytestmark = pytest.mark.cuda

K, N = 64, 288


def arguments(
    inputs: Inputs, rows: int, output_rows: int, *, live: int | None = None, groups: int = 5, **options: Any
) -> dict[str, Any]:
    """A call with int8 weights on the CPU; indices outside the output are among the rows."""
    live = rows if live is None else live
    index_dtype = options.get("index_dtype", torch.int64)
    logit = inputs.normal(rows)
    logit[live:] = float("nan")
    given = {
        "x": inputs.integers(rows, K),
        "w": inputs.integers(groups, K, N),
        "group_list": inputs.counts(groups, live),
        "scale": inputs.positive(groups, N, high=1e-3),
        "pertoken_scale": inputs.positive(rows),
        "logit": logit,
        "row_index": inputs.integers(rows, low=-1, high=output_rows, dtype=index_dtype),
        "output_bs": output_rows,
    }
    return given | options.get("changes", {})


def on_gpu(given: dict[str, Any]) -> dict[str, Any]:
    return {name: v.cuda() if isinstance(v, torch.Tensor) else v for name, v in given.items()}


def check_same(given: dict[str, Any], note: str) -> None:
    expected = moe_jit.npu_grouped_matmul_finalize_routing(**given)
    with poisoned_allocations():
        actual = moe_jit.npu_grouped_matmul_finalize_routing(**on_gpu(given)).cpu()
    different = actual != expected
    where = different.nonzero()[:3].tolist()
    shown = [(w, actual[tuple(w)].item(), expected[tuple(w)].item()) for w in where]
    assert not different.any(), f"{note}: {int(different.sum())} differ: {shown}"


@pytest.fixture
def inputs() -> Inputs:
    return Inputs("cpu")


@pytest.mark.parametrize("index_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(
    ("rows", "output_rows"),
    [(1, 1), (40, 7), (1000, 1000), (1000, 2), (1025, 300), (3000, 1500), (3000, 40), (3000, 1)],
)
def test_rows_are_found_and_added_in_order(inputs: Inputs, rows: int, output_rows: int, index_dtype):
    """Without an index, with one, and with more rows for a destination than the index holds."""
    live = inputs.random.randint(max(1, rows // 2), rows)
    check_same(arguments(inputs, rows, output_rows, live=live, index_dtype=index_dtype), inputs.note)


@pytest.mark.parametrize("rows", [60, 1500])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_shared_input_and_bias(inputs: Inputs, rows: int, dtype: torch.dtype):
    changes = {
        "shared_input": inputs.normal(20, N, dtype=dtype),
        "shared_input_weight": 0.3,
        "shared_input_offset": 5,
        "bias": inputs.normal(5, N, dtype=torch.bfloat16),
    }
    check_same(arguments(inputs, rows, 30, live=rows - 7, changes=changes), inputs.note)
    del changes["bias"]
    check_same(arguments(inputs, rows, 30, changes=changes), inputs.note)


@pytest.mark.parametrize("left_out", ["logit", "pertoken_scale", "both"])
def test_factors_left_out(inputs: Inputs, left_out: str):
    names = ("logit", "pertoken_scale") if left_out == "both" else (left_out,)
    changes = {"bias": inputs.normal(5, N, dtype=torch.bfloat16), **dict.fromkeys(names)}
    check_same(arguments(inputs, 90, 30, changes=changes), inputs.note)


@pytest.mark.parametrize("groups", [1, 300, 1024])
def test_cumulative_lists_and_many_groups(inputs: Inputs, groups: int):
    given = arguments(inputs, 1400, 200, live=1300, groups=groups)
    given |= {"group_list": given["group_list"].cumsum(0), "group_list_type": 0}
    check_same(given, inputs.note)


def test_replay_follows_changed_inputs(inputs: Inputs):
    for rows in (70, 1300):
        given = on_gpu(arguments(inputs, rows, 50))
        moe_jit.npu_grouped_matmul_finalize_routing(**given)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = moe_jit.npu_grouped_matmul_finalize_routing(**given)
        for change in ("nothing", "row_index", "group_list", "x", "no rows"):
            if change == "no rows":
                given["group_list"].zero_()
            elif change != "nothing":
                given[change].copy_(arguments(inputs, rows, 50, live=rows - 20)[change])
            y.fill_(float("nan"))
            graph.replay()
            expected = moe_jit.npu_grouped_matmul_finalize_routing(**given)
            assert torch.equal(y, expected), f"{inputs.note} {rows} {change}"
            assert change != "no rows" or not y.any()


def test_calls_do_not_synchronise(inputs: Inputs):
    given = on_gpu(arguments(inputs, 1300, 50))
    moe_jit.npu_grouped_matmul_finalize_routing(**given)
    torch.cuda.set_sync_debug_mode("error")
    try:
        moe_jit.npu_grouped_matmul_finalize_routing(**given)
    finally:
        torch.cuda.set_sync_debug_mode("default")
