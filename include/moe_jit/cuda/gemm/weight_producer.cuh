// Weight half of the grouped GEMM's ring: one warp claims tiles and streams weight tiles with TMA. Weights
// and tokens of a stage are filled independently, so weights run ahead while token rows of the next phase are
// still being computed.
#pragma once

#include <cute/arch/copy_sm90_tma.hpp>

#include "moe_jit/cuda/gemm/pair.cuh"
#include "moe_jit/cuda/gemm/params.h"
#include "moe_jit/cuda/gemm/scheduler.cuh"
#include "moe_jit/cuda/gemm/tile.cuh"

namespace moe_jit::cuda::gemm {

template <class Tile, class Params>
struct WeightProducer {
    using Storage = SharedStorage<Tile>;
    using Ring = StageRing<Tile>;

    using Weights = typename Tile::Format::Weights;
    // Asks L2 for the beginning of tile blockIdx.x, if every expert has one token tile.
    __device__ static void prefetch(const Params& params) {
        const PhaseParams& phase = params.phase[0];
        const int tiles = params.schedule.num_experts * phase.row_tiles;
        if (blockIdx.x >= tiles) return;
        const int id = claimed_tile(params.schedule, blockIdx.x, tiles);
        TileInfo info{};
        info.expert = id / phase.row_tiles;
        info.row_tile = id % phase.row_tiles;
        const int blocks = min(params.prefetched_stages, num_stages<Tile>(phase)) * Tile::kBlocks;
        for (int block = 0; block < blocks; block += Tile::kBoxBlocks) {
            for (int box = 0; box < Tile::kBoxes; ++box) {
                const auto [at] = Weights::template box_origin<Tile>(phase, info, box, block);
                cute::SM90_TMA_LOAD_5D::PREFETCH::copy(&params.weights[0], at[0], at[1], at[2], at[3], at[4]);
            }
        }
    }

    template <bool kForPair = false>
    __device__ __forceinline__ static void load_box(Storage& storage, const Params& params,
                                                    const CUtensorMap* map, const TileInfo& info, int slot,
                                                    int box, int stage, int block, uint64_t hint) {
        const int k_block = stage * Tile::kBlocks + block;
        const auto [at] = Weights::template box_origin<Tile>(params.phase[info.phase], info, box, k_block);
        auto* barrier = reinterpret_cast<uint64_t*>(&storage.full[slot]);
        void* target = storage.weights[slot] + block * Tile::kWeightBlockBytes + box * Tile::kBoxBytes;
        if constexpr (kForPair) {
            constexpr uint16_t kBoth = 0b11;
            cute::SM90_TMA_LOAD_MULTICAST_5D::copy(map, barrier, kBoth, hint, target, at[0], at[1], at[2],
                                                   at[3], at[4]);
        } else {
            cute::SM90_TMA_LOAD_5D::copy(map, barrier, hint, target, at[0], at[1], at[2], at[3], at[4]);
        }
    }

    __device__ __forceinline__ static void load_block(Storage& storage, const Params& params,
                                                      const CUtensorMap* map, const TileInfo& info, int slot,
                                                      int stage, int block, uint64_t hint) {
        if constexpr (Tile::kCtas > 1) {
            if (info.shares_weights()) {
                constexpr int kOwn = Tile::kBoxes / Tile::kCtas;
#pragma unroll
                for (int i = 0; i < kOwn; ++i) {
                    const int box = cluster_rank<Tile>() * kOwn + i;
                    load_box<true>(storage, params, map, info, slot, box, stage, block, hint);
                }
                return;
            }
        }
#pragma unroll
        for (int box = 0; box < Tile::kBoxes; ++box) {
            load_box(storage, params, map, info, slot, box, stage, block, hint);
        }
    }

    // Scales of the rows of a stage, by one bulk copy for each segment of K.
    __device__ __forceinline__ static void load_scales(Storage& storage, const Params& params,
                                                       const TileInfo& info, int slot, int stage, int bytes) {
        auto* barrier = reinterpret_cast<uint64_t*>(&storage.full[slot]);
#pragma unroll
        for (int row = 0; row < Tile::kScaleRows; ++row) {
            const void* from = Tile::Format::scales(
                params.format, info.expert, (stage * Tile::kScaleRows + row) * Tile::Format::kScaleSteps,
                info.row_tile * Tile::kRows);
            cute::SM90_BULK_COPY_G2S::copy(from, barrier, storage.scales.row[slot][row], bytes);
        }
    }

    // Not an addition: ptxas would add for all lanes at once, and wait for the sum to shuffle it to them.
    __device__ __forceinline__ static int claim_tile(const Schedule& schedule) {
        constexpr unsigned kMostClaims = 0x7fffffff;
        return static_cast<int>(atomicInc(reinterpret_cast<unsigned*>(schedule.next_tile), kMostClaims));
    }

    __device__ static void stream_tile(Storage& storage, const Params& params, const WorkOf<Tile>& info,
                                       Ring& ring, int& next_claim) {
        // A weight byte that is needed once should not displace token rows from L2.
        const uint64_t hint =
            static_cast<uint64_t>(info.reads_weights_once() ? cute::TMA::CacheHintSm90::EVICT_FIRST
                                                            : cute::TMA::CacheHintSm90::EVICT_NORMAL);
        const PhaseParams& phase = params.phase[info.phase];
        const int stages = num_stages<Tile>(phase, info);
        TileInfo source = info;
        const CUtensorMap* map = &params.weights[info.phase];
        if constexpr (Tile::Format::kGroupedDepth) {
            map = acquired(params.format.weight_maps + info.expert);
            source.expert = 0;
        } else if (Tile::kTokensInOrder && phase.weight_at) {
            source.expert = phase.weight_at[info.expert];
        }
        int scale_bytes = 0;
        if constexpr (Tile::kScaled) {
            const int rows = min(params.format.columns - info.row_tile * Tile::kRows, Tile::kRows);
            scale_bytes = rows * Tile::Format::kScaleBytes;
        }
        if (Tile::Format::kGroupedDepth && stages == 0) next_claim = claim_tile(params.schedule);
        const int claiming_stage = max(stages - params.schedule.claimed_ahead, 0);
        for (int s = 0; s < stages; ++s, ring.advance()) {
            storage.empty[ring.slot].wait(ring.phase ^ 1);
            if (s == claiming_stage && is_leader<Tile>()) next_claim = claim_tile(params.schedule);
            storage.full[ring.slot].arrive_and_expect_tx(Tile::kWeightStageBytes +
                                                         Tile::kScaleRows * scale_bytes);
#pragma unroll
            for (int block = 0; block < Tile::kBlocks; block += Tile::kBoxBlocks) {
                load_block(storage, params, map, source, ring.slot, first_stage(info) + s, block, hint);
            }
            if constexpr (Tile::kScaled) {
                load_scales(storage, params, info, ring.slot, first_stage(info) + s, scale_bytes);
            }
        }
    }

    // The whole warp decodes; lane 0 claims, announces the tile and streams it.
    __device__ static void run(Storage& storage, const Params& params, int first_claim) {
        const bool elected = threadIdx.x % 32 == 0;
        Ring ring = stage_ring<Tile>(params.schedule);
        RingCursor<kTileSlots> slots;
        PairClaims<Tile> claims(storage);
        int claim = first_claim;
        if constexpr (Tile::kFewTokens) {
            if (is_listed<Tile>(params.schedule)) await_list(storage, params.schedule);
        }
        while (true) {
            if (elected) claim = claims.share(claim);
            const auto info = decode_tile<Tile>(storage, params, __shfl_sync(0xffffffffu, claim, 0));
            if (elected) {
                storage.tile_empty[slots.slot].wait(slots.phase ^ 1);
                storage.tile[slots.slot] = info;
                storage.tile_full[slots.slot].arrive();
            }
            slots.advance();
            if (info.phase == TileInfo::kEnd) return;
            if (elected) {
                stream_tile(storage, params, info, ring, claim);
            }
            __syncwarp();
        }
    }
};

}  // namespace moe_jit::cuda::gemm
