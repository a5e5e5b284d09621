// A row of y is summed by one or more CTAs, each for some columns. They find its rows in an index that holds
// the first kListed for each destination, in any order; without an index, or for more rows, in row_index.
#pragma once

#include "moe_jit/core/epilogue.h"
#include "moe_jit/cuda/group_list.cuh"
#include "moe_jit/cuda/ordered_sum.h"
#include "moe_jit/cuda/pack.cuh"
#include "moe_jit/cuda/pdl.cuh"
#include "moe_jit/cuda/row_cache.cuh"

namespace moe_jit::cuda::ordered_sum {

constexpr int kThreads = 128;
constexpr int kListed = 32;      // rows of a destination in the index
constexpr int kSearched = 1024;  // so many rows are looked for without an index, or at once
constexpr int kColumns = 4;      // of a vector, of which a thread sums one at a time
constexpr int kAhead = 8;        // rows that are requested before the first is added
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

// What one row is multiplied with, and the bias that its group adds. 1 changes no bits.
template <bool kBias>
struct Weighing {
    float scale, logit;
    const uint16_t* bias;

    // Only requests: nothing waits for what is on its way before the row is added.
    __device__ __forceinline__ static Weighing of(const OrderedSumArgs& args, int row,
                                                  const int* group_ends) {
        Weighing weighing{1.0f, 1.0f, nullptr};
        if (args.token_scale) weighing.scale = args.token_scale[row];
        if (args.logit) weighing.logit = args.logit[row];
        if constexpr (kBias) {
            int low = 0, high = args.groups.num_groups - 1;  // the first group that ends behind the row
            while (low < high) {
                const int middle = (low + high) / 2;
                group_ends[middle] > row ? high = middle : low = middle + 1;
            }
            weighing.bias = args.bias + static_cast<int64_t>(low) * args.n;
        }
        return weighing;
    }

    __device__ __forceinline__ float term(float product, float factor, int column) const {
        const float weighed = fp32::mul(product, factor);
        if constexpr (kBias) return fp32::add(weighed, fp32::mul(bf16_to_float(bias[column]), logit));
        return weighed;
    }

    __device__ __forceinline__ void add(const float4& row, int column, float4& sum) const {
        const float factor = fp32::mul(logit, scale);
        sum.x = fp32::add(sum.x, term(row.x, factor, column));
        sum.y = fp32::add(sum.y, term(row.y, factor, column + 1));
        sum.z = fp32::add(sum.z, term(row.z, factor, column + 2));
        sum.w = fp32::add(sum.w, term(row.w, factor, column + 3));
    }
};

// Drops what a warp has read of up to kAhead rows.
__device__ __forceinline__ void discard(const OrderedSumArgs& args, int column, const int* list, int count,
                                        float used) {
    constexpr int kLineColumns = kLineBytes / sizeof(float), kLines = 32 * kColumns / kLineColumns;
    static_assert(kAhead * kLines == 32, "a line for each lane");
    const int lane = threadIdx.x % 32;
    const int at = __shfl_sync(~0u, column, 0) + lane % kLines * kLineColumns;
    // A warp behind the last column repeats that one.
    if (!args.discards || at % kLineColumns != 0 || at >= args.n || lane / kLines >= count) return;
    const float* line = args.rows + static_cast<int64_t>(list[lane / kLines]) * args.n + at;
    discard_line(line, used);
}

// Rows list[0] to list[count - 1], in this order.
template <bool kBias>
__device__ __forceinline__ void add_rows(const OrderedSumArgs& args, int column, const int* list, int count,
                                         const int* group_ends, float4& sum) {
    for (int first = 0; first < count; first += kAhead) {
        float4 value[kAhead];
        Weighing<kBias> weighing[kAhead];
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
            if (first + a >= count) break;
            const int row = list[first + a];
            const float* source = args.rows + static_cast<int64_t>(row) * args.n + column;
            value[a] = __ldcs(reinterpret_cast<const float4*>(source));
            weighing[a] = Weighing<kBias>::of(args, row, group_ends);
        }
#pragma unroll
        for (int a = 0; a < kAhead; ++a) {
            if (first + a < count) weighing[a].add(value[a], column, sum);
        }
        discard(args, column, list + first, count - first, sum.x);
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

__device__ __forceinline__ float4 shared_input(const OrderedSumArgs& args, int64_t target, int column) {
    float value[kColumns] = {};
    const int64_t row = target - args.shared_begin;
    if (args.shared && row >= 0 && row < args.shared_rows) {
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
            float element[1];
            load_parameters(args.shared, args.shared_element, row * args.n + column + c, element);
            value[c] = fp32::mul(args.shared_weight, element[0]);
        }
    }
    return make_float4(value[0], value[1], value[2], value[3]);
}

// CTA i of blocks_per_row takes every blocks_per_row-th part of kThreads vectors.
template <bool kBias>
__global__ void __launch_bounds__(kThreads)
    sum_rows(const __grid_constant__ OrderedSumArgs args, int blocks_per_row) {
    __shared__ int list[kSearched], group_ends[kBias ? kMaxGroups : 1];
    let_dependents_start();
    wait_for_predecessors();
    const int64_t target = blockIdx.x / blocks_per_row;
    int count = args.index ? args.index[target] : kListed + 1;
    const bool listed = count <= kListed;
    int64_t live = 0;
    if (!listed || kBias) {
        live = decode_groups<kThreads>(args.groups, [&](int group, int, int64_t, int64_t end) {
            if constexpr (kBias) group_ends[group] = static_cast<int>(end);
        });
    }
    const bool search_once = !listed && live <= kSearched;
    if (listed && threadIdx.x < 32) sort_listed(listed_rows(args, target), count, list);
    if (search_once) count = search(args, target, 0, live, list);
    __syncthreads();
    const int first = static_cast<int>(blockIdx.x % blocks_per_row) * kThreads;
    for (int vector = first; vector < args.n / kColumns; vector += blocks_per_row * kThreads) {
        // All threads of the CTA search, those without columns too.
        const int column = min(vector + static_cast<int>(threadIdx.x), args.n / kColumns - 1) * kColumns;
        float4 sum = shared_input(args, target, column);
        if (listed || search_once) {
            add_rows<kBias>(args, column, list, count, group_ends, sum);
        } else {
            for (int64_t begin = 0; begin < live; begin += kSearched) {
                const int found = search(args, target, begin, live, list);
                add_rows<kBias>(args, column, list, found, group_ends, sum);
            }
        }
        // Another warp may have dropped the column that threads behind the last one repeat.
        if (vector + static_cast<int>(threadIdx.x) < args.n / kColumns) {
            *reinterpret_cast<float4*>(args.y + target * args.n + column) = sum;
        }
    }
}

}  // namespace moe_jit::cuda::ordered_sum
