"""Storage formats and packed parameters, from their definitions."""

from __future__ import annotations

import math
import struct

import pytest
import torch
from support.ascend import Inputs

import moe_jit
from moe_jit.ascend.formats import pack_int4, unpack_int4


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def inputs(request) -> Inputs:
    return Inputs(request.param)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float16, torch.bfloat16, torch.float32, torch.int32])
@pytest.mark.parametrize("shape", [(16, 32), (1, 1), (17, 33), (3, 40, 70), (2, 3, 5, 9)])
def test_nz_addresses_and_round_trip(inputs: Inputs, dtype: torch.dtype, shape: tuple[int, ...]):
    matrix = inputs.integers(*shape, low=1, high=100, dtype=dtype)
    blocked = moe_jit.nd_to_nz(matrix)
    k, n = shape[-2:]
    n0 = 32 // matrix.element_size()
    k1 = math.ceil(k / 16)
    assert blocked.shape == (*shape[:-2], math.ceil(n / n0), k1, 16, n0)
    flat = blocked.reshape(*shape[:-2], -1)
    for i in range(0, k, 3):
        for j in range(n):
            address = (j // n0) * (k1 * 16 * n0) + i * n0 + j % n0
            assert torch.equal(flat[..., address], matrix[..., i, j])
    assert int((blocked == 0).sum()) == blocked.numel() - matrix.numel()
    assert torch.equal(moe_jit.nz_to_nd(blocked, k, n), matrix)
    assert torch.equal(moe_jit.npu_format_cast(matrix, 29), blocked)
    assert moe_jit.npu_format_cast(matrix, 2) is matrix


def test_nz_of_a_view_and_without_sizes(inputs: Inputs):
    matrix = inputs.integers(40, 20).T
    blocked = moe_jit.nd_to_nz(matrix)
    assert torch.equal(blocked, moe_jit.nd_to_nz(matrix.contiguous()))
    whole = moe_jit.nz_to_nd(blocked)
    assert whole.shape == (32, 64)
    assert torch.equal(whole[:20, :40], matrix)
    assert not whole[20:].any()


def test_int4_packing_order(inputs: Inputs):
    values = inputs.integers(5, 3, 64, low=-8, high=7)
    packed = pack_int4(values)
    assert packed.dtype == torch.int32
    assert packed.shape == (5, 3, 8)
    words = packed.cpu().flatten().tolist()
    for word, eight in zip(words, values.cpu().view(-1, 8).tolist(), strict=True):
        assert word & 0xFFFFFFFF == sum((value & 15) << (4 * i) for i, value in enumerate(eight))
    assert torch.equal(unpack_int4(packed), values)
    assert torch.equal(moe_jit.npu_convert_weight_to_int4pack(values.int()), packed)
    low_first = (values[..., 0::2] & 15) | (values[..., 1::2] << 4)
    assert torch.equal(low_first.view(torch.int32), packed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("div_mode", [False, True])
def test_quantize(inputs: Inputs, dtype: torch.dtype, div_mode: bool):
    x = inputs.normal(6, 5, 16, dtype=dtype, std=20.0)
    per_column, per_row = (
        inputs.positive(16, high=1.0, dtype=dtype),
        inputs.positive(5, high=1.0, dtype=dtype),
    )
    zero = inputs.integers(16, low=-5, high=5).to(dtype)

    def exact(scale: torch.Tensor) -> torch.Tensor:
        return x.float() / scale.float() if div_mode else x.float() * scale.float()

    y = moe_jit.npu_quantize(x, per_column, zero, torch.qint8, -1, div_mode)
    assert torch.equal(y, (exact(per_column) + zero.float()).round().clamp(-128, 127).to(torch.int8))
    y = moe_jit.npu_quantize(x, per_row, None, torch.qint8, -2, div_mode)
    assert torch.equal(y, exact(per_row[:, None]).round().clamp(-128, 127).to(torch.int8))
    y = moe_jit.npu_quantize(x, per_column.view(1, 1, 16), None, torch.qint8, 2, div_mode)
    assert torch.equal(y, exact(per_column).round().clamp(-128, 127).to(torch.int8))
    one = torch.ones(1, dtype=dtype, device=x.device)
    if div_mode:
        y = moe_jit.npu_quantize(x, one, None, torch.quint8)
        assert torch.equal(y, x.float().round().clamp(0, 255).to(torch.uint8))
    else:
        y = moe_jit.npu_quantize(x, one, None, torch.quint4x2, -1, False)
        assert torch.equal(unpack_int4(y), x.float().round().clamp(-8, 7).to(torch.int8))


def _pattern(value: float) -> int:
    return struct.unpack("<I", struct.pack("<f", value))[0]


def test_trans_quant_param_truncates(inputs: Inputs):
    scale = torch.cat([inputs.normal(100), torch.tensor([0.0, -0.0, 1e-40, math.inf], device=inputs.device)])
    packed = moe_jit.npu_trans_quant_param(scale)
    assert packed.dtype == torch.int64
    for bits, value in zip(packed.tolist(), scale.tolist(), strict=True):
        assert bits == (_pattern(value) & 0xFFFFE000) | 1 << 46


def test_trans_quant_param_rounds_to_even(inputs: Inputs):
    one = 0x3F800000
    cases = {
        one | 0x1000: one,  # half way, to the even neighbour below
        one | 0x3000: one | 0x4000,  # half way, up
        one | 0x1001: one | 0x2000,  # above half
        one | 0x0FFF: one,
        one | 0x7FFFFF: 0x40000000,  # carry into the exponent
        0x00000FFF: 0,  # subnormal
        0x807FFFFF: 0x80000000,
        0x7F800000: 0x7F800000,
    }
    patterns = torch.tensor(list(cases), dtype=torch.int64, device=inputs.device)
    scale = patterns.to(torch.uint32).view(torch.float32)
    packed = moe_jit.npu_trans_quant_param(scale, round_mode=1)
    assert [bits & 0xFFFFFFFF for bits in packed.tolist()] == list(cases.values())
    assert all(bits >> 32 == 1 << 14 for bits in packed.tolist())


@pytest.mark.parametrize(
    ("offset", "field"), [(0.0, 0), (1.5, 2), (2.5, 2), (-1.0, 511), (300.0, 255), (-300.0, 256)]
)
def test_trans_quant_param_offset(inputs: Inputs, offset: float, field: int):
    scale = inputs.positive(5)
    packed = moe_jit.npu_trans_quant_param(scale, torch.tensor([offset], device=inputs.device))
    assert all(bits >> 37 & 0x1FF == field for bits in packed.tolist())
    assert torch.equal(packed & 0xFFFFFFFF, moe_jit.npu_trans_quant_param(scale) & 0xFFFFFFFF)


def test_every_int8_splits_into_two_int4():
    """x = 16 * hi + lo + 8, which the -8 of int8 by int4 products goes back to."""
    x = torch.arange(-128, 128)
    hi, lo = x.div(16, rounding_mode="floor"), (x & 15) - 8
    assert torch.equal(16 * hi + lo + 8, x)
    assert hi.min() >= -8
    assert hi.max() <= 7
    assert lo.min() >= -8
    assert lo.max() <= 7
