"""Triton kernels that a user would write instead of the quantised operators, tuned by timing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from layers import graph_time_us

TUNING_CALLS = 3
TUNING_REPLAYS = 3


@dataclass(frozen=True)
class Config:
    block_m: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


CONFIGS = (
    Config(16, 64, 128, 4, 5),
    Config(16, 128, 128, 4, 4),
    Config(16, 128, 256, 4, 3),
    Config(32, 128, 128, 4, 4),
    Config(64, 128, 64, 4, 4),
    Config(64, 128, 128, 4, 4),
    Config(128, 128, 64, 8, 3),
    Config(128, 128, 128, 8, 3),
    Config(128, 256, 64, 8, 3),
    Config(128, 256, 128, 8, 3),
)


_best: dict[tuple[str, int], Config] = {}


def tuned(
    family: str, call: Callable[[Config, int], torch.Tensor], rows_per_group: int, num_calls: int
) -> Callable[[int], torch.Tensor]:
    """``call(config, index)``, index < num_calls, with the best config for ``rows_per_group`` rows, found
    with the first shape of a family."""
    if (family, rows_per_group) not in _best:
        _best[family, rows_per_group] = _fastest(call, rows_per_group, num_calls)
    return partial(call, _best[family, rows_per_group])


def _fastest(call: Callable[[Config, int], torch.Tensor], rows_per_group: int, num_calls: int) -> Config:
    smallest, largest = min(rows_per_group / 4, 64), max(16, 2 * rows_per_group)
    times = {}
    for config in CONFIGS:
        if not smallest <= config.block_m <= largest:
            continue
        calls: Sequence[Callable[[], object]] = [
            partial(call, config, i) for i in range(min(TUNING_CALLS, num_calls))
        ]
        with suppress(triton.runtime.errors.OutOfResources):
            times[config] = graph_time_us(list(calls), TUNING_REPLAYS)
    return min(times, key=lambda config: times[config])


@triton.jit
def _find_tile(ends, groups, tile, BLOCK_M: tl.constexpr):
    """The group of a row tile, its first row and the end of the group; every group begins a new tile."""
    seen = 0
    begin = 0
    found = -1
    first = 0
    last = 0
    for group in range(groups):
        end = tl.load(ends + group)
        count = tl.cdiv(end - begin, BLOCK_M)
        here = (found < 0) & (tile < seen + count)
        found = tl.where(here, group, found)
        first = tl.where(here, begin + (tile - seen) * BLOCK_M, first)
        last = tl.where(here, end, last)
        seen += count
        begin = end
    return found, first, last


@triton.jit
def grouped_int8_kernel(
    x, w, out, scale, row_scale, ends, groups, n, k, stride_e, stride_k, stride_n,
    SCALED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """out = (x @ w[e]) * scale[e] * row_scale, or the int32 sums."""
    column_tiles = tl.cdiv(n, BLOCK_N)
    pid = tl.program_id(0)
    expert, first, last = _find_tile(ends, groups, pid // column_tiles, BLOCK_M)
    if expert < 0:
        return
    row = first + tl.arange(0, BLOCK_M)
    column = (pid % column_tiles) * BLOCK_N + tl.arange(0, BLOCK_N)
    depth = tl.arange(0, BLOCK_K)
    live = row < last
    a = x + row.to(tl.int64)[:, None] * k + depth[None, :]
    b = w + expert.to(tl.int64) * stride_e + depth[:, None] * stride_k + column[None, :] * stride_n
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.int32)
    for _ in range(0, k, BLOCK_K):
        acc = tl.dot(tl.load(a, mask=live[:, None], other=0), tl.load(b), acc, out_dtype=tl.int32)
        a += BLOCK_K
        b += BLOCK_K * stride_k
    target = out + row.to(tl.int64)[:, None] * n + column[None, :]
    if SCALED:
        value = acc.to(tl.float32) * tl.load(scale + expert * n + column)[None, :].to(tl.float32)
        value *= tl.load(row_scale + row, mask=live, other=0.0)[:, None]
        tl.store(target, value.to(out.dtype.element_ty), mask=live[:, None])
    else:
        tl.store(target, acc, mask=live[:, None])


@triton.jit
def grouped_int4_kernel(
    x, w, out, scale, row_scale, ends, groups, n, k, group_k,
    ROW_SCALED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """out = (bf16(x) @ bf16(w[e] * scale[e, k // group_k])) * row_scale; w [groups, k, n / 8] int32."""
    column_tiles = tl.cdiv(n, BLOCK_N)
    pid = tl.program_id(0)
    expert, first, last = _find_tile(ends, groups, pid // column_tiles, BLOCK_M)
    if expert < 0:
        return
    row = first + tl.arange(0, BLOCK_M)
    start = (pid % column_tiles) * BLOCK_N
    column = start + tl.arange(0, BLOCK_N)
    word = start // 8 + tl.arange(0, BLOCK_N // 8)
    depth = tl.arange(0, BLOCK_K)
    live = row < last
    a = x + row.to(tl.int64)[:, None] * k + depth[None, :]
    b = w + expert.to(tl.int64) * k * (n // 8) + depth[:, None] * (n // 8) + word[None, :]
    s = scale + expert.to(tl.int64) * (k // group_k) * n + column
    shift = 28 - 4 * tl.arange(0, 8)
    acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start_k in range(0, k, BLOCK_K):
        packed = tl.load(b)
        weight = tl.reshape((packed[:, :, None] << shift[None, None, :]) >> 28, [BLOCK_K, BLOCK_N])
        factor = tl.load(s + (start_k // group_k) * n)
        weight = (weight.to(tl.float32) * factor[None, :].to(tl.float32)).to(tl.bfloat16)
        acc = tl.dot(tl.load(a, mask=live[:, None], other=0).to(tl.bfloat16), weight, acc)
        a += BLOCK_K
        b += BLOCK_K * (n // 8)
    if ROW_SCALED:
        acc *= tl.load(row_scale + row, mask=live, other=0.0)[:, None]
    target = out + row.to(tl.int64)[:, None] * n + column[None, :]
    tl.store(target, acc.to(out.dtype.element_ty), mask=live[:, None])


@triton.jit
def swiglu_kernel(
    x, out, out_scale, weight_scale, row_scale, ends, groups, half,
    INTEGERS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Dequantise, silu(left) * right, quantise; one program for each row."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < half
    left = tl.load(x + row * 2 * half + column, mask=inside, other=0).to(tl.float32)
    right = tl.load(x + row * 2 * half + half + column, mask=inside, other=0).to(tl.float32)
    if INTEGERS:
        expert = 0
        for group in range(groups):
            expert += (tl.load(ends + group) <= row).to(tl.int32)
        table = weight_scale + expert.to(tl.int64) * 2 * half + column
        factor = tl.load(row_scale + row)
        left = left * tl.load(table, mask=inside, other=0.0) * factor
        right = right * tl.load(table + half, mask=inside, other=0.0) * factor
    value = left / (1 + tl.exp(-left)) * right
    scale = tl.max(tl.abs(value)) / 127
    rounded = tl.extra.cuda.libdevice.rint(value / scale)
    tl.store(out + row * half + column, rounded.to(tl.int8), mask=inside)
    tl.store(out_scale + row, scale)


def grouped_int8(
    config: Config,
    x: torch.Tensor,
    w: torch.Tensor,
    ends: torch.Tensor,
    scale: torch.Tensor | None,
    row_scale: torch.Tensor | None,
    dtype: torch.dtype,
) -> torch.Tensor:
    """x [m, k], w [groups, k, n] of any strides, ends [groups] int32."""
    (m, k), n = x.shape, w.shape[2]
    out = torch.empty(m, n, dtype=dtype, device=x.device)
    grouped_int8_kernel[_grid(config, m, n, w.shape[0])](
        x, w, out, scale, row_scale, ends, w.shape[0], n, k, *w.stride(), SCALED=scale is not None,
        **_meta(config),
    )  # fmt: skip
    return out


def grouped_int4(
    config: Config,
    x: torch.Tensor,
    w: torch.Tensor,
    ends: torch.Tensor,
    scale: torch.Tensor,
    row_scale: torch.Tensor | None = None,
) -> torch.Tensor:
    """x [m, k] bf16 or int8, w [groups, k, n / 8] int32, scale [groups, k / group, n]."""
    (m, k), n = x.shape, w.shape[2] * 8
    out = torch.empty(m, n, dtype=torch.bfloat16, device=x.device)
    group_k = k // scale.shape[1]
    if group_k % config.block_k:
        raise triton.runtime.errors.OutOfResources(config.block_k, group_k, "k of a group")
    grouped_int4_kernel[_grid(config, m, n, w.shape[0])](
        x, w, out, scale, row_scale, ends, w.shape[0], n, k, group_k, ROW_SCALED=row_scale is not None,
        **_meta(config),
    )  # fmt: skip
    return out


def dequant_swiglu_quant(
    x: torch.Tensor, weight_scale: torch.Tensor | None, row_scale: torch.Tensor | None, ends: torch.Tensor
) -> torch.Tensor:
    """int8 [rows, H]; the scales are written, too."""
    rows, half = x.shape[0], x.shape[1] // 2
    out = torch.empty(rows, half, dtype=torch.int8, device=x.device)
    out_scale = torch.empty(rows, device=x.device)
    swiglu_kernel[(rows,)](
        x, out, out_scale, weight_scale, row_scale, ends, ends.numel(), half,
        INTEGERS=x.dtype == torch.int32, BLOCK=triton.next_power_of_2(half),
        num_warps=8 if half > 1024 else 4,
    )  # fmt: skip
    return out


def _grid(config: Config, m: int, n: int, groups: int) -> tuple[int]:
    """Enough row tiles for any division into groups."""
    return ((triton.cdiv(m, config.block_m) + min(groups, m)) * triton.cdiv(n, config.block_n),)


def _meta(config: Config) -> dict[str, Any]:
    return {
        "BLOCK_M": config.block_m,
        "BLOCK_N": config.block_n,
        "BLOCK_K": config.block_k,
        "num_warps": config.num_warps,
        "num_stages": config.num_stages,
    }
