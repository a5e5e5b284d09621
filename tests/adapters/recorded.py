"""Signatures of serving engines, recorded from their sources; the engines are not installed.

vLLM: TrtLlmFp8Experts.apply and _apply_per_tensor (later of TrtLlmFp8ExpertsMonolithic, unchanged),
https://github.com/vllm-project/vllm/blob/903fcbb2de730d5351fdee1fa9b0681d8d142d53/vllm/model_executor/layers/fused_moe/experts/trtllm_fp8_moe.py
https://docs.vllm.ai/en/latest/api/vllm/model_executor/layers/fused_moe/experts/trtllm_fp8_moe/
SGLang: FlashInferTrtllmFp8MoeQuantInfo, align_fp8_moe_weights_for_flashinfer_trtllm and
fused_experts_none_to_flashinfer_trtllm_fp8,
https://github.com/sgl-project/sglang/blob/02962d783bc454c644934a26c2c7e2325f80745f/python/sglang/srt/layers/moe/moe_runner/flashinfer_trtllm.py
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, NamedTuple

import torch

NO_DEFAULT = object()

VLLM_APPLY = {
    "hidden_states": NO_DEFAULT,
    "w1": NO_DEFAULT,
    "w2": NO_DEFAULT,
    "router_logits": NO_DEFAULT,
    "activation": NO_DEFAULT,
    "global_num_experts": NO_DEFAULT,
    "expert_map": NO_DEFAULT,
    "a1q_scale": NO_DEFAULT,
    "apply_router_weight_on_input": NO_DEFAULT,
    "num_expert_group": None,
    "e_score_correction_bias": None,
    "routed_scaling_factor": None,
    "topk_group": None,
}

# Keywords with which each engine calls flashinfer.fused_moe.trtllm_fp8_per_tensor_scale_moe.
_COMMON_KEYWORDS = {
    "routing_logits",
    "routing_bias",
    "hidden_states",
    "gemm1_weights",
    "output1_scales_scalar",
    "output1_scales_gate_scalar",
    "gemm2_weights",
    "output2_scales_scalar",
    "num_experts",
    "top_k",
    "n_group",
    "topk_group",
    "intermediate_size",
    "local_expert_offset",
    "local_num_experts",
    "routed_scaling_factor",
    "use_routing_scales_on_input",
    "routing_method_type",
    "activation_type",
}
FLASHINFER_KEYWORDS = {
    "vllm": _COMMON_KEYWORDS,
    "vllm, latest": _COMMON_KEYWORDS | {"tune_max_num_tokens", "routing_replay_out"},
    "sglang": _COMMON_KEYWORDS | {"tune_max_num_tokens"},
}


class VllmRouting(IntEnum):
    Default = 0
    Renormalize = 1
    DeepSeekV3 = 2
    Llama4 = 3
    RenormalizeNaive = 4
    TopK = 5
    SigmoidRenorm = 6
    MiniMax2 = 7
    Sigmoid = 8
    Unspecified = 9
    DeepseekV4 = 100
    Custom = 101
    Simulated = 102


class VllmActivation(Enum):
    SILU = "silu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    RELU2 = "relu2"
    SWIGLUOAI = "swigluoai"
    SILU_NO_MUL = "silu_no_mul"
    GELU_NO_MUL = "gelu_no_mul"
    RELU2_NO_MUL = "relu2_no_mul"


@dataclass
class SglangQuantInfo:
    """The fields of FlashInferTrtllmFp8MoeQuantInfo, in order."""

    w13_weight: torch.Tensor
    w2_weight: torch.Tensor
    global_num_experts: int
    local_expert_offset: int
    local_num_experts: int
    intermediate_size: int
    routing_method_type: int
    block_quant: bool
    use_mxfp8: bool = False
    weight_block_k: int | None = None
    w13_weight_scale_inv: torch.Tensor | None = None
    w2_weight_scale_inv: torch.Tensor | None = None
    w13_input_scale: torch.Tensor | None = None
    output1_scales_scalar: torch.Tensor | None = None
    output1_scales_gate_scalar: torch.Tensor | None = None
    output2_scales_scalar: torch.Tensor | None = None
    use_routing_scales_on_input: bool = False
    activation_type: int | None = None


class SglangBypassed(NamedTuple):
    """BypassedTopKOutput: the kernel routes."""

    hidden_states: torch.Tensor
    router_logits: torch.Tensor
    topk_config: Any


class SglangStandard(NamedTuple):
    """StandardTopKOutput: the engine has routed."""

    topk_weights: torch.Tensor
    topk_ids: torch.Tensor
    router_logits: torch.Tensor
