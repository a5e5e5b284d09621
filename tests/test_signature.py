"""The public signatures: other programs call these functions positionally and by keyword."""

from __future__ import annotations

import inspect

import moe_jit

REQUIRED = inspect.Parameter.empty

DOCUMENTED = [
    ("routing_logits", REQUIRED),
    ("routing_bias", REQUIRED),
    ("hidden_states", REQUIRED),
    ("gemm1_weights", REQUIRED),
    ("output1_scales_scalar", REQUIRED),
    ("output1_scales_gate_scalar", REQUIRED),
    ("gemm2_weights", REQUIRED),
    ("output2_scales_scalar", REQUIRED),
    ("num_experts", REQUIRED),
    ("top_k", REQUIRED),
    ("n_group", REQUIRED),
    ("topk_group", REQUIRED),
    ("intermediate_size", REQUIRED),
    ("local_expert_offset", REQUIRED),
    ("local_num_experts", REQUIRED),
    ("routed_scaling_factor", REQUIRED),
    ("use_routing_scales_on_input", REQUIRED),
    ("routing_method_type", 0),
    ("do_finalize", True),
    ("enable_pdl", None),
    ("tune_max_num_tokens", 8192),
    ("activation_type", 3),
    ("norm_topk_prob", True),
    ("routing_replay_out", None),
    ("output", None),
]

PRE_ROUTED = [
    ("topk_ids", REQUIRED),
    ("topk_weights", REQUIRED),
    ("hidden_states", REQUIRED),
    ("gemm1_weights", REQUIRED),
    ("output1_scales_scalar", REQUIRED),
    ("output1_scales_gate_scalar", REQUIRED),
    ("gemm2_weights", REQUIRED),
    ("output2_scales_scalar", REQUIRED),
    ("num_experts", REQUIRED),
    ("top_k", REQUIRED),
    ("intermediate_size", REQUIRED),
    ("local_expert_offset", REQUIRED),
    ("local_num_experts", REQUIRED),
    ("use_routing_scales_on_input", False),
    ("do_finalize", True),
    ("enable_pdl", None),
    ("tune_max_num_tokens", 8192),
    ("activation_type", 3),
    ("routing_replay_out", None),
    ("output", None),
]


ASCEND = {  # their signatures: tests/ascend/test_ascend_signature.py
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
}


def _split(function):
    parameters = inspect.signature(function).parameters.values()
    positional = [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    keyword_only = [(p.name, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert len(positional) + len(keyword_only) == len(parameters)
    return positional, keyword_only


def _same(actual, expected):
    """Equal including the type, since True == 1."""
    return actual == expected and [type(d) for _, d in actual] == [type(d) for _, d in expected]


def test_documented_function():
    positional, keyword_only = _split(moe_jit.trtllm_fp8_per_tensor_scale_moe)
    assert _same(positional, DOCUMENTED)
    assert _same(keyword_only, [("weight_layout", "shuffled"), ("fast_accum", True)])


def test_pre_routed_function():
    positional, keyword_only = _split(moe_jit.trtllm_fp8_per_tensor_scale_routed_moe)
    assert _same(positional, PRE_ROUTED)
    assert _same(keyword_only, [("weight_layout", "shuffled"), ("fast_accum", True)])


def test_public_names():
    assert set(moe_jit.__all__) == {
        "ActivationType",
        "FusedMoE",
        "RoutingMethodType",
        "WeightLayout",
        *ASCEND,
        "autotune",
        "shuffle_gemm1",
        "shuffle_gemm2",
        "swap_halves",
        "unshuffle_gemm1",
        "unshuffle_gemm2",
        "use_backend",
        "trtllm_fp8_per_tensor_scale_moe",
        "trtllm_fp8_per_tensor_scale_routed_moe",
        "warmup",
        "workspace_size",
    }
    assert all(hasattr(moe_jit, name) for name in moe_jit.__all__)


def test_enum_numbers_are_the_documented_ones():
    assert {m.name: int(m) for m in moe_jit.RoutingMethodType} == {
        "Default": 0,
        "Renormalize": 1,
        "DeepSeekV3": 2,
        "Llama4": 3,
        "RenormalizeNaive": 4,
        "TopK": 5,
        "SigmoidRenorm": 6,
        "MiniMax2": 7,
        "Sigmoid": 8,
        "Unspecified": 9,
        "TopKSigmoid": 10,
    }
    assert {a.name: int(a) for a in moe_jit.ActivationType} == {
        "Gelu": 0,
        "Swiglu": 3,
        "Geglu": 4,
        "Relu2": 6,
        "Identity": 7,
    }
