// A product whose groups divide K. A kernel of its own reads the group list and gives every group tensor maps
// that begin and end with it, so that no box brings rows of a neighbour: what lies behind a group's K reads
// as zero, in both operands.
#pragma once

#include "moe_jit/cuda/gemm/product.cuh"
#include "moe_jit/cuda/group_list.cuh"

namespace moe_jit::cuda::gemm {

struct DepthScheduleParams {
    CUtensorMap weights, tokens;  // of all of K
    GroupList list;
    const char *weight, *x;
    int64_t weight_pitch, x_pitch;  // bytes of one k
    DepthSlices slices;             // count 0: none
    CUtensorMap *weight_maps, *token_maps;
    int32_t *depths, *row_offsets, *tile_offsets, *counters;
    int group_tokens, group_tiles;
};

// `map` over `depth` rows from `data` on.
__device__ inline void write_map(CUtensorMap* out, const CUtensorMap& map, const char* data, int64_t depth) {
    *out = map;
    asm volatile("tensormap.replace.tile.global_address.global.b1024.b64 [%0], %1;" ::"l"(out), "l"(data)
                 : "memory");
    asm volatile("tensormap.replace.tile.global_dim.global.b1024.b32 [%0], 1, %1;" ::"l"(out),
                 "r"(static_cast<uint32_t>(depth))
                 : "memory");
}

constexpr int kDepthScheduleThreads = 256;

__global__ void __launch_bounds__(kDepthScheduleThreads)
    write_depth_schedule(const __grid_constant__ DepthScheduleParams p) {
    let_dependents_start();
    wait_for_predecessors();
    decode_groups<kDepthScheduleThreads>(p.list, [&](int g, int, int64_t begin, int64_t end) {
        const int64_t depth = end - begin;
        p.depths[g] = static_cast<int32_t>(depth);
        p.row_offsets[g + 1] = (g + 1) * p.group_tokens;
        p.tile_offsets[g + 1] = (g + 1) * p.group_tiles;
        if (depth == 0) return;  // nothing is loaded
        const bool sliced = p.slices.count > 0;
        const char* weight = sliced ? p.slices.data[g] : p.weight + begin * p.weight_pitch;
        const int64_t weight_depth = sliced ? min(depth, int64_t{p.slices.depth[g]}) : depth;
        write_map(p.weight_maps + g, p.weights, weight, weight_depth);
        write_map(p.token_maps + g, p.tokens, p.x + begin * p.x_pitch, depth);
    });
    if (threadIdx.x == 0) p.row_offsets[0] = p.tile_offsets[0] = p.counters[0] = 0;
    asm volatile("fence.proxy.tensormap::generic.release.gpu;" ::: "memory");
}

template <class Tile, class Output>
struct DepthProduct {
    using Whole = Product<Tile, Output>;

    static DepthScheduleParams schedule(const typename Whole::Params& params, const DepthProductArgs& a) {
        DepthScheduleParams p{};
        p.weights = params.weights[0];
        p.tokens = params.tokens[0];
        p.list = {a.group_list, a.num_groups, a.group_list_type, a.k, a.num_groups};
        p.weight = static_cast<const char*>(a.weight);
        p.x = static_cast<const char*>(a.x);
        p.weight_pitch = a.n * Tile::Format::kTokenBits / 8;
        p.x_pitch = a.x_pitch;
        if (a.slices) p.slices = *a.slices;
        p.weight_maps = static_cast<CUtensorMap*>(a.weight_maps);
        p.token_maps = static_cast<CUtensorMap*>(a.token_maps);
        p.depths = a.depths;
        p.row_offsets = a.row_ends;
        p.tile_offsets = a.tile_ends;
        p.counters = a.counters;
        p.group_tokens = a.group_tokens;
        p.group_tiles = (a.group_tokens + Tile::kTokens - 1) / Tile::kTokens;
        return p;
    }

    static cudaError_t launch(const DepthProductArgs& args, cudaStream_t stream) {
        typename Whole::Params params;
        if (const cudaError_t error = Whole::fill(params, args); error != cudaSuccess) return error;
        const DepthScheduleParams p = schedule(params, args);
        if (const cudaError_t error = cuda::launch(write_depth_schedule, dim3(1), dim3(kDepthScheduleThreads),
                                                   0, stream, args.pdl, p);
            error != cudaSuccess) {
            return error;
        }
        return launch_gemm<typename Whole::Gemm>(params, args.num_sms, stream, args.pdl);
    }
};

}  // namespace moe_jit::cuda::gemm
