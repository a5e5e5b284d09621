"""npu_grouped_matmul and npu_grouped_matmul_finalize_routing on Ascend C kernels.

A kernel multiplies rows of one x with one table of weights. Lists of tensors become one launch for each
weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import torch

from moe_jit.checks import reject

from . import launch, npu, tiling, tuning
from .kernel_launch import FORMATS, inputs, run
from .launch import Argument, Role
from .matmul_arguments import GroupType, Kind
from .tiling import GroupListTiling, Tile, WeightLayout
from .weights import BLOCK_BYTES, PACKED

Tensors = list[torch.Tensor]


class _Part(NamedTuple):
    """One launch: a weight table and the rows that it multiplies."""

    x: torch.Tensor
    weight: torch.Tensor
    parameters: dict[str, torch.Tensor | None]
    per_token_scale: torch.Tensor | None
    group_list: torch.Tensor | None
    y: torch.Tensor
    groups: GroupListTiling
    zero_tail: bool


def stored(kind: str, weight: torch.Tensor, transposed: bool) -> tuple[torch.Tensor, WeightLayout]:
    """The weight's memory as a contiguous tensor, and its layout."""
    blocked = weight.dim() >= 4
    if blocked and weight.dtype == torch.int32 and weight.shape[-1] * 4 != BLOCK_BYTES:
        reject(
            "weight", f"in blocks of {BLOCK_BYTES} bytes for an Ascend kernel", f"shape {tuple(weight.shape)}"
        )
    memory = weight.mT if transposed else weight
    if blocked and transposed:
        memory = memory.transpose(-4, -3)
    is_blocked = blocked or (kind == npu.KIND and npu.is_blocked(weight))
    return memory.contiguous(), WeightLayout(2 * is_blocked + transposed)


def _variant(kind: Kind, x: torch.Tensor, weight: torch.Tensor, y: torch.Tensor) -> str:
    """The suffix of the kernel's name."""
    names = FORMATS | {torch.int8: "i8"}
    weight_name = "i4" if weight.dtype == torch.int32 else "i8"
    if kind is Kind.FLOAT:
        return names[x.dtype]
    if kind is Kind.ANTIQUANT:
        return f"{names[x.dtype]}_{weight_name}"
    if kind is Kind.INT8:
        return f"i8_{names[y.dtype]}"
    return f"i8_i4_{names[y.dtype]}" if kind is Kind.INT8_INT4 else f"i4_{names[y.dtype]}"


def _segments(parameters: dict[str, torch.Tensor | None], weight: torch.Tensor) -> int:
    """Parts of k with scales of their own."""
    leading = 1 if weight.dim() in (3, 5) else 0
    for name in ("antiquant_scale", "scale"):
        value = parameters[name]
        if value is not None and value.dim() == leading + 2:
            return value.shape[-2]
    return 1


def _parameter(value: Any, i: int) -> torch.Tensor | None:
    return None if value is None else value[i]


def _parts(
    xs: Tensors,
    weights: Tensors,
    lists: dict[str, Tensors | None],
    per_token_scale: torch.Tensor | None,
    group_list: torch.Tensor | None,
    ys: Tensors,
    group_type: GroupType,
    group_list_type: int,
) -> Iterator[_Part]:
    def part(i: int, x: torch.Tensor, y: torch.Tensor, begin: int, **grouped: Any) -> _Part:
        parameters = {name: _parameter(values, i) for name, values in lists.items()}
        scales = None if per_token_scale is None else per_token_scale[begin : begin + x.shape[0]]
        fields = {"group_list": None, "groups": GroupListTiling(), "zero_tail": True} | grouped
        return _Part(x, weights[i], parameters, scales, y=y, **fields)

    if group_type is GroupType.ROWS and len(xs) == 1 and len(ys) == 1:
        assert group_list is not None
        entries = group_list.shape[0]
        for i, weight in enumerate(weights):
            stacked = len(weights) == 1 and weight.dim() in (3, 5)
            experts = weight.shape[0] if stacked else len(weights)
            groups = GroupListTiling(entries, group_list_type, experts, -1 if stacked else i)
            yield part(i, xs[0], ys[0], 0, group_list=group_list, groups=groups, zero_tail=i == 0)
        return
    begins = [0, *accumulate(t.shape[0] for t in (ys if len(xs) == 1 else xs))]
    ranges = list(pairwise(begins))
    xs = [xs[0][begin:end] for begin, end in ranges] if len(xs) == 1 else xs
    ys = [ys[0][begin:end] for begin, end in ranges] if len(ys) == 1 else ys
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        yield part(i, x, y, begins[i])


def grouped_matmul(
    where: str,
    x: Tensors,
    weight: Tensors,
    bias: Tensors | None,
    scale: Tensors | None,
    offset: Tensors | None,
    antiquant_scale: Tensors | None,
    antiquant_offset: Tensors | None,
    per_token_scale: torch.Tensor | None,
    group_list: torch.Tensor | None,
    y: Tensors,
    kind: int,
    group_type: int,
    group_list_type: int,
    act_type: int,
    transposed: bool,
    expected_rows: int | None = None,
) -> None:
    if group_type == GroupType.DEPTH:
        reject("group_type", "-1 or 0 on an Ascend kernel (2 splits k)", group_type)
    lists = {
        "bias": bias,
        "scale": scale,
        "offset": offset,
        "antiquant_scale": antiquant_scale,
        "antiquant_offset": antiquant_offset,
    }
    parts = _parts(x, weight, lists, per_token_scale, group_list, y, GroupType(group_type), group_list_type)
    for part in parts:
        if part.x.shape[0]:
            _multiply(where, part, Kind(kind), act_type, transposed, expected_rows)


def _multiply(
    where: str, part: _Part, kind: Kind, act_type: int, transposed: bool, expected_rows: int | None
) -> None:
    x, parameters = part.x.contiguous(), dict(part.parameters)
    weight, layout = stored(where, part.weight, transposed)
    bias = parameters["bias"]
    if bias is not None and bias.dtype == torch.float16:  # the cube adds fp32
        parameters["bias"] = bias = bias.float()
    scale = parameters["scale"]
    sizes: dict[str, Any] = {
        "k": x.shape[1] * (PACKED if kind is Kind.INT4 else 1),
        "n": part.y.shape[1],
        "weight_layout": int(layout),
        "zero_tail": part.zero_tail,
        "act_type": act_type,
        "segments": _segments(parameters, part.weight),
        "scale_is_bf16": scale is not None and scale.dtype == torch.bfloat16,
        "bias_is_bf16": bias is not None and bias.dtype == torch.bfloat16,
        "has_bias": bias is not None,
        "expected_rows": expected_rows,
    }
    entry = _variant(kind, x, weight, part.y)

    def launch_with(tensors: _RowTensors, tile: Tile) -> None:
        cores = launch.num_cores(where, x.device)
        rows = tensors.x.shape[0]
        plan = tiling.plan_grouped_matmul(
            entry, rows=rows, groups=part.groups, cores=cores, tile=tile, **sizes
        )
        arguments = [
            *inputs(x=tensors.x, weight=weight, **parameters),
            *inputs(per_token_scale=tensors.per_token_scale, group_list=tensors.group_list),
            Argument("y", tensors.y, Role.OUTPUT if part.zero_tail else Role.IN_OUT),
        ]
        run(where, plan, x.device, arguments)

    own = _RowTensors(x, part.per_token_scale, part.group_list, part.y)
    facts = {"operation": "npu_grouped_matmul", "entry": entry, **sizes}
    launch_with(own, _tile(where, entry, own, part.groups, sizes, facts, launch_with))


class _RowTensors(NamedTuple):
    """The tensors of a launch whose sizes depend on the rows."""

    x: torch.Tensor
    per_token_scale: torch.Tensor | None
    group_list: torch.Tensor | None
    y: torch.Tensor
    logit: torch.Tensor | None = None
    row_index: torch.Tensor | None = None
    shared_input: torch.Tensor | None = None

    def like(self, where: str, rows: int, groups: GroupListTiling, skew: float) -> _RowTensors:
        """Others of as many rows, to measure with: each a row of y, without a shared input."""
        index = self.row_index
        return _RowTensors(
            tuning.rows_like(self.x, rows, where),
            tuning.ones_like(self.per_token_scale, rows),
            tuning.group_list_like(self.group_list, groups.type, rows, skew),
            self.y.new_empty((rows, *self.y.shape[1:])),
            tuning.ones_like(self.logit, rows),
            None if index is None else torch.arange(rows, dtype=index.dtype, device=index.device),
        )


def _tile(
    where: str,
    entry: str,
    own: _RowTensors,
    groups: GroupListTiling,
    sizes: Mapping[str, Any],
    facts: Mapping[str, Any],
    launch_with: Callable[[_RowTensors, Tile], None],
) -> Tile:
    """The tile for a launch with ``own`` tensors."""
    device = own.x.device
    cores = launch.num_cores(where, device)

    def candidates(rows: int) -> tuple[Tile, ...]:
        return tiling.tiles_to_measure(
            entry,
            rows,
            sizes["k"],
            sizes["n"],
            groups.num_groups,
            cores,
            expected_rows=sizes["expected_rows"],
            has_bias=sizes["has_bias"],
            segments=sizes["segments"],
        )

    def prepare(rows: int, skew: float) -> Callable[[Tile], None]:
        return partial(launch_with, own.like(where, rows, groups, skew))

    grouped = {"num_groups": groups.num_groups, "one_group": groups.only_group >= 0}
    launches = tuning.Launches(where, device, {**facts, **grouped}, candidates, prepare)
    return tuning.tactic_for(own.x.shape[0], launches)


def finalize_routing(
    where: str,
    x: torch.Tensor,
    weight: Tensors,
    group_list: torch.Tensor,
    scale: Tensors,
    bias: Tensors | None,
    offset: Tensors | None,
    per_token_scale: torch.Tensor | None,
    shared_input: torch.Tensor | None,
    logit: torch.Tensor | None,
    row_index: torch.Tensor,
    y: torch.Tensor,
    shared_input_weight: float,
    shared_input_offset: int,
    kind: int,
    group_list_type: int,
    transposed: bool,
    expected_rows: int | None = None,
) -> None:
    table, layout = stored(where, weight[0], transposed)
    experts = weight[0].shape[0]
    groups = GroupListTiling(experts, group_list_type, experts)
    sizes: dict[str, Any] = {
        "k": x.shape[1],
        "n": y.shape[1],
        "weight_layout": int(layout),
        "segments": scale[0].shape[1] if scale[0].dim() == 3 else 1,
        "scale_is_bf16": scale[0].dtype == torch.bfloat16,
        "has_bias": bias is not None,
        "row_index_is_int64": row_index.dtype == torch.int64,
        "expected_rows": expected_rows,
    }
    entry = "i8_i4" if kind == Kind.INT8_INT4 else "i8"

    shared: dict[str, Any] = {
        "shared_offset": shared_input_offset,
        "shared_format": "f32" if shared_input is None else FORMATS[shared_input.dtype],
        "shared_weight": shared_input_weight,
    }

    def launch_with(tensors: _RowTensors, tile: Tile) -> None:
        plan = tiling.plan_finalize_routing(
            entry,
            rows=tensors.x.shape[0],
            groups=groups,
            output_rows=tensors.y.shape[0],
            shared_rows=0 if tensors.shared_input is None else tensors.shared_input.shape[0],
            cores=launch.num_cores(where, x.device),
            tile=tile,
            **shared,
            **sizes,
        )
        arguments = [
            *inputs(x=tensors.x, weight=table, group_list=tensors.group_list, scale=scale[0]),
            *inputs(bias=_parameter(bias, 0), offset=_parameter(offset, 0)),
            *inputs(per_token_scale=tensors.per_token_scale, shared_input=tensors.shared_input),
            *inputs(logit=tensors.logit, row_index=tensors.row_index),
            Argument("y", tensors.y, Role.OUTPUT),
        ]
        run(where, plan, x.device, arguments)

    own = _RowTensors(x, per_token_scale, group_list, y, logit, row_index, shared_input)
    facts = {"operation": "npu_grouped_matmul_finalize_routing", "entry": entry, **sizes}
    launch_with(own, _tile(where, entry, own, groups, sizes, facts, launch_with))
