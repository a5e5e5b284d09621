// Row tiles of the groups, for CTAs that look theirs up.
#pragma once

#include "moe_jit/cuda/direct/args.h"
#include "moe_jit/cuda/group_list.cuh"

namespace moe_jit::cuda::direct {

constexpr int kRangeThreads = 1024;

// Writes num_groups + kExtraRanges ranges.
__global__ void __launch_bounds__(kRangeThreads) write_ranges(GroupList list, GroupRange* ranges) {
    using Scan = cub::BlockScan<int, kRangeThreads>;
    __shared__ typename Scan::TempStorage storage;
    const int64_t sum =
        decode_groups<kRangeThreads>(list, [&](int group, int expert, int64_t begin, int64_t end) {
            ranges[group] = {expert, static_cast<int>(begin), static_cast<int>(end), 0};
        });
    if (threadIdx.x == 0) {
        const int rows = static_cast<int>(list.num_rows);
        ranges[list.num_groups] = {GroupRange::kNoExpert, static_cast<int>(sum), rows, 0};
        ranges[list.num_groups + 1] = {GroupRange::kNoExpert, rows, rows, 0};
    }
    __syncthreads();
    int carry = 0;
    for (int first = 0; first < list.num_groups + kExtraRanges; first += kRangeThreads) {
        const int g = first + threadIdx.x;
        const bool inside = g < list.num_groups + kExtraRanges;
        const int tiles =
            inside ? (ranges[g].end - ranges[g].begin + kDirectTileRows - 1) / kDirectTileRows : 0;
        int before, all;
        Scan(storage).ExclusiveSum(tiles, before, all);
        if (inside) ranges[g].first_tile = carry + before;
        carry += all;
        __syncthreads();
    }
}

}  // namespace moe_jit::cuda::direct
