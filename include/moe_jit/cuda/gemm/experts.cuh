// Host side of the expert GEMMs: fills the kernel's parameters and launches it.
#pragma once

#include "moe_jit/cuda/gemm/experts.h"
#include "moe_jit/cuda/gemm/kernel.cuh"
#include "moe_jit/cuda/gemm/weight_map.h"
#include "moe_jit/cuda/pdl.cuh"

namespace moe_jit::cuda::gemm {

template <class Tile, class Activation>
struct Experts {
    using Quantize = ActivationQuantize<Activation, Tile::kFewTokens>;
    using Rows = std::conditional_t<Tile::kFewTokens, ScaledParts, ScaledRows>;
    using Gemm = GroupedGemm<Tile, Quantize, Rows>;
    using Params = typename Gemm::Params;

    static RowOrder gemm1_order(WeightLayout layout) {
        if (layout == WeightLayout::kShuffled)
            return Activation::kGated ? RowOrder::kPlain : RowOrder::kShuffled;
        return Activation::kGated ? RowOrder::kHalves : RowOrder::kPlain;
    }

    static RowOrder gemm2_order(WeightLayout layout) {
        return layout == WeightLayout::kShuffled ? RowOrder::kShuffled : RowOrder::kPlain;
    }

    static PhaseParams phase(const WeightMatrix& weights, const uint8_t* tokens, int k_parts = 1) {
        PhaseParams p{};
        p.row_tiles = static_cast<int>((weights.rows + Tile::kRows - 1) / Tile::kRows);
        p.blocks_per_box = Tile::kBoxRows / rows_per_block(weights.order);
        p.k_bytes = static_cast<int>(weights.k_bytes);
        p.token_pitch = p.k_bytes;
        p.tokens = tokens;
        p.k_parts = k_parts;
        p.inverse_parts = 1.0f / static_cast<float>(p.row_tiles * k_parts);
        return p;
    }

    static cudaError_t encode_maps(Params& params, const ExpertsArgs& a, const WeightMatrix& gemm1,
                                   const WeightMatrix& gemm2) {
        cudaError_t errors[4] = {encode_weight_map(&params.weights[0], gemm1, Tile::kBoxRows),
                                 encode_weight_map(&params.weights[1], gemm2, Tile::kBoxRows)};
        if constexpr (Tile::kTokensByTma) {
            errors[2] = encode_token_map(&params.tokens[0], a.hidden_states, a.num_tokens, a.hidden_size,
                                         a.hidden_size, Tile::kTokenBoxRows);
            errors[3] = encode_token_map(&params.tokens[1], a.intermediate, a.max_rows, a.intermediate_size,
                                         a.intermediate_size, Tile::kTokenBoxRows);
        }
        for (const cudaError_t error : errors) {
            if (error != cudaSuccess) return error;
        }
        return cudaSuccess;
    }

    // The answer to a claim takes about as long as kClaimedAhead stages. Earlier claims leave late tiles to
    // CTAs that have others to do; but where the first phase does not occupy every CTA, they keep the free
    // ones from taking most of the second.
    static int claimed_ahead(const ExpertsArgs& a, const PhaseParams& first_phase) {
        constexpr int kClaimedAhead = 3;
        const int64_t first_tiles = a.num_experts_hit * first_phase.row_tiles;
        return first_tiles < a.num_sms ? kAllStages : kClaimedAhead;
    }

    static int ring_stages(const ExpertsArgs& a) {
        if constexpr (Tile::kFewTokens) {
            if (a.list != nullptr) return Tile::kListedStages;
        }
        return Tile::kStages;
    }

    static cudaError_t fill(Params& params, const ExpertsArgs& a) {
        const int64_t gemm1_rows = (Activation::kGated ? 2 : 1) * static_cast<int64_t>(a.intermediate_size);
        const WeightMatrix gemm1{a.gemm1_weights, a.num_local, gemm1_rows, a.hidden_size,
                                 gemm1_order(a.layout)};
        const WeightMatrix gemm2{a.gemm2_weights, a.num_local, a.hidden_size, a.intermediate_size,
                                 gemm2_order(a.layout)};
        params.phase[0] = phase(gemm1, a.hidden_states);
        params.phase[0].row_ids = a.row_to_pair;
        // A list names tokens.
        params.phase[0].pairs_per_token = divisor(a.list != nullptr ? 1 : a.top_k);
        params.phase[1] = phase(gemm2, a.intermediate, a.k_parts);
        params.schedule = {a.expert_offsets,
                           a.tile_offsets,
                           a.num_local,
                           nullptr,
                           a.counters,
                           a.counters + 1,
                           a.list,
                           a.from_both_ends,
                           a.awaits_values,
                           ring_stages(a),
                           claimed_ahead(a, params.phase[0])};
        params.prefetched_stages = a.prefetched_stages;
        params.epilogue.head = {a.linear_scale,
                                a.gate_scale,
                                a.row_weights,
                                a.row_to_pair,
                                a.intermediate,
                                a.intermediate_size,
                                a.layout == WeightLayout::kShuffled,
                                a.layout == WeightLayout::kGateUp};
        using Hint = cute::TMA::CacheHintSm90;
        const Hint hint = a.rows_stay ? Hint::EVICT_LAST : Hint::EVICT_NORMAL;
        const ScaledRows::Params rows{a.output_scale, a.rows, a.hidden_size, static_cast<uint64_t>(hint)};
        if constexpr (Tile::kFewTokens) {
            params.epilogue.tail.head = {rows, a.row_parts, a.max_rows * a.hidden_size};
        } else {
            params.epilogue.tail.head = rows;
        }
        return encode_maps(params, a, gemm1, gemm2);
    }

    static cudaError_t launch(const ExpertsArgs& args, cudaStream_t stream) {
        Params params;
        if (const cudaError_t error = fill(params, args); error != cudaSuccess) return error;
        return launch_gemm<Gemm>(params, args.num_sms, stream, args.pdl);
    }
};

}  // namespace moe_jit::cuda::gemm
