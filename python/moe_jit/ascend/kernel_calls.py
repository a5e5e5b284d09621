"""The operators on Ascend C kernels: a compiled module's arguments become launches.

Each function takes the kind of device and then what the CPU and GPU modules of its operator take, see
``include/moe_jit/ffi/<operator>_call.h``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from moe_jit import backends

from . import kernel_matmul, launch, npu, tiling
from .kernel_launch import FORMATS, inputs, run
from .kernel_structs import GroupListTiling
from .launch import Argument, Role

KINDS = (backends.EMULATOR, npu.KIND)
_BIAS_NUMBERS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.int32: 3}


def _dequant_swiglu_quant(
    kind: str,
    x: torch.Tensor,
    weight_scale: torch.Tensor | None,
    activation_scale: torch.Tensor | None,
    bias: torch.Tensor | None,
    quant_scale: torch.Tensor | None,
    quant_offset: torch.Tensor | None,
    group_index: torch.Tensor | None,
    y: torch.Tensor,
    scale: torch.Tensor,
    activate_left: bool,
    dynamic: bool,
    swiglu_mode: int,
    clamp_limit: float,
    glu_alpha: float,
    glu_bias: float,
) -> None:
    quantisation = quant_offset if quant_scale is None else quant_scale
    groups = GroupListTiling()
    if group_index is not None:
        count = group_index.shape[0]
        groups = GroupListTiling(count, type=group_index.dim(), num_experts=count)
    plan = tiling.plan_dequant_swiglu_quant(
        x_format=FORMATS[x.dtype],
        groups=groups,
        rows=x.shape[0],
        half=x.shape[1] // 2,
        is_grouped=group_index is not None,
        bias_format=0 if bias is None else _BIAS_NUMBERS[bias.dtype],
        bias_rows=1 if bias is None else bias.shape[0],
        quant_is_scalar=not dynamic and quantisation is not None and quantisation.shape[1] == 1,
        activate_left=activate_left,
        dynamic=dynamic,
        swiglu_mode=swiglu_mode,
        clamp_limit=clamp_limit,
        glu_alpha=glu_alpha,
        glu_bias=glu_bias,
        cores=2 * launch.num_cores(kind, x.device),
    )
    arguments = [
        *inputs(
            x=x,
            weight_scale=weight_scale,
            activation_scale=activation_scale,
            bias=bias,
            quant_scale=quant_scale,
            quant_offset=quant_offset,
            group_index=group_index,
        ),
        Argument("y", y, Role.OUTPUT),
        Argument("scale", scale, Role.OUTPUT),
    ]
    run(kind, plan, x.device, arguments)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "dequant_swiglu_quant": _dequant_swiglu_quant,
    "grouped_matmul": kernel_matmul.grouped_matmul,
    "grouped_matmul_finalize_routing": kernel_matmul.finalize_routing,
}
