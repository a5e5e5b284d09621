"""What npu_grouped_matmul is asked to do: the checks that every combination of dtypes shares."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import torch

from moe_jit import checks
from moe_jit.checks import Dim, reject, reject_type

from . import arguments, group_list, weights
from .group_list import GroupList
from .weights import Weight

MAX_INNER = 65535
MAX_TENSORS = 128
PARAMETERS = ("bias", "scale", "offset", "antiquant_scale", "antiquant_offset", "per_token_scale")
_RESERVED = ("activation_input", "activation_quant_scale", "activation_quant_offset")
_FORMATS = ("x_dtype", "weight_dtype", "scale_dtype", "per_token_scale_dtype")
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
_RELU, _GELU_TANH, _FAST_GELU, _SILU = 1, 2, 4, 5


class Kind(IntEnum):
    """``ProductKind`` of include/moe_jit/ffi/grouped_matmul_call.h."""

    FLOAT = 0
    ANTIQUANT = 1
    INT8 = 2
    INT8_INT4 = 3
    INT4 = 4


class GroupType(IntEnum):
    NONE = -1
    ROWS = 0
    DEPTH = 2


class Request(NamedTuple):
    """Arguments after the shared checks; tensors of ``x`` are 2-D, ``given`` holds the parameters."""

    kind: Kind
    x: list[torch.Tensor]
    x_shapes: list[tuple[int, ...]]
    weight: Weight
    given: dict[str, list[torch.Tensor] | None]
    groups: GroupList
    group_type: GroupType
    split_item: int
    act_type: int
    output_dtype: torch.dtype | None

    @property
    def rows(self) -> int:
        return sum(x.shape[0] for x in self.x)

    @property
    def num_groups(self) -> int:
        return self.groups.num_groups if self.group_type is GroupType.DEPTH else self.weight.num_experts

    @property
    def one_output(self) -> bool:
        return self.split_item >= 2


def tensor_list(name: str, value: object, *, optional: bool = False) -> list[torch.Tensor] | None:
    """A list of tensors; None (if ``optional``) also for an empty list."""
    if value is None and optional:
        return None
    if not isinstance(value, (list, tuple)):
        reject_type(name, "a list of torch.Tensor" + (" or None" if optional else ""), value)
    for i, item in enumerate(value):
        if not isinstance(item, torch.Tensor):
            reject_type(f"{name}[{i}]", "a torch.Tensor", item)
        checks.dense(f"{name}[{i}]", item)
    if not value and not optional:
        reject(name, "a list of at least one tensor", "an empty list")
    if len(value) > MAX_TENSORS:
        reject(name, f"a list of at most {MAX_TENSORS} tensors", f"{len(value)} tensors")
    return list(value) or None


def request(x: object, weight: object, given: dict[str, Any]) -> Request:
    xs, ws = tensor_list("x", x), tensor_list("weight", weight)
    assert xs is not None
    assert ws is not None
    for name in _RESERVED:
        if tensor_list(name, given[name], optional=True) is not None:
            reject(name, "None (reserved)", "a list of tensors")
    for name in _FORMATS:
        arguments.absent(name, given[name], "not available here")
    lists = {name: tensor_list(name, given[name], optional=True) for name in PARAMETERS}
    kind = _kind(xs, ws)
    _check_devices(xs, ws, lists)
    split_item = 0 if given["split_item"] is None else given["split_item"]
    split_item = arguments.one_of("split_item", split_item, (0, 1, 2, 3))
    group_type = _group_type(given["group_type"], given["group_list"])
    if group_type is GroupType.DEPTH and kind is not Kind.FLOAT:
        reject("group_type", "0 or -1 with quantised operands (2 splits k)", 2)
    flat = _flatten(xs, group_type)
    total, total_name = _divided(flat, group_type)
    groups = group_list.check(given["group_list"], given["group_list_type"], total, total_name, xs[0].device)
    _check_counts(flat, ws, groups, group_type, split_item)
    described = weights.describe(ws, _depths(flat, ws, groups, group_type, kind), _columns(ws, lists))
    result = Request(
        kind,
        flat,
        [tuple(t.shape) for t in xs],
        described,
        lists,
        groups,
        group_type,
        split_item,
        _act_type(given["act_type"]),
        arguments.optional_dtype("output_dtype", given["output_dtype"]),
    )
    _check_experts(result)
    _check_inner(xs, ws, described)
    check_tuning(given["tuning_config"], max(t.shape[0] for t in flat))
    return result


def _kind(xs: list[torch.Tensor], ws: list[torch.Tensor]) -> Kind:
    for name, tensors in (("x", xs), ("weight", ws)):
        for i, tensor in enumerate(tensors):
            if tensor.dtype != tensors[0].dtype:
                reject(f"{name}[{i}]", f"of dtype {tensors[0].dtype} ({name}[0])", tensor.dtype)
    x, w = xs[0].dtype, ws[0].dtype
    table = {(dtype, dtype): Kind.FLOAT for dtype in _FLOATS}
    table |= {(dtype, w): Kind.ANTIQUANT for dtype in _FLOATS[:2] for w in (torch.int8, torch.int32)}
    table[torch.int8, torch.int8] = Kind.INT8
    table[torch.int8, torch.int32] = Kind.INT8_INT4
    table[torch.int32, torch.int32] = Kind.INT4
    if x not in {pair[0] for pair in table}:
        reject("x", "float16, bfloat16, float32, int8 or int32 (packed int4)", x)
    if (x, w) not in table:
        allowed = " or ".join(str(pair[1]) for pair in table if pair[0] == x)
        reject("weight", f"of dtype {allowed} (x is {x}; int32 is packed int4)", w)
    return table[x, w]


def _check_devices(
    xs: list[torch.Tensor], ws: list[torch.Tensor], lists: dict[str, list[torch.Tensor] | None]
) -> None:
    for name, tensors in {"x": xs, "weight": ws, **lists}.items():
        for i, tensor in enumerate(tensors or ()):
            checks.same_device(f"{name}[{i}]", tensor, xs[0].device, "x[0]")


def _group_type(value: object, groups: object) -> GroupType:
    if value is None:
        if groups is not None:
            raise ValueError("Requires manual passing group_type, current is None.")
        return GroupType.NONE
    if isinstance(value, bool) or not isinstance(value, int):
        reject_type("group_type", "an int or None", value)
    if value not in (-1, 0, 2):
        raise ValueError(f"The group type must be -1, 0 or 2; got group_type {value}")
    return GroupType(value)


def _act_type(value: object) -> int:
    choices = (0, _RELU, _GELU_TANH, _FAST_GELU, _SILU)
    why = "3, GELU_ERR_FUNC, is not available"
    return arguments.one_of("act_type", 0 if value is None else value, choices, why)


def _flatten(xs: list[torch.Tensor], group_type: GroupType) -> list[torch.Tensor]:
    flat = []
    for i, x in enumerate(xs):
        if group_type is GroupType.NONE and not 2 <= x.dim() <= 6:
            reject(f"x[{i}]", "of 2 to 6 dimensions", f"shape {tuple(x.shape)}")
        if group_type is not GroupType.NONE and x.dim() != 2:
            reject(f"x[{i}]", f"2-dimensional with group_type {group_type.value}", f"shape {tuple(x.shape)}")
        if x.shape[-1] == 0:
            reject(f"x[{i}].shape[-1]", "positive", 0)
        rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        keep = rows.stride(-1) == 1 or (group_type is GroupType.DEPTH and rows.stride(0) == 1)
        flat.append(rows if keep else rows.contiguous())
    return flat


def _divided(xs: list[torch.Tensor], group_type: GroupType) -> tuple[int, str]:
    if group_type is GroupType.DEPTH:
        return xs[0].shape[1], "the last dimension of x"
    return sum(x.shape[0] for x in xs), "the rows of x"


def _check_counts(
    xs: list[torch.Tensor],
    ws: list[torch.Tensor],
    groups: GroupList,
    group_type: GroupType,
    split_item: int,
) -> None:
    several = len(xs) > 1
    if group_type is GroupType.NONE:
        if groups.values is not None:
            reject("group_list", "None with group_type -1", "a group list")
        if split_item > 1:
            reject("split_item", "0 or 1 with group_type -1", split_item)
        if any(w.dim() not in (2, 4) for w in ws):
            reject(
                "weight", "a list of 2-dimensional tensors with group_type -1", [tuple(w.shape) for w in ws]
            )
    elif groups.values is None and not (several and group_type is GroupType.ROWS):
        reject("group_list", f"given with group_type {group_type.value} and one x", None)
    if group_type is GroupType.DEPTH and several:
        reject("x", "a list of one tensor with group_type 2", f"{len(xs)} tensors")
    if groups.values is not None and split_item < 2:
        if several:
            reject(
                "x", f"a list of one tensor with split_item {split_item} and group_list", f"{len(xs)} tensors"
            )
        if len(ws) != groups.num_groups:
            expected = f"a list of {groups.num_groups} tensors (group_list) with split_item {split_item}"
            reject("weight", expected, f"{len(ws)} tensors")
    if (groups.values is None or several) and len(xs) != len(ws):
        reject("weight", f"a list of {len(xs)} tensors, one for each x", f"{len(ws)} tensors")
    if several and group_type is GroupType.ROWS and split_item < 2:
        reject("split_item", "2 or 3 with several x and group_type 0", split_item)
    if several and groups.values is not None and groups.num_groups != len(xs):
        reject("group_list", f"of {len(xs)} groups, one for each x", f"{groups.num_groups} groups")


def _depths(
    xs: list[torch.Tensor], ws: list[torch.Tensor], groups: GroupList, group_type: GroupType, kind: Kind
) -> list[int]:
    """The reduction length that each weight must have."""
    factor = weights.PACKED if kind is Kind.INT4 else 1
    if group_type is GroupType.DEPTH and len(ws) > 1:
        return [w.shape[-2] for w in ws]
    if len(xs) > 1:
        depths = [factor * x.shape[1] for x in xs]
        if group_type is GroupType.ROWS and not arguments.all_equal(depths):
            reject("x", "a list of tensors with equal last dimensions", depths)
        return depths
    return [factor * xs[0].shape[1]] * len(ws)


def _columns(ws: Sequence[torch.Tensor], lists: dict[str, list[torch.Tensor] | None]) -> list[int | None]:
    for name in ("scale", "bias", "antiquant_scale"):
        tensors = lists[name]
        if tensors is not None and len(tensors) == len(ws) and all(t.dim() for t in tensors):
            return [t.shape[-1] for t in tensors]
    return [None] * len(ws)


def _check_experts(r: Request) -> None:
    weight = r.weight
    if r.group_type is GroupType.DEPTH:
        if weight.is_stacked:
            reject("weight", "2-dimensional [k, n] with group_type 2", tuple(weight.tensors[0].shape))
        if len(weight.tensors) not in (1, r.groups.num_groups):
            expected = f"a list of one tensor or of {r.groups.num_groups} (group_list)"
            reject("weight", expected, f"{len(weight.tensors)} tensors")
        if len(weight.tensors) > 1 and sum(weight.k) != r.x[0].shape[1]:
            expected = f"a list whose k add up to {r.x[0].shape[1]} (the last dimension of x)"
            reject("weight", expected, weight.k)
        if len(weight.tensors) > 1 and isinstance(r.groups.values, list):
            sizes = r.groups.sizes(r.x[0].shape[1])
            if tuple(sizes) != weight.k:
                reject("weight", f"a list whose k are {sizes} (group_list)", list(weight.k))
        for present, what in ((weight.transposed, "transposed"), (weight.blocked, "blocked")):
            if present:
                reject("weight", f"not {what} with group_type 2", f"a {what} weight")
    elif r.groups.values is not None and weight.num_experts != r.groups.num_groups:
        reject("group_list", f"of {weight.num_experts} groups (weight)", f"{r.groups.num_groups} groups")
    if r.one_output and not arguments.all_equal(weight.n):
        reject("weight", f"a list of tensors with equal n with split_item {r.split_item}", weight.n)


def _check_inner(xs: list[torch.Tensor], ws: list[torch.Tensor], weight: Weight) -> None:
    for name, tensors in (("x", xs), ("weight", ws)):
        if name == "weight" and weight.blocked:
            continue
        for i, tensor in enumerate(tensors):
            inner = tensor.shape[-2 if weights.is_transposed(tensor) else -1]
            if inner > MAX_INNER:
                reject(f"{name}[{i}]", f"at most {MAX_INNER} long in its contiguous dimension", inner)


def check_tuning(value: object, max_rows: int) -> None:
    if value is None:
        return
    if not isinstance(value, (list, tuple)):
        reject_type("tuning_config", "a list of int or None", value)
    for i, item in enumerate(value):
        if isinstance(item, bool) or not isinstance(item, int):
            reject_type(f"tuning_config[{i}]", "an int", item)
    if value and not 0 <= value[0] <= max_rows:
        reject("tuning_config[0]", f"in [0, {max_rows}] (the rows of x)", value[0])


def parameter(
    r: Request,
    name: str,
    dtypes: Sequence[torch.dtype],
    *,
    grouped: bool = False,
    row_only: bool = False,
) -> list[torch.Tensor] | None:
    """The tensors of a per-column parameter, contiguous. ``grouped`` allows a dimension of k-groups;
    without it that dimension may be 1. ``row_only`` forbids a stacked parameter without it."""
    tensors = r.given[name]
    if tensors is None:
        return None
    count = len(r.weight.tensors)
    if len(tensors) != count:
        reject(name, f"a list of {count} tensors, as long as weight", f"{len(tensors)} tensors")
    checked = []
    for i, tensor in enumerate(tensors):
        label = name if count == 1 else f"{name}[{i}]"
        arguments.tensor(label, tensor, dtypes)
        columns = Dim(r.weight.n[i], "n of weight")
        one = Dim(1, "k-groups", at_least=grouped)
        leading = [Dim(r.weight.num_experts, "experts of weight")] if r.weight.is_stacked else []
        alternatives = [(*leading, one, columns)]
        if not row_only:
            alternatives.insert(0, (*leading, columns))
        arguments.shaped(label, tensor, *alternatives)
        checked.append(tensor.contiguous())
    return checked


def k_groups(r: Request, table: torch.Tensor) -> int:
    """The number of k-groups of a tensor of a per-group parameter."""
    return table.shape[-2] if table.dim() == (3 if r.weight.is_stacked else 2) else 1


def per_token(r: Request) -> torch.Tensor | None:
    """per_token_scale as a contiguous float32 [rows]."""
    tensors = r.given["per_token_scale"]
    if tensors is None:
        return None
    if len(tensors) != 1:
        reject("per_token_scale", "a list of one tensor", f"{len(tensors)} tensors")
    scale = arguments.tensor("per_token_scale", tensors[0], (torch.float32,))
    rows = Dim(r.rows, "rows of x")
    column = [(rows, Dim(1, "one"))] if r.kind is not Kind.INT8 else []
    arguments.shaped("per_token_scale", scale, (rows,), *column)
    return (scale if scale.dim() == 1 else scale.reshape(-1)).contiguous()
