"""Which parameters each combination of activation and weight dtype of npu_grouped_matmul takes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch

from moe_jit.checks import reject

from . import arguments
from .matmul_arguments import GroupType, Kind, Request, k_groups, parameter, per_token

MAX_INT4_DEPTH = 18432
INT4_GROUP = 256
_FP32 = (torch.float32,)
_PACKED_SCALES = (torch.int64, torch.uint64)
_16BIT = (torch.float16, torch.bfloat16)


class Parameters(NamedTuple):
    """Checked parameters in the order of the module's arguments, and what to compute."""

    bias: list[torch.Tensor] | None
    scale: list[torch.Tensor] | None
    offset: list[torch.Tensor] | None
    antiquant_scale: list[torch.Tensor] | None
    antiquant_offset: list[torch.Tensor] | None
    per_token_scale: torch.Tensor | None
    output_dtype: torch.dtype
    act_type: int


def check(r: Request) -> Parameters:
    rules: dict[Kind, Callable[[Request], Parameters]] = {
        Kind.FLOAT: _float,
        Kind.ANTIQUANT: _antiquant,
        Kind.INT8: _int8,
        Kind.INT8_INT4: _int8_int4,
        Kind.INT4: _int4,
    }
    if r.groups.kind == 2 and not (r.kind is Kind.INT8 and r.group_type is GroupType.ROWS):
        reject("group_list_type", "0 or 1 unless x and weight are int8 and group_type is 0", 2)
    if r.groups.kind == 2 and not r.one_output:
        reject("group_list_type", f"0 or 1 with split_item {r.split_item}", 2)
    return rules[r.kind](r)


def _require_absent(r: Request, *names: str) -> None:
    for name in names:
        if r.given[name] is not None:
            reject(name, f"None where x is {r.x[0].dtype} and weight {r.weight.tensors[0].dtype}", "a list")


def _bias_dtype(r: Request) -> tuple[torch.dtype, ...]:
    return (torch.float16,) if r.x[0].dtype == torch.float16 else _FP32


def _same_output(r: Request) -> torch.dtype:
    dtype = r.x[0].dtype
    if r.output_dtype not in (None, dtype):
        reject("output_dtype", f"None or {dtype}, the dtype of x", r.output_dtype)
    return dtype


def _no_activation(r: Request) -> None:
    if r.act_type:
        reject("act_type", f"0 where x is {r.x[0].dtype}", r.act_type)


def _float(r: Request) -> Parameters:
    _require_absent(r, "scale", "offset", "antiquant_scale", "antiquant_offset", "per_token_scale")
    _no_activation(r)
    if r.group_type is GroupType.DEPTH and r.given["bias"] is not None:
        reject("bias", "None with group_type 2", "a list")
    bias = parameter(r, "bias", _bias_dtype(r))
    return Parameters(bias, None, None, None, None, None, _same_output(r), 0)


def _antiquant(r: Request) -> Parameters:
    _require_absent(r, "scale", "offset", "per_token_scale")
    _no_activation(r)
    if r.given["antiquant_scale"] is None:
        reject("antiquant_scale", f"given where weight is {r.weight.tensors[0].dtype}", None)
    dtype = (r.x[0].dtype,)
    packed = r.weight.packed
    scale = parameter(r, "antiquant_scale", dtype, grouped=packed)
    offset = parameter(r, "antiquant_offset", dtype, grouped=packed)
    assert scale is not None
    groups = [k_groups(r, table) for table in scale]
    if offset is not None and [k_groups(r, table) for table in offset] != groups:
        reject("antiquant_offset", "of antiquant_scale's shape", [tuple(t.shape) for t in offset])
    lengths = [_group_length("antiquant_scale", k, g) for k, g in zip(r.weight.k, groups, strict=True)]
    if max(groups) > 1 and not arguments.all_equal(lengths):
        reject("antiquant_scale", "a list of tensors with equal group lengths", lengths)
    if r.weight.transposed and max(groups) > 1 and lengths[0] % 2:
        reject("antiquant_scale", "with groups of even length where weight is transposed", lengths[0])
    bias = parameter(r, "bias", _bias_dtype(r))
    return Parameters(bias, None, None, scale, offset, None, _same_output(r), 0)


def _group_length(name: str, k: int, groups: int) -> int:
    if k % groups:
        reject(name, f"with a number of k-groups that divides {k} (k)", groups)
    return k // groups


def _require_one_x(r: Request) -> None:
    if len(r.x) != 1:
        reject("x", f"a list of one tensor where it is {r.x[0].dtype}", f"{len(r.x)} tensors")


def _int8(r: Request) -> Parameters:
    _require_one_x(r)
    _require_absent(r, "offset", "antiquant_scale", "antiquant_offset")
    output = torch.int8 if r.output_dtype is None else r.output_dtype
    scales = {
        torch.int8: _PACKED_SCALES,
        torch.int32: (),
        torch.bfloat16: (torch.bfloat16, torch.float32),
        torch.float16: _FP32,
    }
    if output not in scales:
        reject("output_dtype", "int8, int32, bfloat16 or float16 where x and weight are int8", output)
    has_per_token = r.given["per_token_scale"] is not None
    if has_per_token and output not in _16BIT:
        reject("per_token_scale", f"None with output_dtype {output}", "a list")
    if output == torch.int32:
        if r.given["scale"] is not None:
            reject("scale", "None with output_dtype torch.int32", "a list")
    elif r.given["scale"] is None:
        reject("scale", f"given with output_dtype {output}", None)
    floats = (torch.bfloat16,) if output == torch.bfloat16 and has_per_token else ()
    return Parameters(
        parameter(r, "bias", (torch.int32, *floats)),
        parameter(r, "scale", scales[output]),
        None,
        None,
        None,
        per_token(r),
        output,
        r.act_type if output in _16BIT else _ignored_activation(r),
    )


def _ignored_activation(r: Request) -> int:
    if r.act_type:
        warnings.warn(f"act_type {r.act_type} has no effect on this combination of dtypes", stacklevel=2)
    return 0


def _int4_output(r: Request) -> torch.dtype:
    if r.output_dtype not in _16BIT:
        reject("output_dtype", "torch.bfloat16 or torch.float16 where weight is int4", r.output_dtype)
    assert r.output_dtype is not None
    return r.output_dtype


def _require_stacked(r: Request) -> None:
    _require_one_x(r)
    if r.group_type is not GroupType.ROWS:
        reject("group_type", f"0 where x is {r.x[0].dtype} and weight int4", r.group_type.value)
    if not r.weight.is_stacked:
        reject("weight", f"one tensor [experts, k, n] where x is {r.x[0].dtype}", "a list of matrices")
    if r.weight.transposed:
        reject("weight", f"not transposed where x is {r.x[0].dtype} and weight int4", "a transposed view")


def _int8_int4(r: Request) -> Parameters:
    _require_stacked(r)
    _require_absent(r, "antiquant_scale", "antiquant_offset")
    output = _int4_output(r)
    if r.groups.kind != 1:
        reject("group_list_type", "1 (counts) where x is int8 and weight int4", r.groups.kind)
    check_int8_int4_sizes(r.weight.k[0], r.weight.n[0], r.weight.blocked)
    if r.given["scale"] is None:
        reject("scale", "given where weight is int4", None)
    scale = parameter(r, "scale", _PACKED_SCALES, grouped=True)
    assert scale is not None
    check_int4_groups("scale", r.weight.k[0], k_groups(r, scale[0]))
    if r.given["offset"] is not None and output != torch.float16:
        reject("offset", f"None with output_dtype {output}", "a list")
    return Parameters(
        parameter(r, "bias", _FP32),
        scale,
        parameter(r, "offset", _FP32, row_only=True),
        None,
        None,
        per_token(r),
        output,
        _ignored_activation(r),
    )


def check_int8_int4_sizes(k: int, n: int, blocked: bool, weight: str = "weight") -> None:
    if k % 64 or k > MAX_INT4_DEPTH:
        reject("x.shape[-1]", f"a multiple of 64, at most {MAX_INT4_DEPTH}, where weight is int4", k)
    if n % (64 if blocked else 8):
        reject(f"n of {weight}", f"a multiple of {64 if blocked else 8}", n)


def check_int4_groups(name: str, k: int, groups: int) -> None:
    if _group_length(name, k, groups) != INT4_GROUP and groups > 1:
        reject(name, f"with one row, or one for each {INT4_GROUP} of k = {k}", f"{groups} rows")


def _int4(r: Request) -> Parameters:
    _require_stacked(r)
    _require_absent(r, "bias", "offset", "antiquant_scale", "antiquant_offset")
    output = _int4_output(r)
    if r.given["scale"] is None:
        reject("scale", "given where weight is int4", None)
    scale = parameter(r, "scale", _PACKED_SCALES, grouped=True)
    assert scale is not None
    length = _group_length("scale", r.weight.k[0], k_groups(r, scale[0]))
    if length % 2:
        reject("scale", "with groups of even length", length)
    activation = _ignored_activation(r)
    return Parameters(None, scale, None, None, None, per_token(r), output, activation)
