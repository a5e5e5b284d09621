"""Storage formats: FRACTAL_NZ blocks, packed int4, and packed requantisation parameters. All plain torch."""

from __future__ import annotations

import torch

from moe_jit import checks
from moe_jit.checks import Dim, reject

from . import arguments
from .weights import BLOCK_BYTES, BLOCK_K, PACKED

ACL_FORMAT_ND = 2
ACL_FORMAT_FRACTAL_NZ = 29
_SIGNED_RESULT = 1 << 46
_OFFSET_SHIFT = 37


def nd_to_nz(tensor: torch.Tensor) -> torch.Tensor:
    """Store matrices [..., k, n] in FRACTAL_NZ blocks: [..., ceil(n / n0), ceil(k / 16), 16, n0].

    n0 is 32 bytes: 32 int8, 16 float16 or bfloat16, 8 float32 or int32 (64 packed int4). Padding is zero.
    Any dtype and device. Raises TypeError or ValueError naming the argument. Source of the definition:
    Ascend's documentation of the data format FRACTAL_NZ.
    """
    return _blocks("tensor", tensor)


def _blocks(name: str, tensor: torch.Tensor) -> torch.Tensor:
    checks.is_tensor(name, tensor)
    checks.dense(name, tensor)
    if tensor.dim() < 2:
        reject(name, "of at least 2 dimensions [..., k, n]", f"shape {tuple(tensor.shape)}")
    k, n = tensor.shape[-2:]
    block_n = BLOCK_BYTES // tensor.element_size()
    padded = torch.nn.functional.pad(tensor, (0, -n % block_n, 0, -k % BLOCK_K))
    blocks = torch.unflatten(torch.unflatten(padded, -1, (-1, block_n)), -3, (-1, BLOCK_K))
    return blocks.movedim(-2, -4).contiguous()


def nz_to_nd(tensor: torch.Tensor, k: int | None = None, n: int | None = None) -> torch.Tensor:
    """Inverse of ``nd_to_nz``: [..., n1, k1, 16, n0] to [..., k, n]. ``k`` and ``n`` cut the padding off.

    Raises TypeError or ValueError naming the argument.
    """
    checks.is_tensor("tensor", tensor)
    checks.dense("tensor", tensor)
    block_n = BLOCK_BYTES // tensor.element_size()
    if tensor.dim() < 4 or tuple(tensor.shape[-2:]) != (BLOCK_K, block_n):
        expected = f"of shape [..., n1, k1, {BLOCK_K}, {block_n}] for {tensor.dtype}"
        reject("tensor", expected, f"shape {tuple(tensor.shape)}")
    plain = tensor.movedim(-4, -2).flatten(-4, -3).flatten(-2, -1)
    for name, value, size in (("k", k, plain.shape[-2]), ("n", n, plain.shape[-1])):
        if value is not None:
            checks.integer(name, value, 1, size, "the stored size")
    return plain[..., :k, :n].contiguous()


def npu_format_cast(
    input: torch.Tensor, acl_format: int, customize_dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Return ``input`` in format 29 (FRACTAL_NZ, see ``nd_to_nz``) or 2 (ND, unchanged).

    input: [..., k, n] of any dtype. A blocked tensor has two dimensions more; ``nz_to_nd`` converts it back.
    Raises TypeError or ValueError naming the argument; ``customize_dtype`` must be None. Source of the
    definition: torch_npu's function of this name.
    """
    arguments.one_of("acl_format", acl_format, (ACL_FORMAT_ND, ACL_FORMAT_FRACTAL_NZ))
    arguments.absent("customize_dtype", customize_dtype, "not available here")
    checks.is_tensor("input", input)
    return input if acl_format == ACL_FORMAT_ND else _blocks("input", input)


def pack_int4(values: torch.Tensor) -> torch.Tensor:
    """Pack the low four bits of integers [..., n] into int32 [..., n / 8], the first in bits 0 to 3."""
    if values.shape[-1] % PACKED:
        raise ValueError(f"the last dimension must be a multiple of {PACKED}, got {values.shape[-1]}")
    shifts = torch.arange(0, 32, 4, device=values.device)
    words = ((torch.unflatten(values, -1, (-1, PACKED)).long() & 15) << shifts).sum(dim=-1)
    return (words - ((words >> 31) << 32)).int()


def unpack_int4(packed: torch.Tensor) -> torch.Tensor:
    """Inverse of ``pack_int4``: int32 [..., n / 8] to int8 [..., n] in [-8, 7]."""
    shifts = torch.arange(0, 32, 4, device=packed.device, dtype=torch.int32)
    nibbles = (packed.unsqueeze(-1) >> shifts) & 15
    return (nibbles - 16 * (nibbles > 7)).flatten(-2).to(torch.int8)


def npu_convert_weight_to_int4pack(weight: torch.Tensor, inner_k_tiles: int = 0) -> torch.Tensor:
    """Pack an int32 weight [..., n] of int4 values into int32 [..., n / 8], low bits first.

    A weight in FRACTAL_NZ blocks [..., 16, 8] has its blocks packed, [..., 16, 1], which grouped operators
    accept. ``inner_k_tiles`` is not read. Raises TypeError or ValueError naming the argument; 8 must divide
    the last dimension. Source of the definition: torch_npu's function of this name.
    """
    arguments.tensor("weight", weight, (torch.int32,))
    checks.integer("inner_k_tiles", inner_k_tiles, 0)
    _check_packable("weight", weight)
    return pack_int4(weight)


def _check_packable(name: str, value: torch.Tensor) -> None:
    if value.dim() == 0 or value.shape[-1] % PACKED:
        reject(f"{name}.shape[-1]", f"a multiple of {PACKED}", tuple(value.shape))


_RANGES = {
    torch.qint8: (torch.int8, -128, 127),
    torch.int8: (torch.int8, -128, 127),
    torch.quint8: (torch.uint8, 0, 255),
    torch.int32: (torch.int32, -(2**31), 2**31 - 128),  # the largest float32 below 2**31
    torch.quint4x2: (torch.int32, -8, 7),
}


def npu_quantize(
    self: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor | None,
    dtype: torch.dtype,
    axis: int = 1,
    div_mode: bool = True,
) -> torch.Tensor:
    """Quantise with given scales: round(self / scales + zero_points), or * scales if not ``div_mode``.

    Args:
        self: float32, float16 or bfloat16.
        scales, zero_points: one value, one for each index of dimension ``axis``, or a tensor that broadcasts.
        dtype: torch.qint8 or torch.int8 (int8 result), torch.quint8 (uint8), torch.int32; torch.quint4x2
            without ``div_mode`` (int32 of eight int4, packed along the last dimension).
        axis: without ``div_mode`` -2, or anything else for the last dimension.

    Returns:
        A tensor of self's shape (int4: its last dimension divided by 8). The arithmetic is float32, rounding
        to nearest even, and saturating; NaN becomes 0.

    Raises TypeError or ValueError naming the argument. Source of the definition: torch_npu's function of this
    name.
    """
    floats = (torch.float32, torch.float16, torch.bfloat16)
    arguments.tensor("self", self, floats)
    if self.dim() == 0:
        reject("self", "of at least 1 dimension", "shape ()")
    checks.boolean("div_mode", div_mode)
    allowed = (torch.qint8, torch.quint8, torch.int32, torch.int8) if div_mode else (
        torch.qint8, torch.int8, torch.quint4x2)  # fmt: skip
    if dtype not in allowed:
        reject("dtype", f"{' or '.join(map(str, allowed))} with div_mode {div_mode}", dtype)
    if isinstance(axis, bool) or not isinstance(axis, int):
        checks.reject_type("axis", "an int", axis)
    if not (-self.dim() <= axis < self.dim() if div_mode else -2 <= axis < self.dim()):
        reject("axis", f"a dimension of self (shape {tuple(self.shape)})", axis)
    dimension = axis if div_mode or axis == -2 else -1
    arguments.tensor("scales", scales, floats, self.device, "self")
    scale = _along("scales", scales, self, dimension).float()
    value = self.float() / scale if div_mode else self.float() * scale
    if zero_points is not None:
        zero_dtypes = (*floats, torch.int8, torch.uint8, torch.int32)
        arguments.tensor("zero_points", zero_points, zero_dtypes, self.device, "self")
        value = value + _along("zero_points", zero_points, self, dimension).float()
    storage, low, high = _RANGES[dtype]
    rounded = value.round().clamp(low, high).nan_to_num(nan=0.0).to(storage)
    if dtype is not torch.quint4x2:
        return rounded
    _check_packable("self", self)
    return pack_int4(rounded)


def _along(name: str, value: torch.Tensor, target: torch.Tensor, dimension: int) -> torch.Tensor:
    """``value`` shaped to broadcast along one dimension of ``target``."""
    size = target.shape[dimension]
    if value.numel() == 1:
        return value.reshape(())
    shape = [1] * target.dim()
    shape[dimension] = size
    if value.dim() > 1:
        arguments.shaped(name, value, [Dim(extent, "self") for extent in shape])
    elif value.shape != (size,):
        reject(
            name, f"of 1 or {size} elements (dimension {dimension} of self)", f"shape {tuple(value.shape)}"
        )
    return value.reshape(shape)


def npu_trans_quant_param(
    scale: torch.Tensor, offset: torch.Tensor | None = None, round_mode: int = 0
) -> torch.Tensor:
    """Pack float32 scales, and offsets, into the int64 parameters of int8 results.

    Bits 0-31 hold the scale with ten bits of mantissa, truncated (``round_mode`` 0) or rounded to nearest
    even (1); bits 37-45 the offset, rounded and clamped to [-256, 255]; bit 46 is set: the result is signed.

    Args:
        scale: float32 [n] or [experts, n].
        offset: None or float32 of the same shape; one of both may have a single element.

    Returns:
        int64 of the larger shape.

    Raises TypeError or ValueError naming the argument. Source of the definition: torch_npu's function of this
    name.
    """
    arguments.tensor("scale", scale, (torch.float32,))
    arguments.one_of("round_mode", round_mode, (0, 1))
    if scale.dim() not in (1, 2) or scale.numel() == 0:
        reject("scale", "of shape [n] or [experts, n], not empty", f"shape {tuple(scale.shape)}")
    bits = scale.contiguous().view(torch.int32)
    multiplier = (_rounded_bits(bits) if round_mode else bits & ~0x1FFF).long() & 0xFFFFFFFF
    packed = multiplier | _SIGNED_RESULT
    if offset is None:
        return packed
    arguments.tensor("offset", offset, (torch.float32,), scale.device, "scale")
    if offset.shape != scale.shape and 1 not in (offset.numel(), scale.numel()):
        reject("offset", f"of shape {tuple(scale.shape)} (scale) or of one element", tuple(offset.shape))
    field = offset.round().clamp(-256, 255).nan_to_num(nan=0.0).long() & 0x1FF
    return packed | (field << _OFFSET_SHIFT)


def _rounded_bits(bits: torch.Tensor) -> torch.Tensor:
    """float32 bits with the mantissa rounded to ten bits; subnormals become zero, infinity and NaN stay."""
    sign, magnitude = bits & ~0x7FFFFFFF, bits & 0x7FFFFFFF
    rounded = (magnitude + 0xFFF + ((magnitude >> 13) & 1)) & ~0x1FFF
    rounded = torch.where(magnitude < 0x800000, 0, rounded)
    return sign | torch.where(magnitude >= 0x7F800000, magnitude, rounded)
