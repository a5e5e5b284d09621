"""Row quantisation: the gated activation of npu_dequant_swiglu_quant, and npu_dynamic_quant."""

from __future__ import annotations

from typing import NamedTuple

import torch

from moe_jit.reference.ascend.groups import COUNTS, SPARSE, row_experts


class Quantised(NamedTuple):
    """``exact`` float64 [rows, width] are the values that the operator rounds; ``scale`` float64 [rows].

    Rows of no group have zeros in both.
    """

    exact: torch.Tensor
    scale: torch.Tensor

    def rounded(self, low: int = -128, high: int = 127) -> torch.Tensor:
        return self.exact.round().clamp(low, high)


def dequant_swiglu_quant(
    x: torch.Tensor,
    *,
    weight_scale: torch.Tensor | None = None,
    activation_scale: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    quant_scale: torch.Tensor | None = None,
    quant_offset: torch.Tensor | None = None,
    group_index: torch.Tensor | None = None,
    activate_left: bool = False,
    quant_mode: int = 0,
    swiglu_mode: int = 0,
    clamp_limit: float = 7.0,
    glu_alpha: float = 1.702,
    glu_bias: float = 1.0,
) -> Quantised:
    """x [rows, 2H]. Dequantisation in float32 in the specified order, everything after it in float64."""
    rows, width = x.shape
    if group_index is None:
        expert = torch.zeros(rows, dtype=torch.int64)
    else:
        expert = row_experts(group_index, SPARSE if group_index.dim() == 2 else COUNTS, rows)

    def parameter(value: torch.Tensor, columns: int) -> torch.Tensor:
        table = value.reshape(-1, columns)
        return table[expert.clamp(min=0) if table.shape[0] > 1 else torch.zeros_like(expert)]

    values = x
    if x.dtype == torch.int32:
        assert weight_scale is not None
        if bias is not None and bias.dtype == torch.int32:
            values = values + parameter(bias, width)
        values = values.float() * parameter(weight_scale, width)
        if activation_scale is not None:
            values = values * activation_scale.reshape(-1, 1)
        if bias is not None and bias.dtype != torch.int32:
            values = values + parameter(bias.float(), width)
    v = _glu(values.double(), activate_left, swiglu_mode, clamp_limit, glu_alpha, glu_bias)

    half = width // 2
    groups = 1 if group_index is None else group_index.shape[0]
    per_row = {
        name: parameter(value.double(), value.numel() // groups)
        for name, value in (("scale", quant_scale), ("offset", quant_offset))
        if value is not None
    }
    if quant_mode == 1:
        exact, scale = _by_row_maximum(v * per_row.get("scale", 1.0), 127.0)
    else:
        exact = v / per_row.get("scale", 1.0) + per_row.get("offset", 0.0)
        scale = v.new_zeros(rows)
    dead = expert < 0
    assert exact.shape == (rows, half)
    return Quantised(exact.masked_fill(dead[:, None], 0.0), scale.masked_fill(dead, 0.0))


def dynamic_quant(
    x: torch.Tensor,
    smooth_scales: torch.Tensor | None = None,
    group_index: torch.Tensor | None = None,
    largest: float = 127.0,
) -> Quantised:
    """x [rows, width]; ``largest`` is 127 for int8 and 7 for int4."""
    values = x.double()
    if smooth_scales is not None:
        table = smooth_scales.double().reshape(-1, x.shape[1])
        rows = torch.arange(x.shape[0])
        which = (
            torch.zeros_like(rows)
            if group_index is None
            else torch.searchsorted(group_index.long(), rows, right=True).clamp(max=table.shape[0] - 1)
        )
        values = (values * table[which]).float().double()
    return Quantised(*_by_row_maximum(values, largest))


def _by_row_maximum(values: torch.Tensor, largest: float) -> tuple[torch.Tensor, torch.Tensor]:
    scale = values.abs().amax(dim=1) / largest
    return torch.where(scale[:, None] > 0, values / scale[:, None], 0.0), scale


def _silu(a: torch.Tensor, factor: float = 1.0) -> torch.Tensor:
    return a * torch.sigmoid(factor * a)


def _glu(
    f: torch.Tensor, activate_left: bool, mode: int, limit: float, alpha: float, bias: float
) -> torch.Tensor:
    left, right = f.chunk(2, dim=1)
    activated, linear = (left, right) if activate_left else (right, left)
    if mode == 0:
        return _silu(activated) * linear
    if mode == 3:
        return _silu(activated).clamp(max=limit) * linear.clamp(-limit, limit)
    if mode == 1:
        activated, linear = f[:, 0::2], f[:, 1::2]
    return _silu(activated.clamp(max=limit), alpha) * (linear.clamp(-limit, limit) + bias)
