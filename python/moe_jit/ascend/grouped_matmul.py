"""npu_grouped_matmul: one matrix product for each group of rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch

from moe_jit.backends import chosen

from . import backends, cuda_plan, matmul_rules
from .matmul_arguments import GroupType, Request, request
from .matmul_rules import Parameters
from .operators import Operator
from .signatures import INVALID_CALL, described, remember, same_tensors, typed


def npu_grouped_matmul(
    x: list[torch.Tensor],
    weight: list[torch.Tensor],
    *,
    bias: list[torch.Tensor] | None = None,
    scale: list[torch.Tensor] | None = None,
    offset: list[torch.Tensor] | None = None,
    antiquant_scale: list[torch.Tensor] | None = None,
    antiquant_offset: list[torch.Tensor] | None = None,
    per_token_scale: list[torch.Tensor] | None = None,
    group_list: torch.Tensor | list[int] | None = None,
    activation_input: list[torch.Tensor] | None = None,
    activation_quant_scale: list[torch.Tensor] | None = None,
    activation_quant_offset: list[torch.Tensor] | None = None,
    split_item: int | None = 0,
    group_type: int | None = None,
    group_list_type: int | None = 0,
    act_type: int | None = 0,
    tuning_config: list[int] | None = None,
    output_dtype: torch.dtype | None = None,
    x_dtype: int | None = None,
    weight_dtype: int | None = None,
    scale_dtype: int | None = None,
    per_token_scale_dtype: int | None = None,
) -> list[torch.Tensor]:
    """Multiply each group of rows of ``x`` with its own weight.

    | x | weight | output | value, in float32 after an exact integer product |
    |---|---|---|---|
    | float16, bfloat16, float32 | same | same | x @ w + bias |
    | float16, bfloat16 | int8, int4 | as x | x @ ((w + antiquant_offset) * antiquant_scale) + bias |
    | int8 | int8 | int32 | x @ w + bias |
    | int8 | int8 | int8 | requantised: int64 scales of npu_trans_quant_param |
    | int8 | int8 | bfloat16, float16 | act(((x @ w + bias) * scale) * per_token_scale) |
    | int8 | int4 | bfloat16, float16 | ((x - 8) @ (w * scale) + bias + sum(x) * offset) * per_token_scale |
    | int4 | int4 | bfloat16, float16 | (x @ (w * scale)) * per_token_scale |

    int4 tensors are int32 of eight elements, see ``npu_quantize`` and ``npu_convert_weight_to_int4pack``.
    With int4 weights and int8 ``x``, ``bias`` is meant to be 8 * sum_k(w * scale), which cancels the -8;
    without ``bias`` nothing is subtracted.

    Args:
        x: one tensor [m, k], or one for each group.
        weight: one tensor [E, k, n], or one [k, n] for each group; contiguous, a transposed view, or blocked
            (``nd_to_nz``), where n is that of scale, bias or antiquant_scale, or else includes the padding.
        bias: as weight, [E, n] or [n] each. float16 with float16 x; float32 with bfloat16, float32 and int4;
            int32 (added to the integer product) with int8, or bfloat16 (added after the scales) with a
            bfloat16 output and per_token_scale.
        scale: as weight, [E, n] or [n] each. int64 for int8 and int4 results, bfloat16 or float32 for
            bfloat16, float32 for float16. int4: the float32 bits in the low word; [E, G, n] for G groups
            of k.
        offset: int4 weights and float16 output only, float32 [E, 1, n].
        antiquant_scale, antiquant_offset: dtype of x, [E, n] or [n] each; int4 also [E, G, n] or [G, n].
        per_token_scale: one float32 tensor [m].
        group_list: int64 tensor on x's device, or a list of cumulative ends. Not read on the host, except for
            ``split_item`` 0 or 1 with one x and a tensor, where it determines the outputs' shapes.
        activation_input, activation_quant_scale, activation_quant_offset: None.
        split_item: 0 or 1 gives one output for each group, 2 or 3 gives one.
        group_type: -1 none (each x has its weight), 0 rows, 2 the reduction dimension (each group is a range
            of k; x is usually a transposed view). None means -1 where group_list is None.
        group_list_type: 0 cumulative ends, 1 counts, 2 pairs (expert, count) up to the first empty one, for
            int8 x and weight with one output. int8 x and int4 weight take counts.
        act_type: 0 none, 1 ReLU, 2 GELU (tanh), 4 x * sigmoid(1.702 x), 5 SiLU; for int8 x and weight with
            a 16-bit output. Has no effect (a warning) on other outputs of quantised operands.
        tuning_config: the expected rows of a group first; no effect on the result.
        output_dtype: None means the dtype of x.
        x_dtype, weight_dtype, scale_dtype, per_token_scale_dtype: None.

    Returns:
        A list of tensors: [m, n], or [E, m, n] for group_type 2, or one for each group. Rows of no
        group are 0.

    Raises:
        TypeError, ValueError: naming the argument.

    Source of the definition: torch_npu's operator of this name on Atlas A2 and A3.
    """
    outputs: list[torch.Tensor] = _operator(
        x,
        weight,
        bias=bias,
        scale=scale,
        offset=offset,
        antiquant_scale=antiquant_scale,
        antiquant_offset=antiquant_offset,
        per_token_scale=per_token_scale,
        group_list=group_list if group_list is None or isinstance(group_list, torch.Tensor) else None,
        activation_input=activation_input,
        activation_quant_scale=activation_quant_scale,
        activation_quant_offset=activation_quant_offset,
        split_item=split_item,
        group_type=group_type,
        group_list_type=group_list_type,
        act_type=act_type,
        tuning_config=tuning_config,
        output_dtype=output_dtype,
        x_dtype=x_dtype,
        weight_dtype=weight_dtype,
        scale_dtype=scale_dtype,
        per_token_scale_dtype=per_token_scale_dtype,
        group_ends=None if isinstance(group_list, torch.Tensor) else group_list,
    )
    return outputs


def _check(x: object, weight: object, given: dict[str, Any]) -> tuple[Request, Parameters]:
    if given["group_ends"] is not None:
        given = given | {"group_list": given["group_ends"]}
    checked = request(x, weight, given)
    return checked, matmul_rules.check(checked)


def _shapes(r: Request) -> list[tuple[int, ...]]:
    n = r.weight.n
    if r.group_type is GroupType.NONE:
        return [(*shape[:-1], columns) for shape, columns in zip(r.x_shapes, n, strict=True)]
    if r.group_type is GroupType.DEPTH:
        rows = r.x[0].shape[0]
        return [(r.groups.num_groups, rows, n[0])] if r.one_output else [(rows, columns) for columns in n]
    if r.one_output:
        return [(r.rows, n[0])]
    return list(zip(r.groups.sizes(r.rows), n, strict=True))


class _Plan(NamedTuple):
    """A call whose arguments go to the module as they are; only tensors may differ from call to call."""

    function: Callable[..., Any]
    shape: tuple[int, ...]
    output_dtype: torch.dtype
    settings: tuple[int | bool, ...]


_plans: dict[Hashable, _Plan] = {}


def _signature(x: Any, weight: Any, given: dict[str, Any]) -> Hashable:
    return (
        chosen(),
        described(x),
        described(weight, cuda_plan.LISTED_ALIGNMENT),
        *[None if given[name] is None else described(given[name]) for name in _LISTS],
        described((given["group_list"],)),
        typed(given[name] for name in _SCALARS),
    )


def _is_plain(given: dict[str, Any]) -> bool:
    return isinstance(given["group_list"], torch.Tensor) and all(given[name] is None for name in _RARE)


def _allocate(x: object, weight: object, **given: Any) -> list[torch.Tensor]:
    r, p = _check(x, weight, given)
    return [r.x[0].new_empty(shape, dtype=p.output_dtype) for shape in _shapes(r)]


def _run(x: Any, weight: Any, **given: Any) -> list[torch.Tensor]:
    signature = None
    if _is_plain(given):
        try:
            signature = _signature(x, weight, given)
            plan = _plans.get(signature)
        except INVALID_CALL:  # checks say which argument is wrong
            signature = plan = None
        if plan is not None:
            y = x[0].new_empty(plan.shape, dtype=plan.output_dtype)
            token = given["per_token_scale"]
            lists = [given[name] for name in _LISTS[:-1]]
            token = None if token is None else token[0]
            plan.function(x, weight, *lists, token, given["group_list"], [y], *plan.settings)
            return [y]
    return _run_checked(x, weight, given, signature)


def _run_checked(x: Any, weight: Any, given: dict[str, Any], signature: Hashable) -> list[torch.Tensor]:
    r, p = _check(x, weight, given)
    device = r.x[0].device
    function = backends.function_for(
        "grouped_matmul",
        device,
        "x",
        lambda target: cuda_plan.module_for(r, p, target),
        given["tuning_config"],
    )
    outputs = [r.x[0].new_empty(shape, dtype=p.output_dtype) for shape in _shapes(r)]
    lists = (p.bias, _as_int64(p.scale), p.offset, p.antiquant_scale, p.antiquant_offset)
    groups = r.groups.on(device)
    settings = (int(r.kind), int(r.group_type), r.groups.kind, p.act_type, r.weight.transposed)
    if not any(output.numel() for output in outputs):
        return outputs
    flat = [output.view(-1, output.shape[-1]) for output in outputs] if r.group_type < 0 else outputs
    function(r.x, list(r.weight.tensors), *lists, p.per_token_scale, groups, flat, *settings)
    warned = given["act_type"] and not p.act_type
    if signature is not None and r.one_output and not warned:
        passed = (r.x, *lists, None if p.per_token_scale is None else [p.per_token_scale], [groups])
        received = (x, *(given[name] for name in _LISTS), [given["group_list"]])
        if all(_same_list(a, b) for a, b in zip(passed, received, strict=True)):
            plan = _Plan(function, tuple(outputs[0].shape), p.output_dtype, settings)
            remember(_plans, signature, plan)
    return outputs


def _same_list(a: Any, b: Any) -> bool:
    return a is b if a is None or b is None else len(a) == len(b) and same_tensors(a, b)


def _as_int64(scale: list[torch.Tensor] | None) -> list[torch.Tensor] | None:
    if scale is None or scale[0].dtype != torch.uint64:
        return scale
    return [t.view(torch.int64) for t in scale]


_LISTS = ("bias", "scale", "offset", "antiquant_scale", "antiquant_offset", "per_token_scale")
_SCALARS = ("split_item", "group_type", "group_list_type", "act_type", "output_dtype")
_RARE = (
    "group_ends",
    "tuning_config",
    "activation_input",
    "activation_quant_scale",
    "activation_quant_offset",
    "x_dtype",
    "weight_dtype",
    "scale_dtype",
    "per_token_scale_dtype",
)
_operator = Operator(
    "npu_grouped_matmul(Tensor[] x, Tensor[] weight, *, "
    + "".join(f"Tensor[]? {name}=None, " for name in _LISTS)
    + "Tensor? group_list=None, Tensor[]? activation_input=None, Tensor[]? activation_quant_scale=None, "
    "Tensor[]? activation_quant_offset=None, int? split_item=0, int? group_type=None, "
    "int? group_list_type=0, int? act_type=0, int[]? tuning_config=None, ScalarType? output_dtype=None, "
    "int? x_dtype=None, int? weight_dtype=None, int? scale_dtype=None, int? per_token_scale_dtype=None, "
    "int[]? group_ends=None) -> Tensor[]",
    _run,
    _allocate,
)
