"""Layouts of a weight: plain, transposed view, or blocked (FRACTAL_NZ); int4 is packed, eight to an int32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from moe_jit.checks import reject

PACKED = 8
BLOCK_K = 16
BLOCK_BYTES = 32


class Weight(NamedTuple):
    """``tensors`` is one stacked tensor, or one for each expert; ``n`` are their logical column counts."""

    tensors: tuple[torch.Tensor, ...]
    is_stacked: bool
    k: tuple[int, ...]
    n: tuple[int, ...]
    transposed: bool
    blocked: bool
    packed: bool

    @property
    def num_experts(self) -> int:
        return self.tensors[0].shape[0] if self.is_stacked else len(self.tensors)


def is_transposed(tensor: torch.Tensor) -> bool:
    """Whether the last two dimensions of a tensor are a transposed view of contiguous memory."""
    return tensor.stride(-2) == 1 and tensor.stride(-1) == tensor.shape[-2]


def describe(
    weights: Sequence[torch.Tensor],
    depths: Sequence[int],
    columns: Sequence[int | None],
    name: str = "weight",
) -> Weight:
    """Check the layout of each weight. ``depths`` are the reduction lengths expected of each, ``columns`` the
    column counts that parameters imply, which a blocked weight does not tell by itself."""
    first = weights[0]
    is_stacked = len(weights) == 1 and first.dim() in (3, 5)
    ndim = 3 if is_stacked else 2
    packed = first.dtype == torch.int32
    single = [
        _describe(name if len(weights) == 1 else f"{name}[{i}]", weight, ndim, packed, depths[i], columns[i])
        for i, weight in enumerate(weights)
    ]
    if any(one.transposed != single[0].transposed or one.blocked != single[0].blocked for one in single):
        reject(name, "of one layout: all transposed, all blocked, or none", _shapes(weights))
    return Weight(
        tuple(weights),
        is_stacked,
        tuple(one.k for one in single),
        tuple(one.n for one in single),
        single[0].transposed,
        single[0].blocked,
        packed,
    )


class _Layout(NamedTuple):
    k: int
    n: int
    transposed: bool
    blocked: bool


def _shapes(tensors: Sequence[torch.Tensor]) -> str:
    return f"shapes {[tuple(t.shape) for t in tensors]}, strides {[t.stride() for t in tensors]}"


def _describe(
    name: str, weight: torch.Tensor, ndim: int, packed: bool, depth: int, columns: int | None
) -> _Layout:
    if weight.dim() == ndim + 2:
        return _describe_blocked(name, weight, depth, columns)
    if weight.dim() != ndim:
        expected = "[experts, k, n]" if ndim == 3 else "[k, n] or one tensor [experts, k, n]"
        reject(
            name, f"of shape {expected}, or blocked with two more dimensions", f"shape {tuple(weight.shape)}"
        )
    if weight.numel() == 0:
        reject(name, "not empty", f"shape {tuple(weight.shape)}")
    rows, last = weight.shape[-2:]
    plain = weight.stride(-1) == 1 and weight.stride(-2) == last
    transposed = is_transposed(weight) and not (plain and rows == depth)
    if not transposed and not (weight.stride(-1) in (1, last) and (plain or rows == 1)):
        expected = "contiguous or a transposed view of a contiguous tensor (it is not copied implicitly)"
        reject(name, expected, f"shape {tuple(weight.shape)}, strides {weight.stride()}")
    k = rows * PACKED if packed and transposed else rows
    n = last * PACKED if packed and not transposed else last
    if k != depth:
        reject(f"{name}.shape[-2]", f"{depth} (the last dimension of x)", k)
    return _Layout(k, n, transposed, False)


def _describe_blocked(name: str, weight: torch.Tensor, depth: int, columns: int | None) -> _Layout:
    """[..., n1, k1, 16, n0]; a transposed view of a blocked [n, k] is [..., n1, k1, k0, 16]."""
    blocks_n, blocks_k, block_k, block_n = weight.shape[-4:]
    narrow = BLOCK_BYTES // weight.element_size()
    packed = weight.dtype == torch.int32
    transposed = (block_k, block_n) == (narrow, BLOCK_K) and is_transposed(weight) and not packed
    if not transposed and (block_k != BLOCK_K or block_n not in ((narrow, 1) if packed else (narrow,))):
        expected = f"blocked as [..., n1, k1, {BLOCK_K}, {narrow}] for {weight.dtype}"
        reject(name, expected, f"shape {tuple(weight.shape)}")
    if not (transposed or weight.is_contiguous()):
        reject(name, "contiguous where it is blocked, or a transposed view", f"strides {weight.stride()}")
    if blocks_k != -(-depth // block_k):
        reject(f"{name}.shape[-3]", f"{-(-depth // block_k)} (blocks of {block_k} for k = {depth})", blocks_k)
    columns_per_block = block_n * (PACKED if packed else 1)
    n = blocks_n * columns_per_block if columns is None else columns
    if blocks_n != -(-n // columns_per_block):
        expected = f"{-(-n // columns_per_block)} (blocks of {columns_per_block} for n = {n})"
        reject(f"{name}.shape[-4]", expected, blocks_n)
    return _Layout(depth, n, transposed, True)
