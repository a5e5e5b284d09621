"""Parameter names, order and defaults are torch_npu's."""

from __future__ import annotations

import inspect

import pytest

import moe_jit

DOCUMENTED = {
    "npu_convert_weight_to_int4pack": "(weight, inner_k_tiles=0)",
    "npu_format_cast": "(input, acl_format, customize_dtype=None)",
    "npu_grouped_matmul": (
        "(x, weight, *, bias=None, scale=None, offset=None, antiquant_scale=None, antiquant_offset=None, "
        "per_token_scale=None, group_list=None, activation_input=None, activation_quant_scale=None, "
        "activation_quant_offset=None, split_item=0, group_type=None, group_list_type=0, act_type=0, "
        "tuning_config=None, output_dtype=None, x_dtype=None, weight_dtype=None, scale_dtype=None, "
        "per_token_scale_dtype=None)"
    ),
    "npu_grouped_matmul_finalize_routing": (
        "(x, w, group_list, *, scale=None, bias=None, offset=None, antiquant_scale=None, "
        "antiquant_offset=None, pertoken_scale=None, shared_input=None, logit=None, row_index=None, "
        "dtype=None, shared_input_weight=1.0, shared_input_offset=0, output_bs=0, group_list_type=1, "
        "tuning_config=None, x_dtype=None, w_dtype=None, scale_dtype=None, pertoken_scale_dtype=None)"
    ),
    "npu_quantize": "(self, scales, zero_points, dtype, axis=1, div_mode=True)",
    "npu_trans_quant_param": "(scale, offset=None, round_mode=0)",
    "npu_dequant_swiglu_quant": (
        "(x, *, weight_scale=None, activation_scale=None, bias=None, quant_scale=None, quant_offset=None, "
        "group_index=None, activate_left=False, quant_mode=0, dst_type=None, round_mode=None, "
        "activate_dim=None, swiglu_mode=0, clamp_limit=7.0, glu_alpha=1.702, glu_bias=1.0)"
    ),
    "npu_dynamic_quant": (
        "(input, *, smooth_scales=None, group_index=None, dst_type=None, quant_mode='pertoken', "
        "dst_type_max=0.0)"
    ),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_signature(name: str):
    signature = inspect.signature(getattr(moe_jit, name))
    parameters = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
    assert str(inspect.Signature(parameters)) == DOCUMENTED[name]


def test_all_are_documented():
    assert {name for name in moe_jit.__all__ if name.startswith("npu_")} == set(DOCUMENTED)
