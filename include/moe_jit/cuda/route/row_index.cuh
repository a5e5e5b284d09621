// Stable index lists without sorting: for a block of 32 tokens every local expert has a 32-bit mask of the
// tokens that chose it; a pair's place within (block, expert) is the number of lower bits, since a token
// chooses an expert once.
#pragma once

#include <cstdint>

#include "moe_jit/cuda/launch.h"

namespace moe_jit::cuda::route {

constexpr int kBlockTokens = 32;
constexpr int kMaxTopK = 32;

// Index of an expert among the local ones; -1 = not local, or ignored (negative).
__device__ __forceinline__ int local_expert(const RouteArgs& args, int global_expert) {
    const unsigned local = static_cast<unsigned>(global_expert - args.local_offset);
    const bool is_local = global_expert >= 0 && local < static_cast<unsigned>(args.num_local);
    return is_local ? static_cast<int>(local) : -1;
}

struct ZeroBefore {
    __device__ int operator()(int) const { return 0; }
};

template <int kMaxExperts>
struct RowIndex {
    uint32_t masks[kMaxExperts];               // by local expert
    int base[kMaxExperts];                     // row of this block's first token, by local expert
    int16_t experts[kBlockTokens * kMaxTopK];  // local expert of the block's pairs, -1 = none
    int2 warp_totals[32];

    __device__ void clear(int num_local) {
        for (int e = threadIdx.x; e < num_local; e += blockDim.x) masks[e] = 0;
    }

    __device__ void add(const RouteArgs& args, int token_in_block, int rank, int global_expert) {
        const int local = local_expert(args, global_expert);
        experts[token_in_block * args.top_k + rank] = static_cast<int16_t>(local);
        if (local >= 0) atomicOr(&masks[local], 1u << token_in_block);
    }

    __device__ int count(int local) const { return __popc(masks[local]); }

    // Exclusive prefix over experts of total(e) rows and of their tiles; base[e] = prefix + before(e), the
    // rows of earlier blocks. `publish`: write the prefixes to global memory. Contains one __syncthreads;
    // callers need another one before they read `base`.
    template <class Total, class Before>
    __device__ void scan(const RouteArgs& args, bool publish, Total total, Before before) {
        const int per_thread = (args.num_local + blockDim.x - 1) / blockDim.x;
        const int first = min(static_cast<int>(threadIdx.x) * per_thread, args.num_local);
        const int last = min(first + per_thread, args.num_local);
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
        const auto tiles_of = [&](int rows) { return (rows + args.tile_tokens - 1) / args.tile_tokens; };
        int rows = 0, tiles = 0;
        for (int e = first; e < last; ++e) {
            rows += total(e);
            tiles += tiles_of(total(e));
        }
        const int own_rows = rows, own_tiles = tiles;
#pragma unroll
        for (int offset = 1; offset < 32; offset *= 2) {
            const int lower_rows = __shfl_up_sync(0xffffffffu, rows, offset);
            const int lower_tiles = __shfl_up_sync(0xffffffffu, tiles, offset);
            rows += lane >= offset ? lower_rows : 0;
            tiles += lane >= offset ? lower_tiles : 0;
        }
        if (lane == 31) warp_totals[warp] = make_int2(rows, tiles);
        __syncthreads();
        const int2 lower = lane < warp ? warp_totals[lane] : make_int2(0, 0);
        rows += __reduce_add_sync(0xffffffffu, lower.x) - own_rows;
        tiles += __reduce_add_sync(0xffffffffu, lower.y) - own_tiles;
        if (publish && threadIdx.x == 0) args.expert_offsets[0] = args.tile_offsets[0] = 0;
        for (int e = first; e < last; ++e) {
            base[e] = rows + before(e);
            rows += total(e);
            tiles += tiles_of(total(e));
            if (publish) {
                args.expert_offsets[e + 1] = rows;
                args.tile_offsets[e + 1] = tiles;
            }
        }
    }

    // Writes pair_to_row and row_to_pair of the block's pairs.
    __device__ void scatter(const RouteArgs& args, int first_token, int num_tokens) const {
        const int first_pair = first_token * args.top_k;
        for (int i = threadIdx.x; i < num_tokens * args.top_k; i += blockDim.x) {
            const int local = experts[i];
            int row = -1;
            if (local >= 0) {
                const uint32_t lower = (1u << (i / args.top_k)) - 1u;
                row = base[local] + __popc(masks[local] & lower);
                args.row_to_pair[row] = first_pair + i;
            }
            args.pair_to_row[first_pair + i] = row;
        }
    }
};

}  // namespace moe_jit::cuda::route
