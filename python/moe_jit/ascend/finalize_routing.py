"""npu_grouped_matmul_finalize_routing: a grouped product whose rows are added to their tokens."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, cast

import torch

from moe_jit import checks
from moe_jit.backends import chosen
from moe_jit.checks import Dim, reject

from . import arguments, backends, cuda_plan, group_list, weights
from .group_list import GroupList
from .matmul_arguments import GroupType, Kind, Request, check_tuning
from .matmul_rules import Parameters, check_int4_groups, check_int8_int4_sizes
from .operators import Operator
from .signatures import INVALID_CALL, described, remember, same_tensors, typed
from .weights import Weight

_FP32 = (torch.float32,)
_INDICES = (torch.int32, torch.int64)
_MIN_N = 256
_UNAVAILABLE = ("x_dtype", "w_dtype", "scale_dtype", "pertoken_scale_dtype")


class _Call(NamedTuple):
    x: torch.Tensor
    weight: Weight
    groups: GroupList
    scale: torch.Tensor
    bias: torch.Tensor | None
    offset: torch.Tensor | None
    pertoken_scale: torch.Tensor | None
    shared_input: torch.Tensor | None
    logit: torch.Tensor | None
    row_index: torch.Tensor
    output_rows: int
    shared_input_weight: float
    shared_input_offset: int
    kind: Kind


def npu_grouped_matmul_finalize_routing(
    x: torch.Tensor,
    w: torch.Tensor,
    group_list: torch.Tensor,
    *,
    scale: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    offset: torch.Tensor | None = None,
    antiquant_scale: torch.Tensor | None = None,
    antiquant_offset: torch.Tensor | None = None,
    pertoken_scale: torch.Tensor | None = None,
    shared_input: torch.Tensor | None = None,
    logit: torch.Tensor | None = None,
    row_index: torch.Tensor | None = None,
    dtype: torch.dtype | None = None,
    shared_input_weight: float | None = 1.0,
    shared_input_offset: int | None = 0,
    output_bs: int | None = 0,
    group_list_type: int | None = 1,
    tuning_config: list[int] | None = None,
    x_dtype: int | None = None,
    w_dtype: int | None = None,
    scale_dtype: int | None = None,
    pertoken_scale_dtype: int | None = None,
) -> torch.Tensor:
    """Multiply each group of rows with its weight and add every row to row ``row_index`` of the output.

    y = 0; y[o : o + L] = shared_input_weight * shared_input; then for each row i of a group, in ascending
    order and in float32,

        int8 w: y[row_index[i]] += ((x[i] @ w) * scale) * (logit[i] * pertoken_scale[i]) + bias * logit[i]
        int4 w: y[row_index[i]] += ((x[i] - 8) @ (w * scale) + bias + sum(x[i]) * offset)
                                   * (logit[i] * pertoken_scale[i])

    The order makes results repeatable. Rows after the last group are not read.

    Args:
        x: [m, k] int8.
        w: [E, k, n] int8, or int4 packed in int32 [E, k, n / 8]; plain, blocked (``nd_to_nz``), and if int8
            also a transposed view. int8: k a multiple of 16, n of 32 and at least 256; int4: k a multiple of
            64 above 128, n a multiple of 8 (blocked: 64) above 64.
        group_list: [E] int64.
        scale: [E, n] float32 or bfloat16; with int4 w int64 (float32 bits in the low word) [E, 1, n], [E, n],
            or [E, k / 256, n].
        bias: [E, n]; bfloat16, or float32 with int4 w, where it is meant to be 8 * sum_k(w * scale); without
            it nothing is subtracted from x.
        offset: [E, 1, n] float32 with int4 w.
        antiquant_scale, antiquant_offset: None.
        pertoken_scale, logit: [m] float32; None means 1. logit is in the order of the rows of x.
        shared_input: [L, n] bfloat16, float16 or float32, placed at ``shared_input_offset``.
        row_index: [m] int32 or int64 (int64 with int4 w), required; a row may be named any number of times.
            Rows outside the output contribute nothing.
        dtype: None or torch.float32.
        output_bs: rows of the output, at most m; 0 means m.
        group_list_type: 0 cumulative ends, 1 counts.
        tuning_config: no effect on the result.
        x_dtype, w_dtype, scale_dtype, pertoken_scale_dtype: None.

    Returns:
        float32 [output_bs, n].

    Raises:
        TypeError, ValueError: naming the argument.

    Source of the definition: torch_npu's operator of this name on Atlas A2 and A3.
    """
    output: torch.Tensor = _operator(
        x,
        w,
        group_list,
        scale=scale,
        bias=bias,
        offset=offset,
        antiquant_scale=antiquant_scale,
        antiquant_offset=antiquant_offset,
        pertoken_scale=pertoken_scale,
        shared_input=shared_input,
        logit=logit,
        row_index=row_index,
        dtype=dtype,
        shared_input_weight=shared_input_weight,
        shared_input_offset=shared_input_offset,
        output_bs=output_bs,
        group_list_type=group_list_type,
        tuning_config=tuning_config,
        x_dtype=x_dtype,
        w_dtype=w_dtype,
        scale_dtype=scale_dtype,
        pertoken_scale_dtype=pertoken_scale_dtype,
    )
    return output


def _check(x: torch.Tensor, w: torch.Tensor, groups: torch.Tensor, given: dict[str, Any]) -> _Call:
    arguments.tensor("x", x, (torch.int8,))
    if x.dim() != 2 or x.numel() == 0:
        reject("x", "of shape [m, k], not empty", f"shape {tuple(x.shape)}")
    for name in ("antiquant_scale", "antiquant_offset", *_UNAVAILABLE):
        arguments.absent(name, given[name], "not available")
    if arguments.optional_dtype("dtype", given["dtype"]) not in (None, torch.float32):
        raise ValueError(f"The dtype should be float; got dtype {given['dtype']}")
    weight = _check_weight(x, w, given["scale"])
    divided = _check_groups(x, weight, groups, given["group_list_type"])
    check_tuning(given["tuning_config"], x.shape[0])
    output_rows = _output_rows(x, given["output_bs"])
    index_dtypes = _INDICES[1:] if weight.packed else _INDICES
    row_index = _row_vector("row_index", given["row_index"], index_dtypes, x, required=True)
    assert row_index is not None
    shared, shared_offset = _check_shared(x, weight, given, output_rows)
    shared_weight = given["shared_input_weight"]
    return _Call(
        x.contiguous(),
        weight,
        divided,
        *_check_parameters(x, weight, given),
        _row_vector("pertoken_scale", given["pertoken_scale"], _FP32, x),
        shared,
        _row_vector("logit", given["logit"], _FP32, x),
        row_index,
        output_rows,
        1.0 if shared_weight is None else checks.finite("shared_input_weight", shared_weight),
        shared_offset,
        Kind.INT8_INT4 if weight.packed else Kind.INT8,
    )


def _check_weight(x: torch.Tensor, w: torch.Tensor, scale: object) -> Weight:
    arguments.tensor("w", w, (torch.int8, torch.int32), x.device)
    if w.dim() not in (3, 5):
        expected = "of shape [experts, k, n], or blocked [experts, n1, k1, 16, n0]"
        reject("w", expected, f"shape {tuple(w.shape)}")
    columns = scale.shape[-1] if isinstance(scale, torch.Tensor) and scale.dim() > 1 else None
    weight = weights.describe([w], [x.shape[1]], [columns], "w")
    k, n = x.shape[1], weight.n[0]
    if weight.packed:
        if weight.transposed:
            reject("w", "not transposed where it is int4", "a transposed view")
        check_int8_int4_sizes(k, n, weight.blocked, "w")
        if k <= 128:
            reject("x.shape[-1]", "above 128 where w is int4", k)
        if n <= 64:
            reject("n of w", "above 64 where it is int4", n)
    else:
        checks.multiple("x.shape[-1]", k, 16, "k")
        checks.multiple("n of w", n, 32, "n")
        if n < _MIN_N:
            reject("n of w", f"at least {_MIN_N}", n)
    return weight


def _check_groups(x: torch.Tensor, weight: Weight, groups: torch.Tensor, kind: object) -> GroupList:
    checked_kind = arguments.one_of("group_list_type", 1 if kind is None else kind, (0, 1))
    checks.is_tensor("group_list", groups)
    divided = group_list.check(groups, checked_kind, x.shape[0], "the rows of x", x.device)
    if divided.num_groups != weight.num_experts:
        reject("group_list", f"of {weight.num_experts} groups (w)", f"{divided.num_groups} groups")
    return divided


def _output_rows(x: torch.Tensor, value: Any) -> int:
    if isinstance(value, torch.SymInt):  # traced, and known only when the operator runs
        return cast("int", value)
    rows = checks.integer("output_bs", 0 if value is None else value, 0, x.shape[0], "the rows of x")
    return rows or x.shape[0]


def _row_vector(
    name: str, value: object, dtypes: tuple[torch.dtype, ...], x: torch.Tensor, *, required: bool = False
) -> torch.Tensor | None:
    if value is None and not required:
        return None
    vector = arguments.tensor(name, value, dtypes, x.device)
    return arguments.shaped(name, vector, (Dim(x.shape[0], "x.shape[0]"),)).contiguous()


def _check_parameters(
    x: torch.Tensor, weight: Weight, given: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """scale, bias and offset."""
    experts, columns = Dim(weight.num_experts, "experts of w"), Dim(weight.n[0], "n of w")
    one = Dim(1, "one")
    scale_dtypes = (torch.int64, torch.uint64) if weight.packed else (torch.float32, torch.bfloat16)
    if given["scale"] is None:
        reject("scale", "given", None)
    scale = arguments.tensor("scale", given["scale"], scale_dtypes, x.device)
    grouped = [(experts, one._replace(at_least=True), columns)] if weight.packed else []
    arguments.shaped("scale", scale, (experts, columns), *grouped)
    if weight.packed:
        check_int4_groups("scale", x.shape[1], scale.shape[1] if scale.dim() == 3 else 1)
    bias, offset = given["bias"], given["offset"]
    if bias is not None:
        arguments.tensor("bias", bias, _FP32 if weight.packed else (torch.bfloat16,), x.device)
        bias = arguments.shaped("bias", bias, (experts, columns)).contiguous()
    if offset is not None:
        if not weight.packed:
            arguments.absent("offset", offset, "w is int8")
        arguments.tensor("offset", offset, _FP32, x.device)
        offset = arguments.shaped("offset", offset, (experts, one, columns)).contiguous()
    return scale.contiguous(), bias, offset


def _check_shared(
    x: torch.Tensor, weight: Weight, given: dict[str, Any], output_rows: int
) -> tuple[torch.Tensor | None, int]:
    offset = given["shared_input_offset"]
    offset = checks.integer("shared_input_offset", 0 if offset is None else offset, 0)
    shared = given["shared_input"]
    if shared is None:
        return None, 0
    floats = (torch.bfloat16, torch.float16, torch.float32)
    arguments.tensor("shared_input", shared, floats, x.device)
    if shared.dim() != 2 or shared.shape[1] != weight.n[0] or shared.shape[0] == 0:
        reject("shared_input", f"of shape [rows, {weight.n[0]} (n of w)]", f"shape {tuple(shared.shape)}")
    if shared.shape[0] > output_rows:
        reject("shared_input", f"of at most {output_rows} rows (output_bs)", f"shape {tuple(shared.shape)}")
    room = output_rows - shared.shape[0]
    checks.integer("shared_input_offset", offset, 0, room, "output_bs - rows of shared_input")
    return shared.contiguous(), offset


def _empty(call: _Call) -> torch.Tensor:
    return call.x.new_empty((call.output_rows, call.weight.n[0]), dtype=torch.float32)


def _allocate(x: torch.Tensor, w: torch.Tensor, group_list: torch.Tensor, **given: Any) -> torch.Tensor:
    return _empty(_check(x, w, group_list, given))


class _Plan(NamedTuple):
    """What is known of a call without its tensors; ``options`` are the last fields of ``_Call``."""

    weight: Weight
    groups: GroupList
    options: tuple[Any, ...]
    functions: tuple[Callable[..., Any], ...]


_plans: dict[Hashable, _Plan] = {}


def _signature(x: Any, w: Any, group_list: Any, given: dict[str, Any]) -> Hashable:
    tensors = (x, w, group_list, *[given[name] for name in _TENSORS])
    return chosen(), described(tensors), typed(given[name] for name in _SCALARS)


def _run(x: torch.Tensor, w: torch.Tensor, group_list: torch.Tensor, **given: Any) -> torch.Tensor:
    signature = plan = None
    if all(given[name] is None for name in _RARE):
        with suppress(*INVALID_CALL):  # checks say which argument is wrong
            signature = _signature(x, w, group_list, given)
            plan = _plans.get(signature)
    tensors = [given[name] for name in _TENSORS]
    if plan is not None:
        weight, groups = plan.weight._replace(tensors=(w,)), plan.groups._replace(values=group_list)
        return _launch(_Call(x, weight, groups, *tensors, *plan.options), plan.functions)
    call = _check(x, w, group_list, given)
    functions = _functions(call, given["tuning_config"])
    first = _Call._fields.index(_TENSORS[0])
    passed, options = call[first : first + len(_TENSORS)], call[first + len(_TENSORS) :]
    if signature is not None and same_tensors((call.x, *passed), (x, *tensors)):
        weight, groups = call.weight._replace(tensors=()), call.groups._replace(values=None)
        remember(_plans, signature, _Plan(weight, groups, options, functions))
    return _launch(call, functions)


def _functions(call: _Call, tuning_config: Sequence[int] | None) -> tuple[Callable[..., Any], ...]:
    device = call.x.device
    if device.type != "cuda":
        return (
            backends.function_for(
                "grouped_matmul_finalize_routing", device, "x", tuning_config=tuning_config
            ),
        )
    request = Request(
        call.kind, [call.x], [tuple(call.x.shape)], call.weight, {}, call.groups, GroupType.ROWS, 3, 0, None
    )
    bias, scale, offset = _product_parameters(call)
    parameters = Parameters(bias, scale, offset, None, None, None, torch.float32, 0)
    product = backends.function_for(
        "grouped_matmul", device, "x", lambda target: cuda_plan.module_for(request, parameters, target)
    )
    return product, backends.function_for("ordered_sum", device, "x")


def _launch(call: _Call, functions: tuple[Callable[..., Any], ...]) -> torch.Tensor:
    if len(functions) == 2:
        return _run_on_gpu(call, *functions)
    y = _empty(call)
    functions[0](
        call.x,
        list(call.weight.tensors),
        call.groups.on(call.x.device),
        [_packed_as_int64(call.scale)],
        None if call.bias is None else [call.bias],
        None if call.offset is None else [call.offset],
        call.pertoken_scale,
        call.shared_input,
        call.logit,
        call.row_index,
        y,
        call.shared_input_weight,
        call.shared_input_offset,
        int(call.kind),
        call.groups.kind,
        call.weight.transposed,
    )
    return y


def _packed_as_int64(scale: torch.Tensor) -> torch.Tensor:
    return scale.view(torch.int64) if scale.dtype == torch.uint64 else scale


def _product_parameters(
    call: _Call,
) -> tuple[list[torch.Tensor] | None, list[torch.Tensor], list[torch.Tensor] | None]:
    """bias, scale and offset of the product on a GPU. The bias of int8 weights counts with the logit and so
    belongs to the sum."""
    bias = [call.bias] if call.kind is Kind.INT8_INT4 and call.bias is not None else None
    return bias, [_packed_as_int64(call.scale)], None if call.offset is None else [call.offset]


def _run_on_gpu(call: _Call, product: Callable[..., Any], ordered_sum: Callable[..., Any]) -> torch.Tensor:
    """The grouped product in float32, then its rows, weighed, in the order of the rows."""
    groups = call.groups.on(call.x.device)
    rows = call.x.new_empty((call.x.shape[0], call.weight.n[0]), dtype=torch.float32)
    settings = (int(call.kind), int(GroupType.ROWS), call.groups.kind, 0, call.weight.transposed)
    parameters = (*_product_parameters(call), None, None, None)
    product([call.x], list(call.weight.tensors), *parameters, groups, [rows], *settings)
    y = _empty(call)
    ordered_sum(
        rows,
        call.row_index,
        groups,
        call.pertoken_scale,
        call.logit,
        None if call.kind is Kind.INT8_INT4 else call.bias,
        call.shared_input,
        y,
        call.shared_input_weight,
        call.shared_input_offset,
        call.groups.kind,
    )
    return y


# Fields of _Call, in its order.
_TENSORS = ("scale", "bias", "offset", "pertoken_scale", "shared_input", "logit", "row_index")
_SCALARS = ("dtype", "shared_input_weight", "shared_input_offset", "output_bs", "group_list_type")
_RARE = ("antiquant_scale", "antiquant_offset", "tuning_config", *_UNAVAILABLE)
_operator = Operator(
    "npu_grouped_matmul_finalize_routing(Tensor x, Tensor w, Tensor group_list, *, Tensor? scale=None, "
    "Tensor? bias=None, Tensor? offset=None, Tensor? antiquant_scale=None, Tensor? antiquant_offset=None, "
    "Tensor? pertoken_scale=None, Tensor? shared_input=None, Tensor? logit=None, Tensor? row_index=None, "
    "ScalarType? dtype=None, float? shared_input_weight=1.0, int? shared_input_offset=0, "
    "SymInt? output_bs=0, int? group_list_type=1, int[]? tuning_config=None, int? x_dtype=None, "
    "int? w_dtype=None, int? scale_dtype=None, int? pertoken_scale_dtype=None) -> Tensor",
    _run,
    _allocate,
)
