"""Per-tensor FP8 scales: quantisation, the conventions of checkpoints, and what the operation takes.

Inside this module every scale is a *dequantisation* scale: real = quantised * scale.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from . import checks
from .enums import ActivationType

E4M3_MAX = 448.0


class KernelScales(NamedTuple):
    """The three float32 [E] arguments of the operation."""

    output1: torch.Tensor
    output1_gate: torch.Tensor
    output2: torch.Tensor


def quantize(value: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """``value`` / ``scale`` rounded to the nearest float8_e4m3fn, saturating at +-448; NaN stays NaN."""
    return (value.float() / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)


def full_range_scale(value: torch.Tensor) -> torch.Tensor:
    """The 0-d float32 scale that maps the largest magnitude of ``value`` to 448 (1 if all are zero)."""
    largest = value.abs().amax().float() if value.numel() else torch.zeros((), device=value.device)
    return torch.where(largest > 0, largest / E4M3_MAX, torch.ones_like(largest))


def quantize_weight(weight: torch.Tensor, parts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise [E, rows, columns] with one scale for each of ``parts`` equal row ranges of each expert.

    Returns float8_e4m3fn of the same shape and float32 [E, parts].
    """
    quantized = torch.empty_like(weight, dtype=torch.float8_e4m3fn, memory_format=torch.contiguous_format)
    scales = torch.empty(weight.shape[0], parts, device=weight.device)
    for expert in range(weight.shape[0]):
        ranges = zip(weight[expert].chunk(parts), quantized[expert].chunk(parts), strict=True)
        for part, (source, target) in enumerate(ranges):
            scales[expert, part] = full_range_scale(source)
            target.copy_(quantize(source, scales[expert, part]))
    return quantized, scales


def from_checkpoint(
    name: str, scale: torch.Tensor | float, inverse: bool, num_experts: int, parts: int, device: torch.device
) -> torch.Tensor:
    """Bring a checkpoint's scale to float32 [num_experts, parts].

    ``scale`` is one number for all, [num_experts], or [num_experts, parts]; trailing dimensions of size 1
    do not matter. ``inverse`` says that it is a quantisation scale: quantised = real * scale.
    """
    if isinstance(scale, torch.Tensor):
        checks.dense(name, scale)
    else:
        checks.finite(name, scale, expected="a float or a torch.Tensor")
    value = torch.as_tensor(scale, dtype=torch.float32, device=device)
    if not value.is_meta and not bool(((value > 0) & value.isfinite()).all()):
        checks.reject(name, "positive and finite", value.tolist())
    if value.numel() == 1:
        value = value.reshape(1, 1)
    elif value.shape[0] == num_experts and value.numel() in (num_experts, num_experts * parts):
        value = value.reshape(num_experts, -1)
    else:
        shapes = f"one value, [{num_experts}]" + (f" or [{num_experts}, {parts}]" if parts > 1 else "")
        checks.reject(name, f"{shapes} (one per expert)", f"shape {tuple(value.shape)}")
    return (1 / value if inverse else value).expand(num_experts, parts).contiguous()


def combine(
    activation: ActivationType,
    input_scale: torch.Tensor,
    linear_scale: torch.Tensor,
    gate_scale: torch.Tensor,
    intermediate_scale: torch.Tensor,
    w2_scale: torch.Tensor,
) -> KernelScales:
    """The scales of the operation. ``input_scale`` is 0-d, the others [E]; without a gate both are the same.

    Relu2 and Gelu dequantise their argument, so that only the requantisation is left for the linear factor.
    """
    linear = linear_scale * input_scale
    dequantizes_linear = activation.is_gated or activation is ActivationType.Identity
    output1 = (linear if dequantizes_linear else torch.ones_like(linear)) / intermediate_scale
    return KernelScales(output1, gate_scale * input_scale, intermediate_scale * w2_scale)
