"""Quantised grouped-matmul operators with torch_npu's names, signatures and results."""

from __future__ import annotations

from .dequant_swiglu_quant import npu_dequant_swiglu_quant
from .dynamic_quant import npu_dynamic_quant

__all__ = [
    "npu_dequant_swiglu_quant",
    "npu_dynamic_quant",
]
