"""The operators on Ascend C kernels: a compiled module's arguments become launches.

Each function takes the kind of device and then what the CPU and GPU modules of its operator take, see
``include/moe_jit/ffi/<operator>_call.h``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from moe_jit import backends

from . import kernel_matmul, launch, npu, tiling, tuning
from .kernel_launch import FORMATS, inputs, run
from .kernel_structs import GroupListTiling
from .launch import Argument, Role
from .tiling import Batch

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
    groups = GroupListTiling()
    if group_index is not None:
        count = group_index.shape[0]
        groups = GroupListTiling(count, type=group_index.dim(), num_experts=count)
    cores = 2 * launch.num_cores(kind, x.device)
    sizes = _sizes(x, bias, quant_offset if quant_scale is None else quant_scale, group_index, dynamic)
    sizes |= {"activate_left": activate_left, "dynamic": dynamic, "swiglu_mode": swiglu_mode}

    def launch_with(tensors: _RowTensors, batch: Batch) -> None:
        plan = tiling.plan_dequant_swiglu_quant(
            rows=tensors.x.shape[0],
            groups=groups,
            clamp_limit=clamp_limit,
            glu_alpha=glu_alpha,
            glu_bias=glu_bias,
            cores=cores,
            batch=batch,
            **sizes,
        )
        arguments = [
            *inputs(x=tensors.x, weight_scale=weight_scale, activation_scale=tensors.activation_scale),
            *inputs(bias=bias, quant_scale=quant_scale, quant_offset=quant_offset),
            *inputs(group_index=tensors.group_index),
            Argument("y", tensors.y, Role.OUTPUT),
            Argument("scale", tensors.scale, Role.OUTPUT),
        ]
        run(kind, plan, x.device, arguments)

    def candidates(rows: int) -> tuple[Batch, ...]:
        return tiling.batches_to_measure(x.shape[1] // 2, rows, x.element_size(), cores)

    def prepare(rows: int, skew: float) -> Callable[[Batch], None]:
        return partial(launch_with, own.like(kind, rows, groups.type, skew))

    own = _RowTensors(x, activation_scale, group_index, y, scale)
    given = {"bias": bias, "quant_scale": quant_scale, "quant_offset": quant_offset}
    facts = {"operation": "npu_dequant_swiglu_quant", "num_groups": groups.num_groups, **sizes}
    facts |= {f"has_{name}": value is not None for name, value in given.items()}
    launches = tuning.Launches(kind, x.device, facts, candidates, prepare)
    launch_with(own, tuning.tactic_for(max(x.shape[0], 1), launches))


def _sizes(
    x: torch.Tensor,
    bias: torch.Tensor | None,
    quantisation: torch.Tensor | None,
    group_index: torch.Tensor | None,
    dynamic: bool,
) -> dict[str, Any]:
    return {
        "x_format": FORMATS[x.dtype],
        "half": x.shape[1] // 2,
        "is_grouped": group_index is not None,
        "bias_format": 0 if bias is None else _BIAS_NUMBERS[bias.dtype],
        "bias_rows": 1 if bias is None else bias.shape[0],
        "quant_is_scalar": not dynamic and quantisation is not None and quantisation.shape[1] == 1,
    }


class _RowTensors(NamedTuple):
    """The tensors of npu_dequant_swiglu_quant whose sizes depend on the rows."""

    x: torch.Tensor
    activation_scale: torch.Tensor | None
    group_index: torch.Tensor | None
    y: torch.Tensor
    scale: torch.Tensor

    def like(self, kind: str, rows: int, group_list_type: int, skew: float) -> _RowTensors:
        """Others of as many rows, to measure with."""
        return _RowTensors(
            tuning.rows_like(self.x, rows, kind),
            tuning.ones_like(self.activation_scale, rows),
            tuning.group_list_like(self.group_index, group_list_type, rows, skew),
            self.y.new_empty((rows, *self.y.shape[1:])),
            self.scale.new_empty((rows, *self.scale.shape[1:])),
        )


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "dequant_swiglu_quant": _dequant_swiglu_quant,
    "grouped_matmul": kernel_matmul.grouped_matmul,
    "grouped_matmul_finalize_routing": kernel_matmul.finalize_routing,
}
