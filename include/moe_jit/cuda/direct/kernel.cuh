// Grouped product on CUDA cores: a CTA computes a tile of kDirectTileRows rows by kColumns columns, exactly
// summed for integers and in fp32, in the order of k, otherwise.
#pragma once

#include <type_traits>

#include "moe_jit/cuda/direct/products.cuh"

namespace moe_jit::cuda::direct {

constexpr int kRows = kDirectTileRows;
constexpr int kColumns = 64;
constexpr int kDepth = 16;
constexpr int kPitch = kRows + 4;
constexpr int kPerThread = 4;
constexpr int kThreads = kRows * kColumns / (kPerThread * kPerThread);
static_assert(kRows == kColumns, "one pitch for both operands");

// Depth-major, so that a thread's operands of one k are neighbours.
template <class Value>
struct Operands {
    alignas(16) Value x[kDepth][kPitch];
    alignas(16) Value w[kDepth][kPitch];
};

// A tile of one group: rows [row, row_end), and [k_begin, k_end) of the reduction dimension.
struct Tile {
    int expert;
    int row, row_end;
    int column;
    int k_begin, k_end;
    int64_t out;  // offset of row 0 of the group's result
};

// The last range whose first tile is not after `tile`.
__device__ __forceinline__ GroupRange find_range(const GroupRange* ranges, int count, int tile) {
    int low = 0, high = count;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        (ranges[middle].first_tile <= tile ? low : high) = middle;
    }
    return ranges[low];
}

// False where no work is left for this CTA.
__device__ inline bool locate(const DirectArgs& args, Tile& tile) {
    const int index = blockIdx.y;
    tile = {0, 0, args.rows, static_cast<int>(blockIdx.x) * kColumns, 0, args.k, 0};
    if (args.split_k) {
        const GroupRange range = args.ranges[args.first_range + blockIdx.z];
        tile.expert = args.weight_is_slice ? 0 : blockIdx.z;
        tile.row = index * kRows;
        tile.k_begin = range.begin;
        tile.k_end = range.begin + min(range.end - range.begin, args.slice_depth);
        tile.out = static_cast<int64_t>(blockIdx.z) * args.rows * args.n;
        return true;
    }
    GroupRange range = args.only;
    if (args.ranges) {
        // Behind the groups: the rows of no group, and the end mark.
        if (index >= args.ranges[args.num_ranges + 1].first_tile) return false;
        range = find_range(args.ranges, args.num_ranges + 1, index);
    }
    tile.expert = range.expert;
    tile.row = range.begin + (index - range.first_tile) * kRows;
    tile.row_end = range.end;
    return true;
}

__device__ __forceinline__ int64_t stored_offset(const StoredMatrix& m, int k, int n) {
    const int in_k = k & ((1ll << m.shift_k) - 1), in_n = n & ((1ll << m.shift_n) - 1);
    return (k >> m.shift_k) * m.stride_block_k + in_k * m.stride_k + (n >> m.shift_n) * m.stride_block_n +
           in_n * m.stride_n;
}

template <class Product>
__device__ __forceinline__ void load_operands(const DirectArgs& args, const Expert& expert, const Tile& tile,
                                              int k, int k_end, Operands<typename Product::Value>& shared) {
    const int first_k = args.weight_is_slice ? tile.k_begin : 0;
#pragma unroll
    for (int i = threadIdx.x; i < kDepth * kRows; i += kThreads) {
        const bool rows_first = args.x_stride_row == 1;
        const int d = rows_first ? i / kRows : i % kDepth;
        const int r = rows_first ? i % kRows : i / kDepth;
        const bool inside = k + d < k_end && tile.row + r < tile.row_end;
        const int64_t at = (tile.row + r) * args.x_stride_row + (k + d) * args.x_stride_k;
        shared.x[d][r] = inside ? Product::activation(args, at) : 0;
    }
#pragma unroll
    for (int i = threadIdx.x; i < kDepth * kColumns; i += kThreads) {
        const bool k_first = args.matrix.stride_k == 1;
        const int d = k_first ? i % kDepth : i / kColumns;
        const int c = k_first ? i / kDepth : i % kColumns;
        const bool inside = k + d < k_end && tile.column + c < args.n;
        const int64_t at = inside ? stored_offset(args.matrix, k + d - first_k, tile.column + c) : 0;
        shared.w[d][c] = inside ? Product::weight(args, expert, at, k + d, tile.column + c) : 0;
    }
}

template <class Value>
__device__ __forceinline__ Value multiply_add(Value a, Value b, Value c) {
    if constexpr (std::is_same_v<Value, float>) {
        return fp32::fma(a, b, c);
    } else {
        return a * b + c;
    }
}

template <class Product>
class Accumulators {
  public:
    using Value = typename Product::Value;
    static constexpr bool kSegments = [] {
        if constexpr (Product::kIntegers) return Product::kSegments;
        return false;
    }();
    using Total = std::conditional_t<kSegments, float, Value>;

    __device__ Accumulators()
        : row_(threadIdx.x / (kColumns / kPerThread) * kPerThread),
          column_(threadIdx.x % (kColumns / kPerThread) * kPerThread) {}

    __device__ __forceinline__ void add(const Operands<Value>& shared) {
#pragma unroll
        for (int d = 0; d < kDepth; ++d) {
#pragma unroll
            for (int r = 0; r < kPerThread; ++r) {
                const Value x = shared.x[d][row_ + r];
                if constexpr (kSegments) row_sums_[r] += x;
#pragma unroll
                for (int c = 0; c < kPerThread; ++c) {
                    part_[r][c] = multiply_add(x, shared.w[d][column_ + c], part_[r][c]);
                }
            }
        }
    }

    // Weighs what has been summed since the last segment.
    __device__ __forceinline__ void end_segment(const DirectArgs& args, const Expert& expert,
                                                const Tile& tile, int segment) {
        if constexpr (kSegments) {
#pragma unroll
            for (int c = 0; c < kPerThread; ++c) {
                const int column = tile.column + column_ + c;
#pragma unroll
                for (int r = 0; r < kPerThread; ++r) {
                    if (column < args.n) {
                        total_[r][c] = fp32::add(total_[r][c],
                                                 Product::weigh(args, expert, part_[r][c], segment, column));
                    }
                    part_[r][c] = 0;
                }
            }
        }
    }

    __device__ __forceinline__ void store(const DirectArgs& args, const Expert& expert, const Tile& tile) {
#pragma unroll
        for (int r = 0; r < kPerThread; ++r) {
            const int row = tile.row + row_ + r;
#pragma unroll
            for (int c = 0; c < kPerThread; ++c) {
                const int column = tile.column + column_ + c;
                if (row >= tile.row_end || column >= args.n) continue;
                const Place at{row, column, tile.out + static_cast<int64_t>(row) * args.n + column};
                if (tile.expert == GroupRange::kNoExpert) {
                    store_zero(args, at.out);
                } else if constexpr (kSegments) {
                    const int row_sum = row_sums_[r] + Product::shift(args) * (tile.k_end - tile.k_begin);
                    Product::finish(args, expert, at, total_[r][c], row_sum);
                } else {
                    Product::finish(args, expert, at, part_[r][c], 0);
                }
            }
        }
    }

  private:
    int row_, column_;  // of the tile
    Value part_[kPerThread][kPerThread] = {};
    float total_[kSegments ? kPerThread : 1][kPerThread] = {};
    int row_sums_[kPerThread] = {};
};

template <class Product>
__global__ void __launch_bounds__(kThreads) direct_kernel(const __grid_constant__ DirectArgs args) {
    __shared__ Operands<typename Product::Value> shared;
    Tile tile;
    if (!locate(args, tile)) return;
    const bool none = tile.expert == GroupRange::kNoExpert;
    const Expert expert(args, none ? 0 : tile.expert);
    Accumulators<Product> sums;
    const int segments = Accumulators<Product>::kSegments ? args.segments : 1;
    const int length = none ? 0 : (tile.k_end - tile.k_begin) / segments;
    for (int segment = 0; segment < segments; ++segment) {
        const int begin = tile.k_begin + segment * length;
        for (int k = begin; k < begin + length; k += kDepth) {
            __syncthreads();
            load_operands<Product>(args, expert, tile, k, begin + length, shared);
            __syncthreads();
            sums.add(shared);
        }
        if (!none) sums.end_segment(args, expert, tile, segment);
    }
    sums.store(args, expert, tile);
}

template <class Product>
cudaError_t launch(const DirectArgs& args, cudaStream_t stream) {
    const int tiles = (args.rows + kRows - 1) / kRows + (args.ranges && !args.split_k ? args.num_ranges : 0);
    const dim3 grid((args.n + kColumns - 1) / kColumns, tiles, args.split_k ? args.grid_groups : 1);
    direct_kernel<Product><<<grid, kThreads, 0, stream>>>(args);
    return cudaGetLastError();
}

}  // namespace moe_jit::cuda::direct
