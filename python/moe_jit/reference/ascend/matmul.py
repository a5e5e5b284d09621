"""Products of one expert: exact integers or float64, then float32 in the specified order where that is exact.

``weight`` is the logical matrix [k, n] of one expert; int4 operands are given unpacked, as int8.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch


class Product(NamedTuple):
    """``exact`` float64 [m, n] before the last rounding; ``bound`` is a sum of magnitudes, for tolerances."""

    exact: torch.Tensor
    bound: torch.Tensor


def accumulate(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Integer product plus an int32 bias, wrapped to int32. float64 holds every partial sum exactly."""
    total = (x.double() @ weight.double()).long()
    if bias is not None:
        total = total + bias.long()
    return ((total + 2**31) % 2**32 - 2**31).int()


def float_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Product:
    shift = torch.zeros(weight.shape[1]) if bias is None else bias
    exact = x.double() @ weight.double() + shift.double()
    return Product(exact, x.double().abs() @ weight.double().abs() + shift.double().abs())


def dequantised_weight(
    weight: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor | None, rounded: bool = True
) -> torch.Tensor:
    """(weight + offset) * scale in the dtype of ``scale`` [n] or [G, n]: float16 rounds both
    operations, bfloat16 only the result. Not ``rounded``: in float64."""
    rows = weight.shape[0] // scale.reshape(-1, weight.shape[1]).shape[0]

    def spread(value: torch.Tensor) -> torch.Tensor:
        return value.reshape(-1, weight.shape[1]).repeat_interleave(rows, dim=0)

    shift = torch.zeros_like(scale) if offset is None else offset
    if not rounded:
        return (weight.double() + spread(shift).double()) * spread(scale).double()
    if scale.dtype == torch.float16:
        return (weight.half() + spread(shift)) * spread(scale)
    return ((weight.float() + spread(shift).float()) * spread(scale).float()).bfloat16()


def activate(value: torch.Tensor, act_type: int) -> torch.Tensor:
    """``value`` float64."""
    if act_type == 1:
        return value.clamp(min=0)
    if act_type == 2:
        return value * torch.sigmoid(2 * (2 / math.pi) ** 0.5 * (value + 0.044715 * value**3))
    if act_type == 4:
        return value * torch.sigmoid(1.702 * value)
    return torch.nn.functional.silu(value) if act_type == 5 else value


def scaled_product(
    accumulator: torch.Tensor,
    scale: torch.Tensor,
    per_token_scale: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    act_type: int = 0,
) -> torch.Tensor:
    """act((acc * scale) * per_token_scale + bias): float32, one rounding for each operation; then float64."""
    value = accumulator.float() * scale.float()
    if per_token_scale is not None:
        value = value * per_token_scale[:, None]
    if bias is not None:
        value = value + bias.float()
    return activate(value.double(), act_type)


def fp19(scale: torch.Tensor) -> torch.Tensor:
    """float32 with the low 13 bits of the mantissa zero."""
    return (scale.contiguous().view(torch.int32) & -8192).view(torch.float32)


def requantised(accumulator: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """int8 or uint8 bits as int64: ``parameter`` [n] as npu_trans_quant_param packs it."""
    scale = fp19((parameter & 0xFFFFFFFF).to(torch.uint32).view(torch.float32))
    offset = (parameter >> 37) & 0x1FF
    offset = offset - 512 * (offset > 255)
    value = (accumulator.float() * scale).double().round().clamp(-256, 255).long() + offset
    signed = (parameter >> 46) & 1 == 1
    return torch.where(signed, value.clamp(-128, 127), value.clamp(0, 255))


def int4_product(
    x: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    *,
    shifted: bool,
    bias: torch.Tensor | None = None,
    offset: torch.Tensor | None = None,
    factor: torch.Tensor | None = None,
) -> Product:
    """((x - 8 if shifted) @ (weight * fp19(scale)) + bias + rowsum(x) * offset) * factor, all in float64.

    ``scale`` float32 [G, n]; ``factor`` [m].
    """
    scaled = weight.double() * fp19(scale).double().repeat_interleave(
        weight.shape[0] // scale.shape[0], dim=0
    )
    operand = x.double() - (8 if shifted else 0)
    exact, bound = operand @ scaled, operand.abs() @ scaled.abs()
    for term in (
        None if bias is None else bias.double().expand_as(exact),
        None if offset is None else x.double().sum(dim=1, keepdim=True) * offset.double(),
    ):
        if term is not None:
            exact, bound = exact + term, bound + term.abs()
    by = 1.0 if factor is None else factor.double()[:, None]
    return Product(exact * by, (bound * by).abs())
