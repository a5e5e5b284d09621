// Weighted sum of each token's expert rows, in fp32 and in rank order.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "moe_jit/core/numeric.h"
#include "moe_jit/cuda/launch.h"
#include "moe_jit/cuda/pdl.cuh"

namespace moe_jit::cuda::finalize {

constexpr int kThreads = 128;
constexpr int kVectorElements = 8;  // 16 bytes of bf16
constexpr int kRanksInFlight = 8;

__device__ __forceinline__ void add_weighted(uint4 row, float weight, float (&sum)[kVectorElements]) {
    const uint32_t words[4] = {row.x, row.y, row.z, row.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        sum[2 * i] = fmaf(weight, bits_float(words[i] << 16), sum[2 * i]);
        sum[2 * i + 1] = fmaf(weight, bits_float(words[i] & 0xffff0000u), sum[2 * i + 1]);
    }
}

// Up to kRanksInFlight ranks starting at `pair`: all rows are requested before the first is used.
__device__ __forceinline__ void add_ranks(const FinalizeArgs& args, size_t pair, int num_ranks, int vector,
                                          float (&sum)[kVectorElements]) {
    const uint4* rows = reinterpret_cast<const uint4*>(args.rows);
    const int row_vectors = args.hidden_size / kVectorElements;
    int row[kRanksInFlight];
    float weight[kRanksInFlight];
    uint4 value[kRanksInFlight];
#pragma unroll
    for (int i = 0; i < kRanksInFlight; ++i) {
        row[i] = i < num_ranks ? args.pair_to_row[pair + i] : -1;
        weight[i] = i < num_ranks && args.weights != nullptr ? bf16_to_float(args.weights[pair + i]) : 1.0f;
    }
#pragma unroll
    for (int i = 0; i < kRanksInFlight; ++i) {
        if (row[i] >= 0) value[i] = __ldcg(rows + static_cast<size_t>(row[i]) * row_vectors + vector);
    }
#pragma unroll
    for (int i = 0; i < kRanksInFlight; ++i) {
        if (row[i] >= 0) add_weighted(value[i], weight[i], sum);
    }
}

// One thread per 16 bytes of output; `blocks_per_token` blocks cover a token.
inline __global__ void __launch_bounds__(kThreads)
    weighted_sum(const __grid_constant__ FinalizeArgs args, int blocks_per_token) {
    let_dependents_start();
    wait_for_predecessors();
    const int token = blockIdx.x / blocks_per_token;
    const int vector = (blockIdx.x - token * blocks_per_token) * kThreads + threadIdx.x;
    const int row_vectors = args.hidden_size / kVectorElements;
    if (vector >= row_vectors) return;
    float sum[kVectorElements] = {};
    for (int rank = 0; rank < args.top_k; rank += kRanksInFlight) {
        add_ranks(args, static_cast<size_t>(token) * args.top_k + rank, args.top_k - rank, vector, sum);
    }
    uint4 result;
    result.x = floats_to_bf16x2(sum[0], sum[1]);
    result.y = floats_to_bf16x2(sum[2], sum[3]);
    result.z = floats_to_bf16x2(sum[4], sum[5]);
    result.w = floats_to_bf16x2(sum[6], sum[7]);
    reinterpret_cast<uint4*>(args.out)[static_cast<size_t>(token) * row_vectors + vector] = result;
}

}  // namespace moe_jit::cuda::finalize
