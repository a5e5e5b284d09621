"""Which module computes an npu_grouped_matmul on a GPU. Plans look at metadata, so tensors are on the CPU."""

from __future__ import annotations

import pytest
import torch
from support.ascend import Inputs
from support.matmul import ROWS, Problem

from moe_jit.ascend import cuda_plan, grouped_matmul, matmul_rules
from moe_jit.ascend.matmul_arguments import request

FORMATS = {
    ("f16", "nd"): "Float16Formats<F16>::Plain",
    ("bf16", "transposed"): "Float16Formats<Bf16>::RowsOfK",
    ("bf16", "nz"): "Float16Formats<Bf16>::Blocked",
    ("f32", "nd"): None,
    ("i8-i32", "nd"): "Int8SlabsOfN<false>",
    ("i8-i8", "nz"): "Int8SlabsOfN<true>",
    ("i8-f16-token", "transposed"): "Int8RowsOfK",
    ("i8-i32", "nz-transposed"): None,
    ("f16-i8", "nd"): "PlainInt8<F16>::Single",
    ("bf16-i8", "nz"): "BlockedInt8<Bf16>::Single",
    ("bf16-i8", "transposed"): "RowsOfInt8<Bf16>::Single",
    ("bf16-i4", "transposed"): "RowsOfInt4<Bf16>::Single",
    ("bf16-i4", "nd"): "PlainInt4<Bf16>::Single",
    ("i8i4-f16", "nd"): "Int8Int4<false>::ShiftedSingle",
    ("i8i4-bf16", "nz"): "Int8Int4<true>::ShiftedSingle",
    ("i4-bf16", "nd"): "Int8Int4<false>::Single",
}


def planned(problem: Problem, **changes: object) -> cuda_plan.TensorCoreProduct | None:
    arguments = problem.arguments() | changes
    x, weight = arguments.pop("x"), arguments.pop("weight")
    given = dict.fromkeys((*grouped_matmul._LISTS, *grouped_matmul._SCALARS, *grouped_matmul._RARE))
    checked = request(x, weight, given | arguments)
    return cuda_plan.tensor_core_product(checked, matmul_rules.check(checked))


def chosen(problem: Problem, **changes: object) -> str | None:
    product = planned(problem, **changes)
    return None if product is None else product.format


@pytest.mark.parametrize(("name", "layout"), FORMATS)
def test_formats(name: str, layout: str):
    problem = Problem(Inputs(), ROWS[name], [3, 5], 256, 128, layout=layout)
    assert chosen(problem) == FORMATS[name, layout]


@pytest.mark.parametrize("name", ["bf16", "i8-i32", "bf16-i8", "bf16-i4"])
def test_sizes_that_asynchronous_copies_do_not_take(name: str):
    wide = ROWS[name].w == "int4"
    for k, n in ((250, 128), (256, 8 if wide else 130)):
        assert chosen(Problem(Inputs(), ROWS[name], [3, 5], k, n)) is None


def test_addresses_that_asynchronous_copies_do_not_take():
    problem = Problem(Inputs(), ROWS["i8-i32"], [3, 5], 256, 128, bias=False)
    wide = torch.zeros(8, 288, dtype=torch.int8)
    assert chosen(problem, x=[wide[:, 16:272]]) is not None
    assert chosen(problem, x=[wide[:, 8:264]]) is None
    flat = torch.zeros(2 * 256 * 128 + 8, dtype=torch.int8)
    assert chosen(problem, weight=[flat[8:].view(2, 256, 128)]) is None


def test_groups_of_k():
    for name, k_groups, form in (
        ("bf16-i4", 3, "PlainInt4<Bf16>::Groups"),
        ("bf16-i4", 6, "PlainInt4<Bf16>::Groups128"),
        ("bf16-i4", 8, None),  # of 96
        ("bf16-i4", 24, "PlainInt4<Bf16>::Groups32"),
        ("i4-bf16", 6, "Int8Int4<false>::Segments"),
        ("i4-bf16", 12, None),  # of 64
        ("i8i4-bf16", 3, "Int8Int4<false>::ShiftedSegments"),
    ):
        problem = Problem(Inputs(), ROWS[name], [3, 5], 768, 128, k_groups=k_groups)
        assert chosen(problem) == form, (name, k_groups)


def test_without_a_bias_nothing_is_subtracted():
    problem = Problem(Inputs(), ROWS["i8i4-bf16"], [3, 5], 256, 128, bias=False)
    assert chosen(problem) == "Int8Int4<false>::Single"


def test_offsets():
    problem = Problem(Inputs(), ROWS["bf16-i8"], [3, 5], 256, 128, offset=True)
    assert chosen(problem) == "PlainInt8<Bf16>::SingleOffset"


def test_lists_of_weights_need_their_alignment(monkeypatch: pytest.MonkeyPatch):
    problem = Problem(Inputs(), ROWS["bf16"], [3, 5], 256, 128, stacked=False)
    for alignment, form in ((1, "Float16Formats<Bf16>::Plain"), (1 << 60, None)):
        monkeypatch.setattr(cuda_plan, "LISTED_ALIGNMENT", alignment)
        assert chosen(problem) == form


def test_several_tensors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cuda_plan, "LISTED_ALIGNMENT", 1)
    monkeypatch.setattr(cuda_plan, "_ALIGNMENT", 8)
    problem = Problem(Inputs(), ROWS["bf16"], [3, 5], 256, 128, stacked=False)
    pieces = list(problem.x.split(problem.counts))
    for lists in (
        {"split_item": 0},
        {"x": pieces, "split_item": 2},
        {"x": pieces, "split_item": 0, "group_type": -1, "group_list": None},
    ):
        assert chosen(problem, **lists) == "Float16Formats<Bf16>::Plain"


def test_groups_of_k_of_16_bit_operands():
    x, w = torch.zeros(9, 64, dtype=torch.bfloat16), torch.zeros(9, 48, dtype=torch.bfloat16)
    groups = {"group_list": torch.tensor([4, 5]), "group_list_type": 1, "group_type": 2, "split_item": 3}
    given = dict.fromkeys((*grouped_matmul._LISTS, *grouped_matmul._SCALARS, *grouped_matmul._RARE)) | groups
    for left, right, form in (
        (x.T, w, "Float16GroupedDepth<Bf16>"),
        (x[:, :60].T, w, "Float16GroupedDepth<Bf16>"),
        (x[:, 4:].T, w, None),  # not at a multiple of 16 bytes
        (x[:1].T.expand(64, 9), w, None),
        (x.T.contiguous(), w, None),
        (x.T, w[:, :47].contiguous(), None),
        (x.float().T, w.float(), None),
    ):
        r = request([left], [right], given)
        product = cuda_plan.tensor_core_product(r, matmul_rules.check(r))
        assert (None if product is None else product.format) == form


@pytest.mark.parametrize(
    ("name", "counts", "tile"),
    [
        ("bf16", [2, 4], 16),
        ("bf16", [40], 64),
        ("bf16", [64] * 9, 128),
        ("bf16", [600], 128),
        ("bf16-i4", [600], 160),
        ("i8-i32", [64] * 9, 128),
        ("i8-i32", [600], 128),
    ],
)
def test_tiles_hold_nearly_every_group(name: str, counts: list[int], tile: int):
    check_tile(Problem(Inputs(), ROWS[name], counts, 256, 128), tile)


@pytest.mark.parametrize(
    ("name", "layout", "rows", "n", "tile"),
    [
        ("bf16", "nd", 330, 16384, 320),
        ("i8-i32", "nd", 330, 16384, 320),
        ("i8-i32", "transposed", 330, 16384, 320),
        ("bf16", "nd", 320, 16384, 128),  # fewer than two tiles for each SM
        ("bf16", "nd", 330, 16000, 128),
        ("bf16-i4", "nd", 330, 16384, 160),
    ],
)
def test_pairs_of_ctas_share_weights_of_several_tiles(name: str, layout: str, rows: int, n: int, tile: int):
    check_tile(Problem(Inputs(), ROWS[name], [rows, rows], 64, n, layout=layout), tile)


def test_one_tile_for_each_group_needs_no_pairs():
    check_tile(Problem(Inputs(), ROWS["bf16"], [160] * 40, 64, 2048), 128)


def check_tile(problem: Problem, tile: int) -> None:
    product = planned(problem)
    assert product is not None
    arguments = problem.arguments()
    given = dict.fromkeys((*grouped_matmul._LISTS, *grouped_matmul._SCALARS, *grouped_matmul._RARE))
    checked = request(arguments.pop("x"), arguments.pop("weight"), given | arguments)
    assert cuda_plan.tile_tokens(checked, product.tiles) == tile
