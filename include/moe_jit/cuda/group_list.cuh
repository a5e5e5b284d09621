// Group lists decoded by a block: which rows (or which part of the reduction dimension) belong to a group.
#pragma once

#include <cstdint>
#include <cub/block/block_scan.cuh>

#include "moe_jit/core/operator_modes.h"
#include "moe_jit/cuda/group_list.h"

namespace moe_jit::cuda {

namespace detail {

struct Maximum {
    template <class T>
    __device__ __forceinline__ T operator()(const T& a, const T& b) const {
        return a > b ? a : b;
    }
};

// The first entry of a sparse list that is empty or names no expert; all threads of the block take part.
template <int kThreads>
__device__ int sparse_end(const GroupList& list) {
    __shared__ int end;
    if (threadIdx.x == 0) end = list.num_groups;
    __syncthreads();
    for (int g = threadIdx.x; g < list.num_groups; g += kThreads) {
        const int64_t expert = list.values[2 * g];
        if (list.values[2 * g + 1] <= 0 || expert < 0 || expert >= list.num_experts) atomicMin(&end, g);
    }
    __syncthreads();
    return end;
}

}  // namespace detail

// Calls emit(group, expert, begin, end) once for every group, from any of the block's kThreads threads, which
// all take part. Negative counts and what exceeds num_rows are cut; a sparse list ends at the first entry
// that is empty or names no expert, and the groups behind it are empty. Returns the number of rows in groups.
template <int kThreads, class Emit>
__device__ int64_t decode_groups(const GroupList& list, Emit emit) {
    using Scan = cub::BlockScan<int64_t, kThreads>;
    __shared__ typename Scan::TempStorage storage;
    const int g0 = threadIdx.x;
    if (!list.values) {
        if (g0 == 0) emit(0, 0, int64_t{0}, list.num_rows);
        return list.num_rows;
    }
    const auto type = static_cast<GroupListType>(list.type);
    const bool sparse = type == GroupListType::kSparse;
    const int stop = sparse ? detail::sparse_end<kThreads>(list) : list.num_groups;
    int64_t carry = 0;
    for (int first = 0; first < list.num_groups; first += kThreads) {
        const int g = first + g0;
        int64_t value = g < stop ? list.values[sparse ? 2 * g + 1 : g] : 0;
        value = min(max(value, int64_t{0}), list.num_rows);
        int64_t before, last;
        if (type == GroupListType::kCumulative) {
            Scan(storage).ExclusiveScan(value, before, int64_t{0}, detail::Maximum{}, last);
            before = max(before, carry);
            last = max(last, carry);
            value = max(value - before, int64_t{0});
        } else {
            Scan(storage).ExclusiveSum(value, before, last);
            before += carry;
            last += carry;
        }
        if (g < list.num_groups) {
            const int expert = sparse && g < stop ? static_cast<int>(list.values[2 * g]) : g;
            emit(g, expert, min(before, list.num_rows), min(before + value, list.num_rows));
        }
        carry = last;
        __syncthreads();
    }
    return min(carry, list.num_rows);
}

}  // namespace moe_jit::cuda
