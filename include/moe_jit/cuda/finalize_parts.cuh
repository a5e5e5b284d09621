// finalize for rows in parts of K: the parts of a row are added in fp32, in order, and rounded to bf16.
#pragma once

#include "moe_jit/core/k_parts.h"
#include "moe_jit/cuda/finalize.cuh"

namespace moe_jit::cuda::finalize {

constexpr int kPartElements = 4;

__device__ __forceinline__ void add_part(const float4& part, float (&sum)[kPartElements]) {
    sum[0] += part.x;
    sum[1] += part.y;
    sum[2] += part.z;
    sum[3] += part.w;
}

// A thread sums one 16-byte vector of a token; the parts of kRanks rows are requested before the first is
// used.
template <int kRanks>
__global__ void __launch_bounds__(kThreads)
    sum_of_parts(const __grid_constant__ FinalizeArgs args, int blocks_per_token) {
    let_dependents_start();
    if (!args.routing_ended) wait_for_predecessors();
    const int token = blockIdx.x / blocks_per_token;
    const int vector = (blockIdx.x - token * blocks_per_token) * kThreads + threadIdx.x;
    const int row_vectors = args.hidden_size / kPartElements;
    const size_t part_vectors = static_cast<size_t>(args.max_rows) * row_vectors;
    const float4* parts = reinterpret_cast<const float4*>(args.row_parts) + vector;
    float sum[kPartElements] = {};
    if (vector >= row_vectors) return;

    for (int first_rank = 0; first_rank < args.top_k; first_rank += kRanks) {
        RankedRows<kRanks> ranked;
        ranked.load(args, token, first_rank);
        float4 value[kRanks][kMaxKParts];
#pragma unroll
        for (int r = 0; r < kRanks; ++r) {
#pragma unroll
            for (int p = 0; p < kMaxKParts; ++p) {
                value[r][p] =
                    ranked.row[r] >= 0 && p < args.k_parts
                        ? __ldcg(parts + p * part_vectors + static_cast<size_t>(ranked.row[r]) * row_vectors)
                        : make_float4(0.f, 0.f, 0.f, 0.f);
            }
        }
#pragma unroll
        for (int r = 0; r < kRanks; ++r) {
            if (ranked.row[r] < 0) continue;  // not 0 * weight, which is NaN for some weights
            float total[kPartElements] = {};
#pragma unroll
            for (int p = 0; p < kMaxKParts; ++p) add_part(value[r][p], total);
#pragma unroll
            for (int i = 0; i < kPartElements; ++i) {
                sum[i] = fmaf(ranked.weight[r], bf16_to_float(float_to_bf16(total[i])), sum[i]);
            }
        }
    }
    reinterpret_cast<uint2*>(args.out)[static_cast<size_t>(token) * row_vectors + vector] =
        make_uint2(floats_to_bf16x2(sum[0], sum[1]), floats_to_bf16x2(sum[2], sum[3]));
}

inline cudaError_t launch_sum_of_parts(const FinalizeArgs& args, cudaStream_t stream) {
    const int blocks_per_token = (args.hidden_size / kPartElements + kThreads - 1) / kThreads;
    const unsigned num_blocks = static_cast<unsigned>(args.num_tokens) * blocks_per_token;
    return launch(sum_of_parts<2>, num_blocks, kThreads, 0, stream, args.pdl, args, blocks_per_token);
}

}  // namespace moe_jit::cuda::finalize
