"""npu_grouped_matmul_finalize_routing on a GPU: the bits of the CPU backend for every way to find rows."""

from __future__ import annotations

import pytest
import torch
from support.ascend import Inputs, on_device
from support.random_calls import FINALIZED_COLUMNS as N
from support.random_calls import check_same
from support.random_calls import finalize_call as arguments

import moe_jit
from moe_jit.ascend.formats import pack_int4

pytestmark = pytest.mark.cuda

FUNCTION = moe_jit.npu_grouped_matmul_finalize_routing


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
    check_same(
        FUNCTION, arguments(inputs, rows, output_rows, live=live, index_dtype=index_dtype), inputs.note
    )


@pytest.mark.parametrize("rows", [60, 1500])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_shared_input_and_bias(inputs: Inputs, rows: int, dtype: torch.dtype):
    changes = {
        "shared_input": inputs.normal(20, N, dtype=dtype),
        "shared_input_weight": 0.3,
        "shared_input_offset": 5,
        "bias": inputs.normal(5, N, dtype=torch.bfloat16),
    }
    check_same(FUNCTION, arguments(inputs, rows, 30, live=rows - 7, changes=changes), inputs.note)
    del changes["bias"]
    check_same(FUNCTION, arguments(inputs, rows, 30, changes=changes), inputs.note)


@pytest.mark.parametrize(("rows", "output_rows"), [(300, 40), (1300, 90)])
def test_rows_that_are_not_whole_lines_of_the_cache(inputs: Inputs, rows: int, output_rows: int):
    """104 columns of int4 weights: 416 bytes."""
    groups, k, n = 3, 192, 104
    given = {
        "x": inputs.integers(rows, k),
        "w": pack_int4(inputs.integers(groups, k, n, low=-8, high=7)),
        "group_list": inputs.counts(groups, rows - 5),
        "scale": inputs.positive(groups, n, high=1e-3).view(torch.int32).to(torch.int64)[:, None],
        "bias": inputs.normal(groups, n),
        "pertoken_scale": inputs.positive(rows),
        "row_index": inputs.integers(rows, low=0, high=output_rows, dtype=torch.int64),
        "output_bs": output_rows,
    }
    check_same(FUNCTION, given, inputs.note)


@pytest.mark.parametrize("left_out", ["logit", "pertoken_scale", "both"])
def test_factors_left_out(inputs: Inputs, left_out: str):
    names = ("logit", "pertoken_scale") if left_out == "both" else (left_out,)
    changes = {"bias": inputs.normal(5, N, dtype=torch.bfloat16), **dict.fromkeys(names)}
    check_same(FUNCTION, arguments(inputs, 90, 30, changes=changes), inputs.note)


@pytest.mark.parametrize("groups", [1, 300, 1024])
def test_cumulative_lists_and_many_groups(inputs: Inputs, groups: int):
    given = arguments(inputs, 1400, 200, live=1300, groups=groups)
    given |= {"group_list": given["group_list"].cumsum(0), "group_list_type": 0}
    check_same(FUNCTION, given, inputs.note)


def test_replay_follows_changed_inputs(inputs: Inputs):
    for rows in (70, 1300):
        given = on_device(arguments(inputs, rows, 50), "cuda")
        FUNCTION(**given)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = FUNCTION(**given)
        for change in ("nothing", "row_index", "group_list", "x", "no rows"):
            if change == "no rows":
                given["group_list"].zero_()
            elif change != "nothing":
                given[change].copy_(arguments(inputs, rows, 50, live=rows - 20)[change])
            y.fill_(float("nan"))
            graph.replay()
            expected = FUNCTION(**given)
            assert torch.equal(y, expected), f"{inputs.note} {rows} {change}"
            assert change != "no rows" or not y.any()


def test_calls_do_not_synchronise(inputs: Inputs):
    given = on_device(arguments(inputs, 1300, 50), "cuda")
    FUNCTION(**given)
    torch.cuda.set_sync_debug_mode("error")
    try:
        FUNCTION(**given)
    finally:
        torch.cuda.set_sync_debug_mode("default")
