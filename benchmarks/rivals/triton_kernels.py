"""Triton kernels of the baseline: index lists, grouped GEMM, activation with requantisation, weighted sum.

A pair is a (token, rank) number t * top_k + r. Pairs of one expert fill whole blocks of BLOCK_M slots; empty
slots hold num_pairs. Experts outside [first_expert, first_expert + num_local) are not computed.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def count_pairs(ids, counts, num_pairs, first_expert, CHUNK: tl.constexpr):
    """counts[e]: pairs of local expert e, one program per expert."""
    expert = tl.program_id(0) + first_expert
    hits = tl.zeros([CHUNK], tl.int32)
    for start in range(0, num_pairs, CHUNK):
        pair = start + tl.arange(0, CHUNK)
        hits += (tl.load(ids + pair, mask=pair < num_pairs, other=-1) == expert).to(tl.int32)
    tl.store(counts + tl.program_id(0), tl.sum(hits))


@triton.jit
def place_pairs(
    ids,
    counts,
    slots,
    block_expert,
    num_blocks,
    num_pairs,
    first_expert,
    num_local,
    BLOCK_M: tl.constexpr,
    EXPERTS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Fill the slots and the expert of each block; one program per expert."""
    local = tl.program_id(0)
    e = tl.arange(0, EXPERTS)
    blocks = tl.cdiv(tl.load(counts + e, mask=e < num_local, other=0), BLOCK_M)
    first_block = tl.sum(tl.where(e < local, blocks, 0))
    end_block = first_block + tl.sum(tl.where(e == local, blocks, 0))
    if local == 0:
        tl.store(num_blocks, tl.sum(blocks))
    for block in range(first_block, end_block):
        tl.store(block_expert + block, local)
    slot = first_block * BLOCK_M
    for start in range(0, num_pairs, CHUNK):
        pair = start + tl.arange(0, CHUNK)
        mine = tl.load(ids + pair, mask=pair < num_pairs, other=-1) == local + first_expert
        order = tl.cumsum(mine.to(tl.int32)) - 1
        tl.store(slots + slot + order, pair, mask=mine)
        slot += tl.sum(mine.to(tl.int32))
    empty = slot + tl.arange(0, BLOCK_M)
    tl.store(slots + empty, num_pairs, mask=empty < end_block * BLOCK_M)


@triton.jit
def grouped_gemm(
    a,
    weights,
    out,
    scale,
    pair_weights,
    ids,
    slots,
    block_expert,
    num_blocks,
    num_pairs,
    rows,
    depth,
    first_expert,
    num_local,
    max_blocks,
    pairs_per_row,
    DIRECT: tl.constexpr,
    WEIGHTED: tl.constexpr,
    EVEN_DEPTH: tl.constexpr,
    SWAP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    GROUP_M: tl.constexpr,
):
    """out[pair] = scale[e] * pair_weight * (a[pair // pairs_per_row] @ weights[e].T), bf16.

    DIRECT: every pair is a block of its own, and no index lists exist. SWAP: the weights are the M operand.
    """
    pid = tl.program_id(0)
    column_tiles = tl.cdiv(rows, BLOCK_N)
    group = pid // (GROUP_M * column_tiles)
    group_size = min(max_blocks - group * GROUP_M, GROUP_M)
    in_group = pid % (GROUP_M * column_tiles)
    block = group * GROUP_M + in_group % group_size
    lane = tl.arange(0, BLOCK_M)
    if DIRECT:
        expert = tl.load(ids + block) - first_expert
        if (expert < 0) | (expert >= num_local):
            return
        pair = tl.where(lane == 0, block, num_pairs)
    else:
        if block >= tl.load(num_blocks):
            return
        expert = tl.load(block_expert + block)
        pair = tl.load(slots + block * BLOCK_M + lane)
    live = pair < num_pairs
    column = (in_group // group_size) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    a_row = a + (pair // pairs_per_row).to(tl.int64) * depth
    w_row = weights + expert.to(tl.int64) * rows * depth + (column % rows).to(tl.int64) * depth
    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32) if SWAP else tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, depth, BLOCK_K):
        if EVEN_DEPTH:
            x = tl.load(a_row[:, None] + (start + k)[None, :], mask=live[:, None], other=0.0)
            w = tl.load(w_row[:, None] + (start + k)[None, :])
        else:
            inside = (start + k)[None, :] < depth
            x = tl.load(a_row[:, None] + (start + k)[None, :], mask=live[:, None] & inside, other=0.0)
            w = tl.load(w_row[:, None] + (start + k)[None, :], mask=inside, other=0.0)
        acc = tl.dot(w, tl.trans(x), acc) if SWAP else tl.dot(x, tl.trans(w), acc)
    acc *= tl.load(scale + expert)
    if SWAP:
        acc = tl.trans(acc)
    if WEIGHTED:
        acc *= tl.load(pair_weights + pair, mask=live, other=0.0)[:, None]
    target = out + pair.to(tl.int64)[:, None] * rows + column[None, :]
    tl.store(target, acc.to(tl.bfloat16), mask=live[:, None] & (column < rows)[None, :])


@triton.jit
def activate(
    values,
    out,
    ids,
    gain,
    intermediate_size,
    first_expert,
    num_local,
    GATED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out[p] = e4m3(gain[ids[p]] * act(row p)); act: silu(first half) * second half, or relu squared."""
    row = tl.program_id(0).to(tl.int64)
    expert = tl.load(ids + row) - first_expert
    if (expert < 0) | (expert >= num_local):
        return
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < intermediate_size
    if GATED:
        source = values + row * intermediate_size * 2 + column
        gate = tl.load(source, mask=inside, other=0.0).to(tl.float32)
        linear = tl.load(source + intermediate_size, mask=inside, other=0.0).to(tl.float32)
        value = gate / (1 + tl.exp(-gate)) * linear
    else:
        linear = tl.load(values + row * intermediate_size + column, mask=inside, other=0.0).to(tl.float32)
        value = tl.maximum(linear, 0.0) * tl.maximum(linear, 0.0)
    value = tl.minimum(tl.maximum(value * tl.load(gain + expert), -448.0), 448.0)
    tl.store(out + row * intermediate_size + column, value.to(tl.float8e4nv), mask=inside)


@triton.jit
def combine(
    values,
    out,
    ids,
    row_of_pair,
    pair_weights,
    hidden_size,
    first_expert,
    num_local,
    TOP_K: tl.constexpr,
    INDEXED: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out[t] = sum over the token's local pairs of weight * value; pair p is in row p, or row_of_pair[p]."""
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < hidden_size
    total = tl.zeros([BLOCK], tl.float32)
    for rank in tl.static_range(TOP_K):
        pair = token * TOP_K + rank
        expert = tl.load(ids + pair) - first_expert
        end = tl.where((expert >= 0) & (expert < num_local), hidden_size, 0)
        row = pair
        if INDEXED:
            row = tl.load(row_of_pair + pair).to(tl.int64)
        value = tl.load(values + row * hidden_size + column, mask=column < end, other=0.0).to(tl.float32)
        if WEIGHTED:
            value *= tl.load(pair_weights + pair)
        total += value
    tl.store(out + token * hidden_size + column, total.to(tl.bfloat16), mask=inside)
