"""Layout conversion against the specification's permutation and its derived facts."""

from __future__ import annotations

import pytest
import torch

from moe_jit import WeightLayout
from moe_jit.layouts import (
    plain_rows_in_shuffled_order,
    shuffle_gemm1,
    shuffle_gemm2,
    swap_halves,
    unshuffle_gemm1,
    unshuffle_gemm2,
)

DTYPES = [torch.float8_e4m3fn, torch.uint8, torch.int8, torch.bfloat16, torch.float32, torch.int64]


def tagged(num_experts: int, rows: int, columns: int = 3) -> torch.Tensor:
    """Every element states its expert, row and column."""
    experts, rows_, columns_ = torch.arange(num_experts), torch.arange(rows), torch.arange(columns)
    return (experts[:, None, None] * 1000 + rows_[None, :, None]) * 10 + columns_


def spec_shuffle(plain: list[int]) -> list[int]:
    """In each block of 32 rows, row r moves to position 8 * (r % 4) + r // 4."""
    result = [0] * len(plain)
    for index, row in enumerate(plain):
        block, r = divmod(index, 32)
        result[32 * block + 8 * (r % 4) + r // 4] = row
    return result


def spec_interleave(half: int) -> list[int]:
    """New row 2i = row i, new row 2i + 1 = row half + i."""
    return [row for i in range(half) for row in (i, half + i)]


@pytest.mark.parametrize("rows", [32, 64, 96, 2688])
def test_rows_follow_the_definition(rows):
    plain = plain_rows_in_shuffled_order(rows, gated=False)
    assert plain.tolist() == spec_shuffle(list(range(rows)))
    gated = plain_rows_in_shuffled_order(rows, gated=True)
    assert gated.tolist() == spec_shuffle(spec_interleave(rows // 2))
    other = plain_rows_in_shuffled_order(rows, gated=True, plain="w1_w3")
    assert other.tolist() == [(row + rows // 2) % rows for row in gated.tolist()]


def test_strips_of_a_gated_block():
    """Each stored 32-row block is linear even, gate even, linear odd, gate odd rows of the same 16."""
    half = 48
    stored = plain_rows_in_shuffled_order(2 * half, gated=True)
    for block in range(3):
        strips = stored[32 * block : 32 * block + 32].reshape(4, 8).tolist()
        even = [16 * block + i for i in range(0, 16, 2)]
        odd = [16 * block + i for i in range(1, 16, 2)]
        assert strips == [even, [half + i for i in even], odd, [half + i for i in odd]]


def test_pairs_of_a_warp_slab():
    """Rows g and g + 8 of a 16-row slab: (linear i, gate i), or adjacent outputs when not gated."""
    half = 64
    gated = plain_rows_in_shuffled_order(2 * half, gated=True).reshape(-1, 16).tolist()
    plain = plain_rows_in_shuffled_order(2 * half, gated=False).reshape(-1, 16).tolist()
    for slab in range(2 * half // 16):
        block, odd = divmod(slab, 2)
        for g in range(8):
            i = 16 * block + 2 * g + odd
            assert (gated[slab][g], gated[slab][g + 8]) == (i, half + i)
            first = 32 * block + 4 * g + 2 * odd
            assert (plain[slab][g], plain[slab][g + 8]) == (first, first + 1)


def test_inverse_of_one_block():
    """Position p holds row 4 * (p % 8) + p // 8."""
    assert plain_rows_in_shuffled_order(32, gated=False).tolist() == [4 * (p % 8) + p // 8 for p in range(32)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source", ["w3_w1", "w1_w3", WeightLayout.W1W3])
def test_round_trips(dtype, source):
    bits = torch.randint(0, 120, (3, 64, 16 * 8), dtype=torch.uint8)
    weight = bits.view(dtype) if dtype.itemsize == 1 else bits.view(torch.int16).view(dtype)
    for gated in (True, False):
        shuffled = shuffle_gemm1(weight, gated, source)
        assert shuffled.dtype == dtype
        assert shuffled.shape == weight.shape
        assert shuffled.is_contiguous()
        assert not torch.equal(shuffled.view(torch.uint8), weight.view(torch.uint8))
        restored = unshuffle_gemm1(shuffled, gated, source)
        assert torch.equal(restored.view(torch.uint8), weight.view(torch.uint8))
    assert torch.equal(unshuffle_gemm2(shuffle_gemm2(weight)).view(torch.uint8), weight.view(torch.uint8))


def test_every_element_of_every_expert_lands_where_the_definition_says():
    weight = tagged(3, 64)
    order = spec_shuffle(spec_interleave(32))
    shuffled = shuffle_gemm1(weight, gated=True)
    for expert in range(3):
        assert shuffled[expert].tolist() == [weight[expert, row].tolist() for row in order]
    assert torch.equal(shuffle_gemm1(swap_halves(weight), gated=True, source="w1_w3"), shuffled)
    assert torch.equal(unshuffle_gemm1(shuffled, gated=True, target="w1_w3"), swap_halves(weight))


def test_source_is_irrelevant_without_gate():
    weight = tagged(2, 32)
    assert torch.equal(shuffle_gemm1(weight, False, "w3_w1"), shuffle_gemm1(weight, False, "w1_w3"))
    assert torch.equal(shuffle_gemm1(weight, False), shuffle_gemm2(weight))


def test_swap_halves():
    weight = tagged(2, 6).to(torch.float32)
    assert swap_halves(weight)[:, :, 0].tolist() == [
        [30, 40, 50, 0, 10, 20],
        [10030, 10040, 10050, 10000, 10010, 10020],
    ]
    fp8 = torch.arange(12, dtype=torch.uint8).reshape(1, 4, 3).view(torch.float8_e4m3fn)
    assert swap_halves(fp8).view(torch.uint8).flatten().tolist() == [*range(6, 12), *range(6)]


def test_inputs_are_not_modified():
    weight = tagged(1, 32)
    before = weight.clone()
    shuffle_gemm1(weight, True), swap_halves(weight), unshuffle_gemm2(weight)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("rows", [0, 16, 48])
def test_rows_must_fill_blocks(rows):
    for convert in (shuffle_gemm2, unshuffle_gemm2, lambda w: shuffle_gemm1(w, gated=True)):
        with pytest.raises(ValueError, match=f"multiple of 32 rows, got {rows}"):
            convert(torch.zeros(2, rows, 4))


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"weight must have 3 dimensions.*\(32, 4\)"):
        shuffle_gemm2(torch.zeros(32, 4))
    with pytest.raises(TypeError, match=r"weight must be a torch.Tensor, got list"):
        shuffle_gemm1([[1]], gated=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="source must be one of 'w3_w1', 'w1_w3'; got 'shuffled'"):
        shuffle_gemm1(torch.zeros(1, 32, 4), gated=True, source="shuffled")
    with pytest.raises(ValueError, match="target must be one of 'w3_w1', 'w1_w3'; got 'w2'"):
        unshuffle_gemm1(torch.zeros(1, 32, 4), gated=True, target="w2")
    with pytest.raises(TypeError, match="gated must be a bool, got int 1"):
        shuffle_gemm1(torch.zeros(1, 32, 4), gated=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="even number of rows"):
        swap_halves(torch.zeros(1, 3, 4))


def test_against_flashinfer():
    flashinfer = pytest.importorskip("flashinfer")
    reorder = pytest.importorskip("flashinfer.fused_moe.core").reorder_rows_for_gated_act_gemm
    weight = torch.randint(0, 255, (1, 256, 64), dtype=torch.uint8)
    expected = flashinfer.shuffle_matrix_a(reorder(weight[0]), 128)
    assert torch.equal(shuffle_gemm1(weight, gated=True)[0], expected)
    assert torch.equal(shuffle_gemm2(weight)[0], flashinfer.shuffle_matrix_a(weight[0], 128))
