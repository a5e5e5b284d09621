// Biased weights take fewer instructions to make: w + kBias at even k and w + 1 - kBias at odd k, so that
// what the bias adds to a sum stays small. Warps of their own sum the tokens of every stage with the bias,
// negated; added to the sums of the same segment of K, what is left are the sums of the weights themselves.
// (These warps do not use the tensor core: their MMAs would queue behind those of the math warpgroups.)
#pragma once

#include "moe_jit/cuda/gemm/mainloop.cuh"

namespace moe_jit::cuda::gemm {

template <class Tile>
struct TokenSummers {
    using Storage = SharedStorage<Tile>;
    using Format = typename Tile::Format;
    static constexpr int kSegmentBlocks = Tile::kBlocks / Tile::kStageSegments;
    static_assert(Tile::kBlocks % Tile::kStageSegments == 0, "segments are of whole k-blocks");
    // Tokens of one pass, four lanes for each.
    static constexpr int kTokens = 8;

    __device__ __forceinline__ static void sum_segment(const uint8_t* rows, int lane, float* out) {
        const int token = lane / 4;
        float even = 0.f, odd = 0.f;
#pragma unroll
        for (int i = 0; i < 2 * kSegmentBlocks; ++i) {
            const int chunk = lane % 4 * 2 + i % 2;
            const auto words = *reinterpret_cast<const uint4*>(rows + i / 2 * Tile::kTokenBlockBytes +
                                                               token * kBlockBytes + (chunk ^ token) * 16);
            for (const uint32_t word : {words.x, words.y, words.z, words.w}) {
                even += bits_float(word << 16);
                odd += bits_float(word & 0xffff0000u);
            }
        }
        float sum = (Format::kBias - 1) * odd - Format::kBias * even;
        sum += __shfl_xor_sync(0xffffffffu, sum, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        if (lane % 4 == 0) out[token] = sum;
    }

    // Warps take turns in the passes of a tile, of which `done` came in earlier stages.
    __device__ __forceinline__ static void sum_stage(Storage& storage, int slot, int passes, int done,
                                                     int warp, int lane) {
#pragma unroll 1
        for (int i = (done + warp) % kTokenSummers; i < passes; i += kTokenSummers) {
            const int segment = i % Tile::kStageSegments, token = i / Tile::kStageSegments * kTokens;
            const uint8_t* rows = storage.tokens[slot] + segment * kSegmentBlocks * Tile::kTokenBlockBytes;
            sum_segment(rows + token * kBlockBytes, lane, storage.token_sums.sum[slot][segment] + token);
        }
    }

    template <class Params>
    __device__ static void run(Storage& storage, const Params& params, int thread) {
        RingCursor<Tile::kStages> ring;
        RingCursor<kTileSlots> slots;
        while (true) {
            storage.tile_full[slots.slot].wait(slots.phase);
            const auto info = storage.tile[slots.slot].warp_uniform();
            storage.tile_empty[slots.slot].arrive();
            slots.advance();
            if (info.phase == TileInfo::kEnd) return;
            const int stages = num_stages<Tile>(params.phase[info.phase], info);
            const int passes = (info.tokens + kTokens - 1) / kTokens * Tile::kStageSegments;
            for (int s = 0; s < stages; ++s, ring.advance()) {
                Mainloop<Tile, Tile::kTokens>::wait_stage(storage, ring);
                sum_stage(storage, ring.slot, passes, s * passes, thread / 32, thread % 32);
                storage.token_sums.full[ring.slot].arrive();
                storage.empty[ring.slot].arrive();
            }
        }
    }
};

}  // namespace moe_jit::cuda::gemm
