"""SGLang's FP8 per-tensor experts behind the "standard" dispatcher, served by this package.

SGLang is not imported: ``fused_experts`` takes the arguments of SGLang's
``fused_experts_none_to_flashinfer_trtllm_fp8`` and returns the tensor for its ``StandardCombineInput``.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import checks, scales
from ..enums import ActivationType, WeightLayout
from ..fused_moe import trtllm_fp8_per_tensor_scale_moe, trtllm_fp8_per_tensor_scale_routed_moe
from . import conventions

_ACTIVATIONS = {
    (True, "silu"): ActivationType.Swiglu,
    (True, "gelu"): ActivationType.Geglu,
    (False, "relu2"): ActivationType.Relu2,
    (False, "gelu"): ActivationType.Gelu,
}


def fused_experts(
    dispatch_output: Any,
    quant_info: Any,
    runner_config: Any,
    *,
    weight_layout: str = "shuffled",
    local_ids: bool = False,
) -> torch.Tensor:
    """bfloat16 [T, H] for one layer.

    Args:
        dispatch_output: ``hidden_states`` [T, H] (quantised here with ``quant_info.w13_input_scale`` unless
            float8_e4m3fn) and ``topk_output``: either bypassed (``router_logits`` and ``topk_config``) or
            standard (``topk_ids`` and ``topk_weights``, -1 for padding).
        quant_info: a ``FlashInferTrtllmFp8MoeQuantInfo`` of the per-tensor path.
        runner_config: a ``MoeRunnerConfig``.
        weight_layout: "shuffled" after SGLang's preparation for FlashInfer, "w1_w3" for the rows it loads.
        local_ids: whether the dispatcher has mapped ``topk_ids`` to this rank's experts (others are -1).
    """
    if quant_info.block_quant:
        checks.reject("quant_info.block_quant", "False (per-tensor scales)", True)
    if getattr(runner_config, "no_combine", False):
        checks.reject("runner_config.no_combine", "False", True)
    hidden = dispatch_output.hidden_states
    if hidden.dtype != torch.float8_e4m3fn:
        hidden = scales.quantize(hidden, quant_info.w13_input_scale.float().amax()).contiguous()
    experts = _expert_arguments(quant_info, runner_config, weight_layout)
    topk = dispatch_output.topk_output
    if hasattr(topk, "router_logits") and hasattr(topk, "topk_config"):
        result = _from_logits(topk, hidden, quant_info, runner_config, experts)
    else:
        if local_ids:
            experts |= {"num_experts": experts["local_num_experts"], "local_expert_offset": 0}
        result = trtllm_fp8_per_tensor_scale_routed_moe(
            topk.topk_ids.to(torch.int32).contiguous(),
            topk.topk_weights.to(torch.bfloat16).contiguous(),
            hidden,
            top_k=topk.topk_ids.shape[1],
            **experts,
        )
    assert isinstance(result, torch.Tensor)
    return result


def _from_logits(
    topk: Any, hidden: torch.Tensor, quant_info: Any, runner_config: Any, experts: dict[str, Any]
) -> torch.Tensor | list[torch.Tensor]:
    config = topk.topk_config
    bias = config.correction_bias
    return trtllm_fp8_per_tensor_scale_moe(
        conventions.router_logits(topk.router_logits),
        None if bias is None else conventions.router_logits(bias),
        hidden,
        top_k=config.top_k,
        n_group=config.num_expert_group,
        topk_group=config.topk_group,
        routed_scaling_factor=runner_config.routed_scaling_factor,
        routing_method_type=conventions.routing_method(quant_info.routing_method_type),
        **experts,
    )


def _expert_arguments(quant_info: Any, runner_config: Any, weight_layout: str) -> dict[str, Any]:
    gated = getattr(runner_config, "is_gated", True)
    activation = (gated, runner_config.activation)
    if activation not in _ACTIVATIONS:
        known = ", ".join(name for kind, name in _ACTIVATIONS if kind == gated)
        expected = f"one of {known} with is_gated {gated}"
        checks.reject("runner_config.activation", expected, repr(runner_config.activation))
    num_local = int(quant_info.local_num_experts)
    names = ("output1_scales_scalar", "output1_scales_gate_scalar", "output2_scales_scalar")
    return {
        **{name: conventions.per_expert(name, getattr(quant_info, name), num_local) for name in names},
        "gemm1_weights": quant_info.w13_weight,
        "gemm2_weights": quant_info.w2_weight,
        "num_experts": int(quant_info.global_num_experts),
        "intermediate_size": int(quant_info.w2_weight.shape[2]),
        "local_expert_offset": int(quant_info.local_expert_offset),
        "local_num_experts": num_local,
        "use_routing_scales_on_input": bool(quant_info.use_routing_scales_on_input),
        "activation_type": _ACTIVATIONS[activation],
        "weight_layout": WeightLayout.parse(weight_layout),
    }
