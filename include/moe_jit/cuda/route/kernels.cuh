// Routing kernels. Up to 32 tokens one block does everything (few_tokens.cuh: for GEMMs that take a list);
// beyond, `choose` (experts and per-block counts) is followed by `place` (prefixes and index lists).
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "moe_jit/cuda/launch.h"
#include "moe_jit/cuda/pdl.cuh"
#include "moe_jit/cuda/route/few_tokens.cuh"
#include "moe_jit/cuda/route/row_index.cuh"
#include "moe_jit/cuda/route/topk.cuh"

namespace moe_jit::cuda::route {

constexpr int kPlaceThreads = 512;
constexpr int kMaxPlaceBlocks = 256;

// Bounded by the shared memory that a warp's keys need.
template <int kMaxExperts>
constexpr int kChooseThreads = kMaxExperts <= 512    ? 1024
                               : kMaxExperts <= 1024 ? 512
                                                     : 256;

MOE_JIT_HD MOE_JIT_INLINE int num_token_blocks(int num_tokens) {
    return static_cast<int>((int64_t{num_tokens} + kBlockTokens - 1) / kBlockTokens);
}

// block_counts holds one byte per (block, local expert), in rows of whole words.
MOE_JIT_HD MOE_JIT_INLINE int count_words(int num_local) { return (num_local + 3) / 4; }

__device__ __forceinline__ void zero_counters(const RouteArgs& args) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < args.num_counters; i += gridDim.x * blockDim.x) {
        args.counters[i] = 0;
    }
}

// Routes the block's tokens, one warp each, and enters them into the index.
template <class Policy, int kMaxExperts>
__device__ __forceinline__ void choose_block(const RouteArgs& args, int first_token, int num_tokens,
                                             RowIndex<kMaxExperts>& index) {
    extern __shared__ uint32_t scratch[];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, num_warps = blockDim.x / 32;
    for (int i = warp; i < num_tokens; i += num_warps) {
        const int token = first_token + i;
        Choice choice;
        if constexpr (Policy::kFromLogits) {
            uint32_t* warp_scratch = scratch + warp * scratch_words<kMaxExperts>(num_groups<Policy>(args));
            choice = choose_experts<Policy, kMaxExperts>(args, token, lane, warp_scratch);
        } else {
            choice = read_choice(args, token, lane);
        }
        if (lane < args.top_k) {
            const size_t pair = static_cast<size_t>(token) * args.top_k + lane;
            args.topk_ids[pair] = choice.expert;
            args.topk_weights[pair] = choice.weight;
            if (args.replay != nullptr) args.replay[pair] = static_cast<int16_t>(choice.expert);
            index.add(args, i, lane, choice.expert);
        }
    }
}

template <class Policy, int kMaxExperts>
__global__ void __launch_bounds__(kChooseThreads<kMaxExperts>)
    route_in_one_block(const __grid_constant__ RouteArgs args) {
    __shared__ RowIndex<kMaxExperts> index;
    let_dependents_start();
    index.clear(args.num_local);
    __syncthreads();
    wait_for_predecessors();
    choose_block<Policy>(args, 0, args.num_tokens, index);
    zero_counters(args);
    __syncthreads();
    index.scan(args, true, [&](int e) { return index.count(e); }, ZeroBefore{});
    __syncthreads();
    index.scatter(args, 0, args.num_tokens);
}

template <class Policy, int kMaxExperts>
__global__ void __launch_bounds__(kChooseThreads<kMaxExperts>)
    choose(const __grid_constant__ RouteArgs args) {
    __shared__ RowIndex<kMaxExperts> index;
    let_dependents_start();
    index.clear(args.num_local);
    __syncthreads();
    wait_for_predecessors();
    const int first_token = blockIdx.x * kBlockTokens;
    choose_block<Policy>(args, first_token, min(kBlockTokens, args.num_tokens - first_token), index);
    zero_counters(args);
    __syncthreads();
    const int words = count_words(args.num_local);
    for (int w = threadIdx.x; w < words; w += blockDim.x) {
        uint32_t packed = 0;
        for (int i = 0; i < 4; ++i) {
            const int e = 4 * w + i;
            packed |= static_cast<uint32_t>(e < args.num_local ? index.count(e) : 0) << (8 * i);
        }
        args.block_counts[static_cast<size_t>(blockIdx.x) * words + w] = static_cast<int32_t>(packed);
    }
}

// Rows per local expert in the token blocks before `block`, and in all of them.
template <int kMaxExperts>
struct RowCounts {
    int before[kMaxExperts];
    int total[kMaxExperts];

    __device__ void clear(int num_local) {
        for (int e = threadIdx.x; e < num_local; e += blockDim.x) before[e] = total[e] = 0;
    }

    // Thread (slice, w) sums word w of every num_slices-th block.
    __device__ void add_blocks(const RouteArgs& args, int block) {
        const int words = count_words(args.num_local);
        const int pitch = words > 1 ? 1 << (32 - __clz(words - 1)) : 1;
        const int w = threadIdx.x % pitch, slice = threadIdx.x / pitch, num_slices = blockDim.x / pitch;
        if (w >= words) return;
        const uint32_t* counts = reinterpret_cast<const uint32_t*>(args.block_counts) + w;
        const int num_blocks = num_token_blocks(args.num_tokens);
        uint32_t lower[4] = {}, upper[4] = {};
#pragma unroll 8
        for (int b = slice; b < num_blocks; b += num_slices) {
            const uint32_t packed = __ldcg(counts + static_cast<size_t>(b) * words);
            const uint32_t packed_before = b < block ? packed : 0;
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                lower[i] = __dp4a(packed_before, 1u << (8 * i), lower[i]);
                upper[i] = __dp4a(packed, 1u << (8 * i), upper[i]);
            }
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int e = 4 * w + i;
            if (e < args.num_local && upper[i] != 0) {
                atomicAdd(&before[e], static_cast<int>(lower[i]));
                atomicAdd(&total[e], static_cast<int>(upper[i]));
            }
        }
    }
};

template <int kMaxExperts>
__device__ __forceinline__ void read_block(const RouteArgs& args, int first_token, int num_tokens,
                                           RowIndex<kMaxExperts>& index) {
    const size_t first_pair = static_cast<size_t>(first_token) * args.top_k;
    for (int i = threadIdx.x; i < num_tokens * args.top_k; i += blockDim.x) {
        index.add(args, i / args.top_k, i % args.top_k, __ldcg(args.topk_ids + first_pair + i));
    }
}

// Every block places `blocks_per_cta` consecutive blocks of tokens.
template <int kMaxExperts>
__global__ void __launch_bounds__(kPlaceThreads)
    place(const __grid_constant__ RouteArgs args, int blocks_per_cta) {
    __shared__ RowIndex<kMaxExperts> index;
    __shared__ RowCounts<kMaxExperts> counts;
    const int first_block = blockIdx.x * blocks_per_cta;
    const int last_block = min(first_block + blocks_per_cta, num_token_blocks(args.num_tokens));
    let_dependents_start();
    index.clear(args.num_local);
    counts.clear(args.num_local);
    __syncthreads();
    wait_for_predecessors();
    for (int block = first_block; block < last_block; ++block) {
        const int first_token = block * kBlockTokens;
        const int num_tokens = min(kBlockTokens, args.num_tokens - first_token);
        read_block(args, first_token, num_tokens, index);
        if (block == first_block) {
            counts.add_blocks(args, block);
            __syncthreads();
            index.scan(
                args, blockIdx.x == 0, [&](int e) { return counts.total[e]; },
                [&](int e) { return counts.before[e]; });
        }
        __syncthreads();
        index.scatter(args, first_token, num_tokens);
        __syncthreads();
        for (int e = threadIdx.x; e < args.num_local; e += blockDim.x) index.base[e] += index.count(e);
        index.clear(args.num_local);  // same thread, same experts
        __syncthreads();
    }
}

// Launches a kernel whose warps choose experts: the scratch may exceed what a block gets without asking.
template <class Policy, int kMaxExperts>
cudaError_t launch_choosing(void (*kernel)(RouteArgs), int num_blocks, int num_threads, const RouteArgs& args,
                            cudaStream_t stream) {
    size_t scratch = 0;
    if constexpr (Policy::kFromLogits) {
        const size_t words = scratch_words<kMaxExperts>(num_groups<Policy>(args));
        scratch = words * sizeof(uint32_t) * (num_threads / 32);
        if (sizeof(RowIndex<kMaxExperts>) + scratch > 48 * 1024) {
            const cudaError_t error = cudaFuncSetAttribute(
                kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(scratch));
            if (error != cudaSuccess) return error;
        }
    }
    return launch(kernel, num_blocks, num_threads, scratch, stream, args.pdl, args);
}

template <class Policy, int kMaxExperts>
cudaError_t launch_route(const RouteArgs& args, cudaStream_t stream) {
    constexpr int kThreads = kChooseThreads<kMaxExperts>;
    const int num_blocks = num_token_blocks(args.num_tokens);
    if (args.list != nullptr) {
        return launch_choosing<Policy, kMaxExperts>(route_few_tokens<Policy, kMaxExperts>, 1, kFewThreads,
                                                    args, stream);
    }
    if (num_blocks <= 1) {
        const int num_threads = std::min(kThreads, std::max(256, 32 * args.num_tokens));
        return launch_choosing<Policy, kMaxExperts>(route_in_one_block<Policy, kMaxExperts>, 1, num_threads,
                                                    args, stream);
    }
    const cudaError_t error =
        launch_choosing<Policy, kMaxExperts>(choose<Policy, kMaxExperts>, num_blocks, kThreads, args, stream);
    if (error != cudaSuccess) return error;
    const int blocks_per_cta = (num_blocks + kMaxPlaceBlocks - 1) / kMaxPlaceBlocks;
    const int num_ctas = (num_blocks + blocks_per_cta - 1) / blocks_per_cta;
    return launch(place<kMaxExperts>, num_ctas, kPlaceThreads, 0, stream, args.pdl, args, blocks_per_cta);
}

}  // namespace moe_jit::cuda::route
