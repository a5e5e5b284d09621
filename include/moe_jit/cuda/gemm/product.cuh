// Host side of a grouped product: fills the kernel's parameters and launches it.
#pragma once

#include "moe_jit/cuda/gemm/kernel.cuh"
#include "moe_jit/cuda/gemm/product_epilogue.cuh"
#include "moe_jit/cuda/gemm/weight_map.h"
#include "moe_jit/cuda/grouped_matmul.h"
#include "moe_jit/cuda/pdl.cuh"

namespace moe_jit::cuda::gemm {

template <class Tile, class Output>
struct Product {
    using Format = typename Tile::Format;
    using Weights = typename Format::Weights;
    using Gemm = GroupedGemm<Tile, ProductRows<Tile, Output>>;
    using Params = typename Gemm::Params;

    static cudaError_t encode_weights(CUtensorMap* map, const ProductArgs& a) {
        if constexpr (Weights::kSlabs) {
            const SlabMatrix matrix{a.weight,       a.expert_places, a.k, a.n * Weights::kBits / 8,
                                    a.expert_bytes, a.depth_stored};
            return encode_slab_map(map, matrix, Weights::kSlabBytes, Weights::kLineBytes, Weights::kDepth,
                                   Tile::kBoxRows / Weights::kSlabRows, Weights::kBlocked);
        } else {
            constexpr int kWeightBits = Weights::kRowBytes * Format::kTokenBits / kBlockBytes;
            const WeightMatrix matrix{a.weight,         a.expert_places, a.n, a.k * kWeightBits / 8,
                                      RowOrder::kPairs, a.expert_bytes};
            return encode_weight_map(map, matrix, Tile::kBoxRows, Tile::kBoxBlocks * Weights::kRowBytes);
        }
    }

    template <class Args>
    static cudaError_t encode_tokens(CUtensorMap* map, const Args& a) {
        if constexpr (Format::kGroupedDepth) {
            using Tokens = typename Format::Tokens;
            return encode_column_map(map, a.x, a.k, a.group_tokens * int64_t{Tokens::kBits / 8}, a.x_pitch,
                                     Tokens::kSlabBytes, Tokens::kDepth);
        } else {
            return encode_token_map(map, a.x, a.rows, a.k * Format::kTokenBits / 8, a.x_pitch,
                                    Tile::kTokenBoxRows);
        }
    }

    template <class Args>
    static cudaError_t fill(Params& params, const Args& a) {
        if (const cudaError_t error = encode_weights(&params.weights[0], a); error != cudaSuccess) {
            return error;
        }
        PhaseParams& phase = params.phase[0];
        phase = {};
        phase.row_tiles = static_cast<int>((a.n + Tile::kRows - 1) / Tile::kRows);
        phase.blocks_per_box = Tile::kBoxRows / rows_per_block(RowOrder::kPairs);
        phase.k_bytes = static_cast<int>(a.k * Format::kTokenBits / 8);
        phase.token_pitch = static_cast<int>(a.x_pitch);
        phase.tokens = static_cast<const uint8_t*>(a.x);
        phase.weight_at = a.weight_at;
        if (const cudaError_t error = encode_tokens(&params.tokens[0], a); error != cudaSuccess) return error;
        params.schedule = {};
        params.schedule.row_offsets = a.row_offsets;
        params.schedule.tile_offsets = a.tile_offsets;
        params.schedule.num_experts = a.num_groups;
        params.schedule.expert_ids = a.expert_ids;
        params.schedule.next_tile = a.counters;
        params.schedule.claimed_ahead = kAllStages;
        params.prefetched_stages = 0;
        params.epilogue.head = {Output::params(a), static_cast<typename Output::Rounding::Storage*>(a.y),
                                a.y_shift, a.n};
        params.format = Format::params(a);
        return cudaSuccess;
    }

    static cudaError_t launch(const ProductArgs& args, cudaStream_t stream) {
        Params params;
        if (const cudaError_t error = fill(params, args); error != cudaSuccess) return error;
        return launch_gemm<Gemm>(params, args.num_sms, stream, args.pdl);
    }
};

}  // namespace moe_jit::cuda::gemm
