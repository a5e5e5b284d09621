"""FP8 mixture-of-experts operations, compiled for the machine at the first call."""

from __future__ import annotations

from .enums import ActivationType, RoutingMethodType, WeightLayout
from .fused_moe import trtllm_fp8_per_tensor_scale_moe, trtllm_fp8_per_tensor_scale_routed_moe

__version__ = "0.1.0"

__all__ = [
    "ActivationType",
    "RoutingMethodType",
    "WeightLayout",
    "trtllm_fp8_per_tensor_scale_moe",
    "trtllm_fp8_per_tensor_scale_routed_moe",
]
