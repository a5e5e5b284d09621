"""Exact roundings from float64 to the storage formats used between the steps."""

from __future__ import annotations

import torch

E4M3_MAX = 448.0
_E4M3_MIN_EXPONENT = -6
_E4M3_FRACTION_BITS = 3
_BF16_FRACTION_BITS = 7
_BF16_MIN_EXPONENT = -126


def exponent(value: torch.Tensor) -> torch.Tensor:
    """floor(log2(abs(value))) for normal values; zero and non-finite values give an arbitrary exponent."""
    return torch.frexp(value)[1] - 1


def e4m3_step(value: torch.Tensor) -> torch.Tensor:
    """Distance between neighbouring e4m3 numbers around ``value`` (2**-9 in the subnormal range)."""
    bounded = exponent(value.clamp(-E4M3_MAX, E4M3_MAX)).clamp(min=_E4M3_MIN_EXPONENT)
    return torch.ldexp(torch.ones_like(value), bounded - _E4M3_FRACTION_BITS)


def round_e4m3(value: torch.Tensor) -> torch.Tensor:
    """Round float64 to the nearest e4m3 number, ties to even; beyond +-448 saturates, NaN stays NaN.

    One rounding only: a cast through float32 could round twice.
    """
    step = e4m3_step(value)
    return (torch.round(value / step) * step).clamp(-E4M3_MAX, E4M3_MAX)


def bf16_ulp(value: torch.Tensor) -> torch.Tensor:
    """Distance between neighbouring bfloat16 numbers around ``value``."""
    bounded = exponent(value).clamp(min=_BF16_MIN_EXPONENT)
    return torch.ldexp(torch.ones_like(value), bounded - _BF16_FRACTION_BITS)


def round_bf16(value: torch.Tensor) -> torch.Tensor:
    """Round float64 to the nearest bfloat16 number, ties to even, and return it as float64.

    Zeros, infinities and NaN are kept; values beyond the largest finite number are not expected here.
    """
    step = bf16_ulp(value)
    rounded = torch.round(value / step) * step
    return torch.where(torch.isfinite(value) & (value != 0), rounded, value)
