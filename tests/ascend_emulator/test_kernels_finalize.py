"""Kernels of npu_grouped_matmul_finalize_routing: the bits of the CPU backend, whatever the cores."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import torch
from support.ascend import Inputs
from support.matmul import ROWS, Problem, stored_weight

import moe_jit
from moe_jit.ascend import matmul_tiling, tiling
from moe_jit.reference import ascend as reference

pytestmark = pytest.mark.ascend_emulator
INT8, INT4 = "i8-bf16-f32scale-token", "i8i4-f16"


def arguments(problem: Problem, index: torch.Tensor, **changes: Any) -> dict[str, Any]:
    given = {
        "x": problem.x,
        "w": stored_weight(problem.w, problem.layout, problem.row.w == "int4"),
        "group_list": torch.tensor(problem.counts),
        "row_index": index,
        "scale": problem.arguments()["scale"][0],
        "pertoken_scale": problem.parameters["per_token_scale"],
        **{name: problem.parameters[name] for name in ("bias", "offset") if name in problem.parameters},
    }
    return given | changes


def on_emulator(given: dict[str, Any], cores: int, seed: int = 0) -> torch.Tensor:
    with moe_jit.use_backend("ascend-emulator", cores=cores, seed=seed):
        return moe_jit.npu_grouped_matmul_finalize_routing(**given)


def check(problem: Problem, given: dict[str, Any]) -> None:
    """Sums in float64, within what float32 sums of that many terms may lose; and the CPU's bits."""
    live = sum(problem.counts)
    product, index = problem.expected(), given["row_index"][:live]
    logit = given.get("logit")
    factor = 1.0 if logit is None else logit.double()[:, None]
    terms, bounds = (product.exact * factor)[:live], (product.bound * factor)[:live].abs()
    rows = given.get("output_bs", 0) or problem.x.shape[0]
    shared = {name: given[name] for name in given if name.startswith("shared_")}
    exact = reference.scatter_rows(terms, index, rows, **shared)
    bound = reference.scatter_rows(bounds, index, rows) + exact.abs()
    y = on_emulator(given, cores=3)
    assert ((y.double() - exact).abs() <= bound * 2.0**-24 * (live + problem.k_groups + 8)).all(), (
        problem.inputs.note
    )
    assert torch.equal(y, moe_jit.npu_grouped_matmul_finalize_routing(**given)), problem.inputs.note
    for cores in (1, 24):
        again = on_emulator(given, cores, seed=problem.inputs.random.randrange(1000))
        assert torch.equal(again, y), problem.inputs.note


@pytest.mark.parametrize("layout", ["nd", "nz", "transposed", "nz-transposed"])
def test_int8_weights(layout: str) -> None:
    inputs = Inputs()
    problem = Problem(inputs, ROWS[INT8], [4, 0, 41, 2], k=80, n=288, tail=6, layout=layout, bias=False)
    index = inputs.integers(53, low=0, high=7, dtype=torch.int64)
    check(problem, arguments(problem, index, logit=inputs.normal(53), output_bs=8))


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"offset": True, "k_groups": 3}])
@pytest.mark.parametrize("layout", ["nd", "nz"])
def test_int4_weights(layout: str, options: dict[str, Any]) -> None:
    inputs = Inputs()
    problem = Problem(inputs, ROWS[INT4], [4, 0, 29, 2], k=768, n=320, tail=2, layout=layout, **options)
    index = inputs.integers(37, low=0, high=8, dtype=torch.int64)
    check(problem, arguments(problem, index, logit=inputs.normal(37), output_bs=9))


@pytest.mark.parametrize("options", [{}, {"bias": False}, {"offset": True}])
@pytest.mark.parametrize("layout", ["nd", "nz"])
def test_int4_weights_that_become_int8(layout: str, options: dict[str, Any]) -> None:
    """With the tile of many rows, which fills the vector core's memory."""
    inputs = Inputs()
    problem = Problem(
        inputs, ROWS[INT4], [240, 0, 610, 2], k=512, n=320, tail=2, layout=layout, k_groups=2, **options
    )
    index = inputs.integers(854, low=0, high=90, dtype=torch.int64)
    given = arguments(problem, index, logit=inputs.normal(854), output_bs=90)
    y = on_emulator(given, cores=3)
    assert torch.equal(y, moe_jit.npu_grouped_matmul_finalize_routing(**given)), inputs.note


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_shared_input(dtype: torch.dtype) -> None:
    inputs = Inputs()
    problem = Problem(inputs, ROWS[INT8], [5, 6], k=32, n=256, bias=False)
    given = arguments(
        problem,
        inputs.integers(11, low=0, high=8, dtype=torch.int32),
        output_bs=9,
        shared_input=inputs.normal(5, 256, dtype=dtype),
        shared_input_weight=0.7,
        shared_input_offset=3,
    )
    check(problem, given)


@pytest.mark.parametrize("num_groups", [1, 5, 64])
@pytest.mark.parametrize("name", [INT8, INT4])
def test_groups_and_cores(name: str, num_groups: int) -> None:
    inputs = Inputs()
    counts = [inputs.random.choice((0, 0, 1, 2, 19)) for _ in range(num_groups - 1)] + [3]
    rows = sum(counts) + 2
    size = {"k": 320, "n": 192} if name == INT4 else {"k": 80, "n": 288}
    problem = Problem(inputs, ROWS[name], counts, tail=2, bias=name == INT4, **size)
    index = inputs.integers(rows, low=0, high=min(rows, 9) - 1, dtype=torch.int64)
    check(problem, arguments(problem, index, logit=inputs.normal(rows), output_bs=min(rows, 9)))


@pytest.mark.parametrize("tiles", [1, 3])
def test_slabs_of_columns(tiles: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of a slab between the products of the next one, of less and of more tiles than shares."""
    monkeypatch.setattr(matmul_tiling, "_SLAB_TILES", tiles)
    inputs = Inputs()
    problem = Problem(inputs, ROWS[INT8], [1000, 0, 1191, 2], k=32, n=1312, tail=6, bias=False)
    rows = 2199
    index = inputs.integers(rows, low=0, high=70, dtype=torch.int64)
    shared = {"shared_input": inputs.normal(5, 1312, dtype=torch.bfloat16), "shared_input_weight": 0.5}
    given = arguments(problem, index, logit=inputs.normal(rows), output_bs=71, **shared)
    on_cpu = moe_jit.npu_grouped_matmul_finalize_routing(**given)
    for cores in (1, 3):
        with moe_jit.ascend.emulator_report() as report:
            assert torch.equal(on_emulator(given, cores), on_cpu), inputs.note
        assert len(report.launches) == 1


@pytest.mark.parametrize(("rows", "slabs"), [(64, 1), (1024, 1), (8192, 4)])
def test_slabs_have_tiles_enough(rows: int, slabs: int) -> None:
    plan = tiling.plan_finalize_routing("i8", output_rows=rows, rows=rows, k=2048, n=7168, cores=24)
    words = struct.unpack("<28i", plan.tiling)
    width, base_n = words[27], words[5]
    assert width % base_n == 0
    assert -(-7168 // width) == slabs


def test_more_rows_than_are_searched_at_a_time() -> None:
    """Rows that nothing names, that one row names, and that hundreds in several blocks name."""
    inputs = Inputs()
    problem = Problem(inputs, ROWS[INT8], [4000, 100, 200], k=32, n=256, bias=False)
    index = inputs.integers(4300, low=0, high=11, dtype=torch.int64)
    index[1234] = 100
    given = arguments(problem, index, output_bs=130, logit=inputs.normal(4300))
    y = on_emulator(given, cores=2)
    assert torch.equal(y, moe_jit.npu_grouped_matmul_finalize_routing(**given)), inputs.note
    assert y[100].any()
    assert not y[101:].any()


@pytest.mark.parametrize("name", ["bias", "neither factor"])
def test_parameters_that_may_be_absent(name: str) -> None:
    inputs = Inputs()
    problem = Problem(inputs, ROWS[INT8], [5, 6], k=32, n=256, bias=False)
    index = inputs.integers(11, low=0, high=8, dtype=torch.int64)
    changes: dict[str, Any] = {"bias": inputs.normal(2, 256, dtype=torch.bfloat16)}
    for logit in (None, inputs.normal(11)):
        given = arguments(problem, index, logit=logit, **(changes if name == "bias" else {}))
        if name == "neither factor":
            del given["pertoken_scale"]
        y = on_emulator(given, cores=2)
        assert torch.equal(y, moe_jit.npu_grouped_matmul_finalize_routing(**given)), inputs.note
