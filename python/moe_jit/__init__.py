"""Mixture-of-experts operations in FP8, INT8 and INT4, compiled for the machine at the first call."""

from __future__ import annotations

from .ascend import (
    nd_to_nz,
    npu_convert_weight_to_int4pack,
    npu_dequant_swiglu_quant,
    npu_dynamic_quant,
    npu_format_cast,
    npu_grouped_matmul,
    npu_grouped_matmul_finalize_routing,
    npu_quantize,
    npu_trans_quant_param,
    nz_to_nd,
)
from .autotuner import autotune
from .backends import use_backend
from .enums import ActivationType, RoutingMethodType, WeightLayout
from .fused_moe import trtllm_fp8_per_tensor_scale_moe, trtllm_fp8_per_tensor_scale_routed_moe
from .layer import FusedMoE
from .layouts import shuffle_gemm1, shuffle_gemm2, swap_halves, unshuffle_gemm1, unshuffle_gemm2
from .warmup import warmup
from .workspace import workspace_size

__version__ = "0.1.0"

__all__ = [
    "ActivationType",
    "FusedMoE",
    "RoutingMethodType",
    "WeightLayout",
    "autotune",
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
    "shuffle_gemm1",
    "shuffle_gemm2",
    "swap_halves",
    "trtllm_fp8_per_tensor_scale_moe",
    "trtllm_fp8_per_tensor_scale_routed_moe",
    "unshuffle_gemm1",
    "unshuffle_gemm2",
    "use_backend",
    "warmup",
    "workspace_size",
]
