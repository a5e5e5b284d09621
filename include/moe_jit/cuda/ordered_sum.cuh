// A row of y is summed by a few CTAs, each for some columns. They find its rows in an index that holds the
// first kListed for each destination, in any order; without an index, or for more rows, in row_index itself.
#pragma once

#include "moe_jit/core/epilogue.h"
#include "moe_jit/cuda/group_list.cuh"
#include "moe_jit/cuda/ordered_sum.h"
#include "moe_jit/cuda/pack.cuh"
#include "moe_jit/cuda/pdl.cuh"

namespace moe_jit::cuda::ordered_sum {

constexpr int kThreads = 128;
constexpr int kListed = 32;      // rows of a destination in the index
constexpr int kSearched = 1024;  // so many rows are looked for without an index, or at once
constexpr int kColumns = 4;      // of a vector
constexpr int kVectors = 2;      // of a thread, kThreads apart
constexpr int kAhead = 4;        // rows that are requested before the first is added
constexpr int kMaxGroups = 1024;

__device__ __forceinline__ int64_t destination(const OrderedSumArgs& args, int64_t row) {
    return args.index_element == Element::kI32 ? static_cast<const int32_t*>(args.row_index)[row]
                                               : static_cast<const int64_t*>(args.row_index)[row];
}

// The index: a count for each destination, then kListed rows for each.
__device__ __forceinline__ int32_t* listed_rows(const OrderedSumArgs& args, int64_t target) {
    return args.index + args.out_rows + target * kListed;
}

__global__ void __launch_bounds__(kThreads) clear_counts(const __grid_constant__ OrderedSumArgs args) {
    let_dependents_start();
    wait_for_predecessors();
    const int64_t target = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
    if (target < args.out_rows) args.index[target] = 0;
}

__global__ void __launch_bounds__(kThreads) list_rows(const __grid_constant__ OrderedSumArgs args) {
    let_dependents_start();
    wait_for_predecessors();
    const int64_t live = decode_groups<kThreads>(args.groups, [](int, int, int64_t, int64_t) {});
    const int row = blockIdx.x * kThreads + threadIdx.x;
    if (row >= live) return;
    const int64_t target = destination(args, row);
    if (target < 0 || target >= args.out_rows) return;
    const int place = atomicAdd(args.index + target, 1);
    if (place < kListed) listed_rows(args, target)[place] = row;
}

struct Columns {
    int first;  // vector of this thread
    int total;  // vectors of a row

    __device__ __forceinline__ int at(int v) const { return first + v * kThreads; }
    __device__ __forceinline__ bool has(int v) const { return at(v) < total; }
};

using Sums = float4[kVectors];

// What one row is multiplied with, and the bias that its group adds.
struct Weighing {
    float factor;  // 1 changes no bits
    float logit;
    const uint16_t* bias;

    __device__ __forceinline__ static Weighing of(const OrderedSumArgs& args, int row,
                                                  const int* group_ends) {
        Weighing weighing{1.0f, 1.0f, nullptr};
        if (args.token_scale) weighing.factor = args.token_scale[row];
        if (args.logit) {
            weighing.logit = args.logit[row];
            weighing.factor = fp32::mul(weighing.logit, weighing.factor);
        }
        if (args.bias) {
            int low = 0, high = args.groups.num_groups - 1;  // the first group that ends behind the row
            while (low < high) {
                const int middle = (low + high) / 2;
                group_ends[middle] > row ? high = middle : low = middle + 1;
            }
            weighing.bias = args.bias + static_cast<int64_t>(low) * args.n;
        }
        return weighing;
    }

    __device__ __forceinline__ float term(float product, int column) const {
        const float weighed = fp32::mul(product, factor);
        return bias ? fp32::add(weighed, fp32::mul(bf16_to_float(bias[column]), logit)) : weighed;
    }
};

__device__ __forceinline__ void add(float4& sum, const float4& row, const Weighing& weighing, int column) {
    sum.x = fp32::add(sum.x, weighing.term(row.x, column));
    sum.y = fp32::add(sum.y, weighing.term(row.y, column + 1));
    sum.z = fp32::add(sum.z, weighing.term(row.z, column + 2));
    sum.w = fp32::add(sum.w, weighing.term(row.w, column + 3));
}

// Rows list[0] to list[count - 1], in this order.
__device__ __forceinline__ void add_rows(const OrderedSumArgs& args, const Columns& columns, const int* list,
                                         int count, const int* group_ends, Sums& sums) {
    const auto* rows = reinterpret_cast<const float4*>(args.rows);
    for (int first = 0; first < count; first += kAhead) {
        float4 value[kAhead][kVectors];
        Weighing weighing[kAhead];
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
            if (first + a >= count) break;
            const int index = list[first + a];
            const float4* row = rows + static_cast<int64_t>(index) * columns.total;
#pragma unroll
            for (int v = 0; v < kVectors; ++v) {
                if (columns.has(v)) value[a][v] = __ldcs(row + columns.at(v));
            }
            weighing[a] = Weighing::of(args, index, group_ends);
        }
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
            if (first + a >= count) break;
#pragma unroll
            for (int v = 0; v < kVectors; ++v) {
                if (columns.has(v)) add(sums[v], value[a][v], weighing[a], columns.at(v) * kColumns);
            }
        }
    }
}

// Sorts up to kListed different rows into `list`; by one warp.
__device__ __forceinline__ void sort_listed(const int32_t* listed, int count, int* list) {
    const int lane = threadIdx.x % 32;
    const int row = lane < count ? listed[lane] : INT32_MAX;
    int smaller = 0;
#pragma unroll
    for (int other = 0; other < kListed; ++other) smaller += __shfl_sync(~0u, row, other) < row;
    if (lane < count) list[smaller] = row;
}

// The rows of [begin, end) that go to `target`, ascending; returns their number. By the whole CTA.
__device__ __forceinline__ int search(const OrderedSumArgs& args, int64_t target, int64_t begin, int64_t end,
                                      int* list) {
    constexpr int kWarps = kThreads / 32, kWords = kSearched / 32;
    __shared__ uint32_t found[kWords];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    __syncthreads();
#pragma unroll
    for (int w = warp; w < kWords; w += kWarps) {
        const int64_t row = begin + 32 * w + lane;
        const uint32_t here = __ballot_sync(~0u, row < end && destination(args, row) == target);
        if (lane == 0) found[w] = here;
    }
    __syncthreads();
    static_assert(kWords == 32, "a word for each lane");
    const uint32_t word = found[lane];
    int before = __popc(word);
    for (int distance = 1; distance < 32; distance *= 2) {
        const int other = __shfl_up_sync(~0u, before, distance);
        if (lane >= distance) before += other;
    }
    const int count = __shfl_sync(~0u, before, 31);
    before -= __popc(word);
    for (uint32_t rest = warp == 0 ? word : 0; rest != 0; rest &= rest - 1) {
        list[before++] = static_cast<int>(begin) + 32 * lane + __ffs(rest) - 1;
    }
    __syncthreads();
    return count;
}

__device__ __forceinline__ void start_sums(const OrderedSumArgs& args, int64_t target, const Columns& columns,
                                           Sums& sums) {
    const int64_t row = target - args.shared_begin;
    const bool has_shared = args.shared && row >= 0 && row < args.shared_rows;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
        sums[v] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (!has_shared || !columns.has(v)) continue;
        float* value = &sums[v].x;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
            float element[1];
            load_parameters(args.shared, args.shared_element, row * args.n + columns.at(v) * kColumns + c,
                            element);
            value[c] = fp32::mul(args.shared_weight, element[0]);
        }
    }
}

__global__ void __launch_bounds__(kThreads)
    sum_rows(const __grid_constant__ OrderedSumArgs args, int blocks_per_row) {
    __shared__ int list[kSearched], group_ends[kMaxGroups];
    let_dependents_start();
    wait_for_predecessors();
    const int64_t target = blockIdx.x / blocks_per_row;
    const int part = blockIdx.x % blocks_per_row;
    const Columns columns{part * kThreads * kVectors + static_cast<int>(threadIdx.x), args.n / kColumns};
    const int listed = args.index ? args.index[target] : kListed + 1;
    int64_t live = 0;
    if (listed > kListed || args.bias) {
        live = decode_groups<kThreads>(args.groups, [&](int group, int, int64_t, int64_t end) {
            group_ends[group] = static_cast<int>(end);
        });
    }
    if (listed <= kListed && threadIdx.x < 32) sort_listed(listed_rows(args, target), listed, list);
    Sums sums;
    start_sums(args, target, columns, sums);
    __syncthreads();
    if (listed <= kListed) {
        add_rows(args, columns, list, listed, group_ends, sums);
    } else {
        for (int64_t begin = 0; begin < live; begin += kSearched) {
            const int count = search(args, target, begin, live, list);
            add_rows(args, columns, list, count, group_ends, sums);
        }
    }
    auto* y = reinterpret_cast<float4*>(args.y) + target * columns.total;
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
        if (columns.has(v)) y[columns.at(v)] = sums[v];
    }
}

}  // namespace moe_jit::cuda::ordered_sum
