"""Emulation of Hopper's FP8 tensor-core accumulation, to know which deviation is legitimate."""

from __future__ import annotations

import torch

from moe_jit.reference.rounding import exponent

_FRACTION_BITS = 13
_INSTRUCTION_K = 32


def hopper_matmul(x: torch.Tensor, w: torch.Tensor, promote: int = 128) -> torch.Tensor:
    """x [n, K] @ w [N, K].T as FP8 wgmma computes it, running sums added in fp32 every ``promote`` of K.

    One instruction aligns its 32 products and the running sum to the largest exponent among them, truncates
    each to 13 fraction bits and truncates the total likewise.
    """
    total = torch.zeros(x.shape[0], w.shape[0])
    running = total.double()
    for start in range(0, x.shape[1], _INSTRUCTION_K):
        piece = slice(start, start + _INSTRUCTION_K)
        running = _instruction(running, x[:, piece], w[:, piece])
        if (start + _INSTRUCTION_K) % promote == 0 or start + _INSTRUCTION_K >= x.shape[1]:
            total = total + running.float()
            running = torch.zeros_like(running)
    return total.double()


def _instruction(running: torch.Tensor, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    addends = torch.cat([running[..., None], x[:, None, :] * w[None, :, :]], dim=2)
    largest = torch.where(addends == 0, -200, exponent(addends)).amax(dim=2)
    unit = torch.ldexp(torch.ones_like(running), largest - _FRACTION_BITS)
    total = torch.trunc(addends / unit[..., None]).sum(dim=2) * unit
    unit = torch.ldexp(torch.ones_like(running), exponent(total) - _FRACTION_BITS)
    return torch.where(total == 0, total, torch.trunc(total / unit) * unit)


def fp32_matmul(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The worst usual fp32 order: products added one after the other."""
    total = torch.zeros(x.shape[0], w.shape[0])
    for k in range(x.shape[1]):
        total = torch.addcmul(total, x[:, k, None].float(), w[None, :, k].float())
    return total.double()
