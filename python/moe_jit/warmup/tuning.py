"""Measures the tactics of a layer shape with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..autotuner import autotune
from ..enums import WeightLayout
from ..fused_moe import trtllm_fp8_per_tensor_scale_moe, trtllm_fp8_per_tensor_scale_routed_moe
from .models import ExpertLayer

_AMPLITUDE = 64.0


def tune(
    layer: ExpertLayer,
    max_tokens: int,
    cache: Path | None,
    *,
    device: torch.device,
    weight_layout: WeightLayout,
    logits_dtype: torch.dtype,
) -> None:
    """Tune all buckets up to ``max_tokens``, from logits and pre-routed, into the file ``cache``."""
    experts = random_experts(layer, device)
    common = {
        **experts,
        "top_k": layer.top_k,
        "num_experts": layer.num_experts,
        "intermediate_size": layer.intermediate_size,
        "local_expert_offset": 0,
        "local_num_experts": layer.num_local_experts,
        "use_routing_scales_on_input": layer.scale_input,
        "activation_type": layer.activation,
        "tune_max_num_tokens": max_tokens,
        "weight_layout": weight_layout,
    }
    with autotune(cache):
        trtllm_fp8_per_tensor_scale_routed_moe(
            torch.arange(layer.top_k, dtype=torch.int32, device=device)[None],
            torch.ones(1, layer.top_k, dtype=torch.bfloat16, device=device),
            **common,
        )
        method = layer.routing_method
        if method is not None:
            bias = torch.zeros(layer.num_experts, device=device) if method.uses_bias else None
            trtllm_fp8_per_tensor_scale_moe(
                torch.zeros(1, layer.num_experts, dtype=logits_dtype, device=device),
                bias,
                n_group=layer.n_group,
                topk_group=layer.topk_group,
                routed_scaling_factor=None,
                routing_method_type=method,
                **common,
            )


def random_experts(layer: ExpertLayer, device: torch.device) -> dict[str, Any]:
    """One token, and weights and scales of valid shapes, as keyword arguments of the public functions."""
    rows = (2 if layer.activation.is_gated else 1) * layer.intermediate_size
    count = layer.num_local_experts
    scale = torch.full((count,), 1 / _AMPLITUDE, device=device)
    return {
        "hidden_states": _random_fp8(1, 1, layer.hidden_size, device=device)[0],
        "gemm1_weights": _random_fp8(count, rows, layer.hidden_size, device=device),
        "output1_scales_scalar": scale,
        "output1_scales_gate_scalar": scale,
        "gemm2_weights": _random_fp8(count, layer.hidden_size, layer.intermediate_size, device=device),
        "output2_scales_scalar": scale,
    }


def _random_fp8(count: int, rows: int, columns: int, *, device: torch.device) -> torch.Tensor:
    """float8_e4m3fn [count, rows, columns], made one matrix at a time to bound the memory."""
    result = torch.empty(count, rows, columns, dtype=torch.float8_e4m3fn, device=device)
    for matrix in result:
        matrix.copy_(torch.randn(rows, columns, device=device).mul_(_AMPLITUDE).clamp_(-448, 448))
    return result
