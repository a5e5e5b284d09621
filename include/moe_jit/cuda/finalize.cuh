// Weighted sum of each token's expert rows, in fp32 and in rank order.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "moe_jit/core/numeric.h"
#include "moe_jit/cuda/launch.h"
#include "moe_jit/cuda/pdl.cuh"
#include "moe_jit/cuda/row_cache.cuh"

namespace moe_jit::cuda::finalize {

constexpr int kThreads = 128;
constexpr int kVectorElements = 8;  // 16 bytes of bf16

__device__ __forceinline__ void add_weighted(uint4 row, float weight, float (&sum)[kVectorElements]) {
    const uint32_t words[4] = {row.x, row.y, row.z, row.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        sum[2 * i] = fmaf(weight, bits_float(words[i] << 16), sum[2 * i]);
        sum[2 * i + 1] = fmaf(weight, bits_float(words[i] & 0xffff0000u), sum[2 * i + 1]);
    }
}

__device__ __forceinline__ uint4 to_bf16(const float (&sum)[kVectorElements]) {
    return make_uint4(floats_to_bf16x2(sum[0], sum[1]), floats_to_bf16x2(sum[2], sum[3]),
                      floats_to_bf16x2(sum[4], sum[5]), floats_to_bf16x2(sum[6], sum[7]));
}

// Expert rows of kRanks ranks of a token, and their weights; row -1: nothing to add.
template <int kRanks>
struct RankedRows {
    int row[kRanks];
    float weight[kRanks];

    // By the whole warp, a lane for each rank: one latency for all. Returns when the rows are complete. Lanes
    // from kRanks on may have ended.
    __device__ __forceinline__ void load(const FinalizeArgs& args, int token, int first_rank) {
        const int rank = first_rank + static_cast<int>(threadIdx.x % 32 % kRanks);
        const size_t pair = static_cast<size_t>(token) * args.top_k + rank;
        int own_row = -1;
        uint16_t own_weight = 0;
        if (rank < args.top_k) {
            own_row = args.pair_to_row != nullptr ? __ldcg(args.pair_to_row + pair) : static_cast<int>(pair);
            if (args.weights != nullptr) own_weight = __ldcg(args.weights + pair);
        }
#pragma unroll
        for (int r = 0; r < kRanks; ++r) {
            row[r] = __shfl_sync(~0u, own_row, r);
            const uint32_t bits = __shfl_sync(~0u, uint32_t{own_weight}, r);
            weight[r] = args.weights != nullptr ? bf16_to_float(static_cast<uint16_t>(bits)) : 1.0f;
        }
        if (args.routing_ended && first_rank == 0) wait_for_predecessors();
    }
};

// Drops what a warp has read: kVectors vectors for each lane, kThreads apart, of each row.
template <int kRanks, int kVectors>
__device__ __forceinline__ void discard(const uint4* rows, int row_vectors, int first_vector,
                                        const int (&row)[kRanks],
                                        const float (&sum)[kVectors][kVectorElements]) {
    constexpr int kLineVectors = kLineBytes / sizeof(uint4), kLines = 32 / kLineVectors;
    static_assert(kRanks * kVectors * kLines <= 32, "a line for each lane");
    const int lane = threadIdx.x % 32;
    const int at = first_vector - lane + lane % kLines * kLineVectors + lane / kLines % kVectors * kThreads;
    int line_row = -1;
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
        if (lane / (kLines * kVectors) == r) line_row = row[r];
    }
    if (line_row < 0 || at >= row_vectors) return;
    float used = 0.0f;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) used += sum[v][0];
    discard_line(rows + static_cast<size_t>(line_row) * row_vectors + at, used);
}

// A thread sums kVectors 16-byte vectors, kThreads apart, of one token; kRanks rows of each are requested
// before the first is used. `blocks_per_token` blocks cover a token.
template <int kRanks, int kVectors, bool kDiscards>
__global__ void __launch_bounds__(kThreads)
    weighted_sum(const __grid_constant__ FinalizeArgs args, int blocks_per_token) {
    let_dependents_start();
    if (!args.routing_ended) wait_for_predecessors();
    const int token = blockIdx.x / blocks_per_token;
    const int first_vector = (blockIdx.x - token * blocks_per_token) * (kThreads * kVectors) + threadIdx.x;
    const int row_vectors = args.hidden_size / kVectorElements;
    const uint4* rows = reinterpret_cast<const uint4*>(args.rows);
    float sum[kVectors][kVectorElements] = {};

    for (int first_rank = 0; first_rank < args.top_k; first_rank += kRanks) {
        RankedRows<kRanks> ranked;
        ranked.load(args, token, first_rank);
        uint4 value[kRanks][kVectors];
#pragma unroll
        for (int r = 0; r < kRanks; ++r) {
#pragma unroll
            for (int v = 0; v < kVectors; ++v) {
                const int vector = first_vector + v * kThreads;
                value[r][v] = ranked.row[r] >= 0 && vector < row_vectors
                                  ? __ldcg(rows + static_cast<size_t>(ranked.row[r]) * row_vectors + vector)
                                  : make_uint4(0, 0, 0, 0);
            }
        }
#pragma unroll
        for (int r = 0; r < kRanks; ++r) {
            if (ranked.row[r] < 0) continue;  // not 0 * weight, which is NaN for some weights
#pragma unroll
            for (int v = 0; v < kVectors; ++v) add_weighted(value[r][v], ranked.weight[r], sum[v]);
        }
        if constexpr (kDiscards) discard(rows, row_vectors, first_vector, ranked.row, sum);
    }

    uint4* out = reinterpret_cast<uint4*>(args.out) + static_cast<size_t>(token) * row_vectors;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
        const int vector = first_vector + v * kThreads;
        if (vector < row_vectors) out[vector] = to_bf16(sum[v]);
    }
}

template <int kRanks, int kVectors>
cudaError_t launch_weighted_sum(const FinalizeArgs& args, cudaStream_t stream) {
    const int per_block = kThreads * kVectors * kVectorElements;
    const int blocks_per_token = (args.hidden_size + per_block - 1) / per_block;
    const unsigned num_blocks = static_cast<unsigned>(args.num_tokens) * blocks_per_token;
    const auto kernel =
        args.discards ? weighted_sum<kRanks, kVectors, true> : weighted_sum<kRanks, kVectors, false>;
    return launch(kernel, num_blocks, kThreads, 0, stream, args.pdl, args, blocks_per_token);
}

}  // namespace moe_jit::cuda::finalize
