"""Parameter names, order and defaults are torch_npu's."""

from __future__ import annotations

import inspect

import pytest

import moe_jit

DOCUMENTED = {
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
