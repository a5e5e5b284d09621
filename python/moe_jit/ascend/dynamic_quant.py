"""npu_dynamic_quant: symmetric quantisation of every row by its largest magnitude."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from moe_jit import checks
from moe_jit.checks import Dim, reject, reject_type

from . import arguments, backends
from .operators import Operator

_INPUTS = (torch.float16, torch.bfloat16, torch.float32)
_MAX_GROUPS = 1024
PACKED = 8  # int4 elements in one int32


class _Call(NamedTuple):
    x: torch.Tensor
    smooth_scales: torch.Tensor | None
    group_index: torch.Tensor | None
    is_int4: bool
    leading: tuple[int, ...]


def npu_dynamic_quant(
    input: torch.Tensor,
    *,
    smooth_scales: torch.Tensor | None = None,
    group_index: torch.Tensor | None = None,
    dst_type: torch.dtype | None = None,
    quant_mode: str = "pertoken",
    dst_type_max: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantise rows to int8 or int4 with one scale each.

    With v = input * smooth_scales in float32, amax the largest magnitude of a row and M = 127 or 7:
    y = round(v * (M / amax)), ties to even, and scale = amax * (1 / M). A row of zeros has y = 0 and
    scale = 0.

    Args:
        input: [..., width] float16, bfloat16 or (an extension) float32, at least 2 dimensions.
        smooth_scales: [width], or with ``group_index`` [G, width]; dtype of ``input`` or float32.
        group_index: [G] int32, ascending row numbers at which the groups end; group g uses row g of
            ``smooth_scales``.
        dst_type: None or torch.int8; torch.quint4x2 for int4.
        quant_mode: "pertoken".
        dst_type_max: 0, which means M as above.

    Returns:
        y: int8 [..., width], or int32 [..., width / 8] with element i of eight in bits 4i to 4i+3;
        scale: float32 [...].

    Raises:
        TypeError, ValueError: naming the argument.

    Source of the definition: torch_npu's operator of this name on Atlas A2 and A3.
    """
    result: tuple[torch.Tensor, torch.Tensor] = _operator(
        input,
        smooth_scales=smooth_scales,
        group_index=group_index,
        dst_type=dst_type,
        quant_mode=quant_mode,
        dst_type_max=dst_type_max,
    )
    return result


def _check(input: torch.Tensor, **given: Any) -> _Call:
    arguments.tensor("input", input, _INPUTS)
    if input.dim() < 2 or input.shape[-1] == 0:
        reject("input", "of at least 2 dimensions, the last not empty", f"shape {tuple(input.shape)}")
    if arguments.optional_dtype("dst_type", given["dst_type"]) not in (None, torch.int8, torch.quint4x2):
        reject("dst_type", "None, torch.int8 or torch.quint4x2", given["dst_type"])
    is_int4 = given["dst_type"] is torch.quint4x2
    if is_int4 and input.shape[-1] % PACKED:
        reject("input.shape[-1]", f"a multiple of {PACKED} with dst_type torch.quint4x2", input.shape[-1])
    if not isinstance(given["quant_mode"], str):
        reject_type("quant_mode", "a str", given["quant_mode"])
    if given["quant_mode"] != "pertoken":
        reject("quant_mode", "'pertoken'", repr(given["quant_mode"]))
    if checks.finite("dst_type_max", given["dst_type_max"]) != 0.0:
        reject("dst_type_max", "0", given["dst_type_max"])
    smooth, index = _check_smooth(input, given["smooth_scales"], given["group_index"])
    flat = input.reshape(-1, input.shape[-1]).contiguous()
    return _Call(flat, smooth, index, is_int4, tuple(input.shape[:-1]))


def _check_smooth(
    input: torch.Tensor, smooth: torch.Tensor | None, index: torch.Tensor | None
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    width = Dim(input.shape[-1], "input.shape[-1]")
    if smooth is None:
        if index is not None:
            reject("smooth_scales", "given with group_index", None)
        return None, None
    arguments.tensor("smooth_scales", smooth, (input.dtype, torch.float32), input.device, "input")
    if index is None:
        arguments.shaped("smooth_scales", smooth, (width,), (Dim(1, "one group"), width))
        return smooth.reshape(1, -1).contiguous(), None
    arguments.tensor("group_index", index, (torch.int32,), input.device, "input")
    if index.dim() != 1 or not 1 <= index.shape[0] <= _MAX_GROUPS:
        reject("group_index", f"of shape [groups], 1 to {_MAX_GROUPS}", f"shape {tuple(index.shape)}")
    arguments.shaped("smooth_scales", smooth, (Dim(index.shape[0], "group_index.shape[0]"), width))
    return smooth.contiguous(), index.contiguous()


def _empty(call: _Call) -> tuple[torch.Tensor, torch.Tensor]:
    rows, width = call.x.shape
    if call.is_int4:
        y = call.x.new_empty((rows, width // PACKED), dtype=torch.int32)
    else:
        y = call.x.new_empty((rows, width), dtype=torch.int8)
    return y, call.x.new_empty((rows,), dtype=torch.float32)


def _shaped_result(call: _Call, y: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return y.reshape(*call.leading, y.shape[1]), scale.reshape(call.leading)


def _allocate(input: torch.Tensor, **given: Any) -> tuple[torch.Tensor, torch.Tensor]:
    call = _check(input, **given)
    return _shaped_result(call, *_empty(call))


def _run(input: torch.Tensor, **given: Any) -> tuple[torch.Tensor, torch.Tensor]:
    call = _check(input, **given)
    function = backends.function_for("dynamic_quant", input.device, "input")
    y, scale = _empty(call)
    if y.numel():
        function(call.x, call.smooth_scales, call.group_index, y, scale)
    return _shaped_result(call, y, scale)


_operator = Operator(
    "npu_dynamic_quant(Tensor input, *, Tensor? smooth_scales=None, Tensor? group_index=None, "
    'ScalarType? dst_type=None, str quant_mode="pertoken", float dst_type_max=0.0) -> (Tensor, Tensor)',
    _run,
    _allocate,
)
