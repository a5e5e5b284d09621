// Decodes a group list into what the grouped GEMM's scheduler reads, and zeroes the rows of no group.
#pragma once

#include "moe_jit/cuda/group_list.cuh"
#include "moe_jit/cuda/grouped_matmul.h"
#include "moe_jit/cuda/pdl.cuh"

namespace moe_jit::cuda::schedule {

constexpr int kThreads = 256;
constexpr int kMaxGroups = 1024;
constexpr int64_t kZeroBytesPerBlock = 64 * 1024;

// Inclusive prefix sum of `values`, in place, by the whole block.
__device__ inline void prefix_sum(int32_t* values, int count) {
    using Scan = cub::BlockScan<int32_t, kThreads>;
    __shared__ typename Scan::TempStorage storage;
    int32_t carry = 0;
    for (int first = 0; first < count; first += kThreads) {
        const int i = first + static_cast<int>(threadIdx.x);
        int32_t value = i < count ? values[i] : 0, sum;
        Scan(storage).InclusiveSum(value, value, sum);
        if (i < count) values[i] = carry + value;
        carry += sum;
        __syncthreads();
    }
}

__device__ inline void zero_bytes(uint8_t* begin, int64_t count) {
    const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
    const int64_t threads = int64_t{gridDim.x} * kThreads;
    const bool vectors = reinterpret_cast<uintptr_t>(begin) % 16 == 0 && count % 16 == 0;
    if (vectors) {
        const uint4 zero = make_uint4(0, 0, 0, 0);
        for (int64_t i = thread; i < count / 16; i += threads) reinterpret_cast<uint4*>(begin)[i] = zero;
    } else {
        for (int64_t i = thread; i < count; i += threads) begin[i] = 0;
    }
}

// Every block decodes; block 0 writes the schedule.
__global__ void __launch_bounds__(kThreads) write_schedule(const __grid_constant__ GroupScheduleArgs args) {
    __shared__ int32_t tiles[kMaxGroups];
    let_dependents_start();
    wait_for_predecessors();
    const bool writer = blockIdx.x == 0;
    const GroupList list{args.group_list, args.num_groups, args.group_list_type, args.num_rows,
                         args.num_experts};
    const int64_t sum = decode_groups<kThreads>(list, [&](int group, int expert, int64_t begin, int64_t end) {
        if (!writer) return;
        args.row_offsets[group + 1] = static_cast<int32_t>(end);
        if (args.expert_ids) args.expert_ids[group] = expert;
        tiles[group] = static_cast<int32_t>((end - begin + args.tile_tokens - 1) / args.tile_tokens);
    });
    if (writer) {
        __syncthreads();
        prefix_sum(tiles, args.num_groups);
        for (int g = threadIdx.x; g < args.num_groups; g += kThreads) args.tile_offsets[g + 1] = tiles[g];
        if (threadIdx.x == 0) args.row_offsets[0] = args.tile_offsets[0] = args.counters[0] = 0;
    }
    zero_bytes(static_cast<uint8_t*>(args.y) + sum * args.row_bytes, (args.num_rows - sum) * args.row_bytes);
}

inline cudaError_t launch_schedule(const GroupScheduleArgs& args, cudaStream_t stream) {
    const int64_t blocks = (args.num_rows * args.row_bytes + kZeroBytesPerBlock - 1) / kZeroBytesPerBlock;
    const auto grid = static_cast<unsigned>(blocks < 1 ? 1 : blocks < args.num_sms ? blocks : args.num_sms);
    return launch(write_schedule, dim3(grid), dim3(kThreads), 0, stream, true, args);
}

}  // namespace moe_jit::cuda::schedule
