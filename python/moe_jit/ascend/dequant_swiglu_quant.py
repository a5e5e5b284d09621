"""npu_dequant_swiglu_quant: dequantise, apply a gated activation and quantise again, in one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from moe_jit import checks
from moe_jit.checks import Dim, boolean, reject

from . import arguments, backends
from .operators import Operator

_FP32 = (torch.float32,)
_INPUTS = (torch.int32, torch.bfloat16, torch.float16)
_BIASES = (torch.int32, torch.float32, torch.float16, torch.bfloat16)


class _Call(NamedTuple):
    """Checked arguments with the shapes that a module expects."""

    x: torch.Tensor
    weight_scale: torch.Tensor | None
    activation_scale: torch.Tensor | None
    bias: torch.Tensor | None
    quant_scale: torch.Tensor | None
    quant_offset: torch.Tensor | None
    group_index: torch.Tensor | None
    settings: tuple[bool | int | float, ...]
    leading: tuple[int, ...]


def npu_dequant_swiglu_quant(
    x: torch.Tensor,
    *,
    weight_scale: torch.Tensor | None = None,
    activation_scale: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    quant_scale: torch.Tensor | None = None,
    quant_offset: torch.Tensor | None = None,
    group_index: torch.Tensor | None = None,
    activate_left: bool = False,
    quant_mode: int = 0,
    dst_type: torch.dtype | None = None,
    round_mode: int | None = None,
    activate_dim: int | None = None,
    swiglu_mode: int = 0,
    clamp_limit: float = 7.0,
    glu_alpha: float = 1.702,
    glu_bias: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Dequantise rows, apply swish(a) * b to their halves, and quantise to int8.

    With f = (x * weight_scale) * activation_scale + bias for int32 ``x``, and f = x otherwise, all in
    float32: v = swish(a) * b for the halves a, b of f. Without ``group_index`` all rows share one row of
    parameters; with it, group g is the next ``group_index[g]`` rows and uses row g. Rows after the last
    group give zeros.

    Args:
        x: [..., 2H] int32, bfloat16 or float16 (float16 only without ``group_index``).
        weight_scale: [G, 2H] or, for one group, [2H] float32; required for int32 ``x``, else not read.
        activation_scale: one float32 per row, [rows] or [rows, 1]; not read unless ``x`` is int32.
        bias: [2H] or [G, 2H]; int32 is added to x before the scales, float32, float16 or bfloat16 after
            them. Only with int32 ``x``.
        quant_scale: float32. Dynamic: [G, H], multiplies v before quantisation. Static: [G, H] or [G]
            (without groups [H], [1, H] or [1]), divides v.
        quant_offset: static only, of ``quant_scale``'s shape, added after the division.
        group_index: int64, counts [G] or pairs (index, count) [G, 2]. The pairs end at the first count
            that is not positive.
        activate_left: whether the left half goes through swish (default: the right one).
        quant_mode: 0 static, 1 dynamic with one scale per row.
        dst_type, round_mode, activate_dim: None, or int8, 0 and -1, which None means.
        swiglu_mode: 0 as above; 1 to 3 clamp by ``clamp_limit`` (L): 1 takes even and odd columns as a and b,
            2 halves, v = a' / (1 + exp(-glu_alpha * a')) * (b' + glu_bias) with a' = min(a, L) and
            b' = clamp(b, -L, L); 3 is min(swish(a), L) * b'.

    Returns:
        y: int8 [..., H], rounded to nearest even; ``scale``: float32 [...], the row scales, zero when static.
        A row of zeros has y = 0 and scale = 0.

    Raises:
        TypeError, ValueError: naming the argument.

    Source of the definition: torch_npu's operator of this name on Atlas A2 and A3.
    """
    result: tuple[torch.Tensor, torch.Tensor] = _operator(
        x,
        weight_scale=weight_scale,
        activation_scale=activation_scale,
        bias=bias,
        quant_scale=quant_scale,
        quant_offset=quant_offset,
        group_index=group_index,
        activate_left=activate_left,
        quant_mode=quant_mode,
        dst_type=dst_type,
        round_mode=round_mode,
        activate_dim=activate_dim,
        swiglu_mode=swiglu_mode,
        clamp_limit=clamp_limit,
        glu_alpha=glu_alpha,
        glu_bias=glu_bias,
    )
    return result


def _check(x: torch.Tensor, **given: Any) -> _Call:
    arguments.tensor("x", x, _INPUTS)
    if x.dim() < 2:
        reject("x", "of at least 2 dimensions", f"shape {tuple(x.shape)}")
    width = x.shape[-1]
    if width == 0 or width % 2:
        reject("x.shape[-1]", "even and positive (2H)", width)
    dynamic = arguments.one_of("quant_mode", given["quant_mode"], (0, 1)) == 1
    settings = (boolean("activate_left", given["activate_left"]), dynamic, *_check_glu(given))
    groups = _check_groups(x, given)
    is_integer = x.dtype == torch.int32
    return _Call(
        x.reshape(-1, width).contiguous(),
        _check_weight_scale(x, given["weight_scale"], groups) if is_integer else None,
        _check_activation_scale(x, given["activation_scale"]) if is_integer else None,
        _check_bias(x, given["bias"], groups, given["group_index"]),
        *_check_quant(x, given, groups, dynamic),
        None if groups is None else given["group_index"].contiguous(),
        settings,
        tuple(x.shape[:-1]),
    )


def _check_glu(given: dict[str, Any]) -> tuple[int, float, float, float]:
    if arguments.optional_dtype("dst_type", given["dst_type"]) not in (None, torch.int8):
        reject("dst_type", "None or torch.int8", given["dst_type"])
    for name, only in (("round_mode", 0), ("activate_dim", -1)):
        if given[name] is not None:
            arguments.one_of(name, given[name], (only,))
    mode = arguments.one_of("swiglu_mode", given["swiglu_mode"], (0, 1, 2, 3))
    limit = checks.finite("clamp_limit", given["clamp_limit"])
    if limit <= 0:
        reject("clamp_limit", "positive", limit)
    alpha, bias = (checks.finite(name, given[name]) for name in ("glu_alpha", "glu_bias"))
    return mode, limit, alpha, bias


def _check_groups(x: torch.Tensor, given: dict[str, Any]) -> int | None:
    """The number of groups; None without ``group_index``."""
    index = given["group_index"]
    if index is None:
        return None
    arguments.tensor("group_index", index, (torch.int64,), x.device)
    if x.dtype == torch.float16:
        reject("x", "int32 or bfloat16 with group_index", x.dtype)
    if index.dim() not in (1, 2) or (index.dim() == 2 and index.shape[1] != 2):
        reject("group_index", "of shape [groups] or [groups, 2]", f"shape {tuple(index.shape)}")
    if index.shape[0] == 0:
        reject("group_index", "of at least one group", f"shape {tuple(index.shape)}")
    if index.dim() == 2 and given["swiglu_mode"] != 0:
        reject("swiglu_mode", "0 with a group_index of shape [groups, 2]", given["swiglu_mode"])
    return int(index.shape[0])


def _check_weight_scale(x: torch.Tensor, value: object, groups: int | None) -> torch.Tensor:
    if value is None:
        reject("weight_scale", "given for int32 x", None)
    scale = arguments.tensor("weight_scale", value, _FP32, x.device)
    width = Dim(x.shape[-1], "x.shape[-1]")
    count = Dim(groups or 1, "groups")
    alternatives = [(count, width), *([(width,)] if (groups or 1) == 1 else [])]
    return arguments.shaped("weight_scale", scale, *alternatives).reshape(-1, x.shape[-1]).contiguous()


def _check_activation_scale(x: torch.Tensor, value: object) -> torch.Tensor | None:
    if value is None:
        return None
    scale = arguments.tensor("activation_scale", value, _FP32, x.device)
    rows = x.numel() // x.shape[-1]
    if scale.numel() != rows or (scale.dim() > 1 and tuple(scale.shape) not in _row_shapes(x, rows)):
        expected = f"of {rows} elements, one for each row of x: shape [rows] or [rows, 1]"
        reject("activation_scale", expected, f"shape {tuple(scale.shape)}")
    return scale.reshape(-1).contiguous()


def _row_shapes(x: torch.Tensor, rows: int) -> tuple[tuple[int, ...], ...]:
    leading = tuple(x.shape[:-1])
    return (rows, 1), leading, (*leading, 1)


def _check_bias(
    x: torch.Tensor, value: object, groups: int | None, index: torch.Tensor | None
) -> torch.Tensor | None:
    if value is None:
        return None
    if x.dtype != torch.int32:
        arguments.absent("bias", value, f"x is {x.dtype}; a bias needs int32 x")
    if index is not None and index.dim() == 2:
        arguments.absent("bias", value, "group_index has shape [groups, 2]")
    bias = arguments.tensor("bias", value, _BIASES, x.device)
    width = Dim(x.shape[-1], "x.shape[-1]")
    arguments.shaped("bias", bias, (width,), (Dim(groups or 1, "groups"), width))
    return bias.reshape(-1, x.shape[-1]).contiguous()


def _check_quant(
    x: torch.Tensor, given: dict[str, Any], groups: int | None, dynamic: bool
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    if dynamic:
        arguments.absent("quant_offset", given["quant_offset"], "quant_mode is 1, dynamic")
    half = Dim(x.shape[-1] // 2, "x.shape[-1] / 2")
    count = Dim(groups or 1, "groups")
    shapes: list[tuple[Dim, ...]] = [(count, half)]
    if count.size == 1:
        shapes.append((half,))
    if not dynamic:
        shapes += [(count,), (count, Dim(1, "a scalar"))]
    checked = []
    for name in ("quant_scale", "quant_offset"):
        value = given[name]
        if value is not None:
            value = arguments.shaped(name, arguments.tensor(name, value, _FP32, x.device), *shapes)
            value = value.reshape(count.size, -1).contiguous()
        checked.append(value)
    scale, offset = checked
    if scale is not None and offset is not None and scale.shape != offset.shape:
        expected = f"of shape {tuple(given['quant_scale'].shape)} (quant_scale)"
        reject("quant_offset", expected, f"shape {tuple(given['quant_offset'].shape)}")
    return scale, offset


def _empty(call: _Call) -> tuple[torch.Tensor, torch.Tensor]:
    x = call.x
    y = x.new_empty((x.shape[0], x.shape[1] // 2), dtype=torch.int8)
    return y, x.new_empty((x.shape[0],), dtype=torch.float32)


def _shaped_result(call: _Call, y: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return y.reshape(*call.leading, y.shape[1]), scale.reshape(call.leading)


def _allocate(x: torch.Tensor, **given: Any) -> tuple[torch.Tensor, torch.Tensor]:
    call = _check(x, **given)
    return _shaped_result(call, *_empty(call))


def _run(x: torch.Tensor, **given: Any) -> tuple[torch.Tensor, torch.Tensor]:
    call = _check(x, **given)
    function = backends.function_for("dequant_swiglu_quant", x.device, "x")
    y, scale = _empty(call)
    if y.numel():
        function(*call[:7], y, scale, *call.settings)
    return _shaped_result(call, y, scale)


_operator = Operator(
    "npu_dequant_swiglu_quant(Tensor x, *, Tensor? weight_scale=None, Tensor? activation_scale=None, "
    "Tensor? bias=None, Tensor? quant_scale=None, Tensor? quant_offset=None, Tensor? group_index=None, "
    "bool activate_left=False, int quant_mode=0, ScalarType? dst_type=None, int? round_mode=None, "
    "int? activate_dim=None, int swiglu_mode=0, float clamp_limit=7.0, float glu_alpha=1.702, "
    "float glu_bias=1.0) -> (Tensor y, Tensor scale)",
    _run,
    _allocate,
)
