"""The operators on Ascend C kernels: a compiled module's arguments become launches.

Each function takes the kind of device and then what the CPU and GPU modules of its operator take, see
``include/moe_jit/ffi/<operator>_call.h``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from moe_jit import backends

from . import launch, tiling
from .launch import Argument, Kernel, Role
from .tiling import GroupListTiling, Plan

KINDS = (backends.EMULATOR, "npu")
_ALIGNMENT = 512
_FORMATS = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.int32: "i32"}
_BIAS_FORMATS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.int32: 3}


@cache
def _on_device(data: bytes, device: torch.device) -> torch.Tensor:
    """Kept, so that a repeated call copies nothing to the device."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)


def _workspace(size: int, device: torch.device) -> torch.Tensor | None:
    """Scratch memory of the current stream, aligned."""
    if not size:
        return None
    memory = torch.empty(size + _ALIGNMENT, dtype=torch.uint8, device=device)
    skipped = -memory.data_ptr() % _ALIGNMENT
    return memory[skipped : skipped + size]


def _launch(kind: str, plan: Plan, device: torch.device, arguments: list[Argument]) -> None:
    common = [
        Argument("workspace", _workspace(plan.workspace, device), Role.WORKSPACE),
        Argument("tiling", _on_device(plan.tiling, device)),
    ]
    kernel = Kernel(f"ascend/{plan.entry}.cpp", plan.entry, len(arguments) + len(common))
    launch.launch(kind, kernel, plan.blocks, [*arguments, *common])


def _inputs(**tensors: torch.Tensor | None) -> list[Argument]:
    return [Argument(name, tensor) for name, tensor in tensors.items()]


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
    groups = GroupListTiling()
    if group_index is not None:
        count = group_index.shape[0]
        groups = GroupListTiling(count, type=group_index.dim(), num_experts=count)
    plan = tiling.plan_dequant_swiglu_quant(
        rows=x.shape[0],
        half=x.shape[1] // 2,
        x_format=_FORMATS[x.dtype],
        groups=groups,
        is_grouped=group_index is not None,
        bias_format=0 if bias is None else _BIAS_FORMATS[bias.dtype],
        bias_rows=1 if bias is None else bias.shape[0],
        quant_is_scalar=quant_scale is not None and quant_scale.shape[1] == 1,
        activate_left=activate_left,
        dynamic=dynamic,
        swiglu_mode=swiglu_mode,
        clamp_limit=clamp_limit,
        glu_alpha=glu_alpha,
        glu_bias=glu_bias,
        cores=2 * launch.num_cores(kind, x.device),
    )
    arguments = [
        *_inputs(
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
    _launch(kind, plan, x.device, arguments)


FUNCTIONS: dict[str, Callable[..., Any]] = {"dequant_swiglu_quant": _dequant_swiglu_quant}
