"""Quantised grouped-matmul operators with torch_npu's names, signatures and results."""

from __future__ import annotations

from .dequant_swiglu_quant import npu_dequant_swiglu_quant
from .dynamic_quant import npu_dynamic_quant
from .emulator import EmulatorError, EmulatorReport, LaunchReport, emulator_report, last_report
from .finalize_routing import npu_grouped_matmul_finalize_routing
from .formats import (
    nd_to_nz,
    npu_convert_weight_to_int4pack,
    npu_format_cast,
    npu_quantize,
    npu_trans_quant_param,
    nz_to_nd,
)
from .grouped_matmul import npu_grouped_matmul
from .launch import Argument, Role, run_kernel

__all__ = [
    "Argument",
    "EmulatorError",
    "EmulatorReport",
    "LaunchReport",
    "Role",
    "emulator_report",
    "last_report",
    "nd_to_nz",
    "npu_convert_weight_to_int4pack",
    "npu_dequant_swiglu_quant",
    "npu_dynamic_quant",
    "npu_format_cast",
    "npu_grouped_matmul",
    "npu_grouped_matmul_finalize_routing",
    "npu_quantize",
    "npu_trans_quant_param",
    "nz_to_nd",
    "run_kernel",
]
