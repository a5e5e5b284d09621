// Weight half of the grouped GEMM's ring: one warp claims tiles and streams weight tiles with TMA. Weights
// and tokens of a stage are filled independently, so weights run ahead while token rows of the next phase are
// still being computed.
#pragma once

#include <cute/arch/copy_sm90_tma.hpp>

#include "moe_jit/cuda/gemm/params.h"
#include "moe_jit/cuda/gemm/scheduler.cuh"
#include "moe_jit/cuda/gemm/tile.cuh"

namespace moe_jit::cuda::gemm {

// Hands the leader's claims to the other CTA of a cluster: a 4-byte store that completes a barrier there.
__device__ __forceinline__ void send_claim(int* slot, uint64_t* barrier, int claim, int rank) {
    uint32_t remote_slot, remote_barrier;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(remote_slot)
                 : "r"(cute::cast_smem_ptr_to_uint(slot)), "r"(rank));
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
                 : "=r"(remote_barrier)
                 : "r"(cute::cast_smem_ptr_to_uint(barrier)), "r"(rank));
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.s32 [%0], %1, [%2];" ::"r"(remote_slot),
        "r"(claim), "r"(remote_barrier)
        : "memory");
}

template <class Tile, class Params>
struct WeightProducer {
    using Storage = SharedStorage<Tile>;
    using Ring = RingCursor<Tile::kStages>;
    using Claims = RingCursor<kClaimSlots>;

    // Lane 0: the next tile of this cluster.
    struct Claimer {
        Storage& storage;
        int32_t* counter;
        int rank;
        int next;
        Claims slots{};

        __device__ __forceinline__ void prefetch() { next = claim_tile<Tile>(counter); }
        __device__ __forceinline__ int take() {
            if constexpr (Tile::kCluster > 1) {
                auto& barrier = storage.claim_full[slots.slot];
                if (rank == 0) {
                    for (int peer = 1; peer < Tile::kCluster; ++peer) {
                        send_claim(&storage.claim[slots.slot], reinterpret_cast<uint64_t*>(&barrier), next,
                                   peer);
                    }
                } else {
                    barrier.arrive_and_expect_tx(sizeof(int));
                    barrier.wait(slots.phase);
                    next = *static_cast<volatile int*>(&storage.claim[slots.slot]);
                }
                slots.advance();
            }
            return next;
        }
    };

    __device__ __forceinline__ static void load_box(Storage& storage, const Params& params,
                                                    const TileInfo& info, int slot, int box, int stage,
                                                    int block, uint64_t hint) {
        using Weights = typename Tile::Format::Weights;
        const int k_block = stage * Tile::kBlocks + block;
        const auto [at] = Weights::template box_origin<Tile>(params.phase[info.phase], info, box, k_block);
        const CUtensorMap* map = &params.weights[info.phase];
        auto* barrier = reinterpret_cast<uint64_t*>(&storage.full[slot]);
        void* target = storage.weights[slot] + block * Tile::kWeightBlockBytes + box * Tile::kBoxBytes;
        if constexpr (Tile::kCluster > 1) {
            constexpr uint16_t kAll = (1 << Tile::kCluster) - 1;
            cute::SM90_TMA_LOAD_MULTICAST_5D::copy(map, barrier, kAll, hint, target, at[0], at[1], at[2],
                                                   at[3], at[4]);
        } else {
            cute::SM90_TMA_LOAD_5D::copy(map, barrier, hint, target, at[0], at[1], at[2], at[3], at[4]);
        }
    }

    __device__ static void stream_tile(Storage& storage, const Params& params, const TileInfo& info, int rank,
                                       Ring& ring) {
        // A weight byte that only one tile needs should not displace token rows from L2.
        const uint64_t hint =
            static_cast<uint64_t>(info.shared_weights ? cute::TMA::CacheHintSm90::EVICT_NORMAL
                                                      : cute::TMA::CacheHintSm90::EVICT_FIRST);
        const int stages = num_stages<Tile>(params.phase[info.phase]);
        for (int s = 0; s < stages; ++s, ring.advance()) {
            storage.empty[ring.slot].wait(ring.phase ^ 1);
            storage.full[ring.slot].arrive_and_expect_tx(Tile::kWeightStageBytes);
#pragma unroll
            for (int block = 0; block < Tile::kBlocks; ++block) {
#pragma unroll
                for (int box = 0; box < Tile::kBoxes; box += Tile::kCluster) {
                    load_box(storage, params, info, ring.slot, box + rank, s, block, hint);
                }
            }
        }
    }

    // The whole warp decodes; lane 0 claims, announces the tile and streams it.
    __device__ static void run(Storage& storage, const Params& params, int first_claim) {
        const int rank = cluster_rank<Tile>();
        const bool elected = threadIdx.x % 32 == 0;
        Ring ring;
        RingCursor<kTileSlots> slots;
        Claimer claimer{storage, params.schedule.next_tile, rank, first_claim};
        while (true) {
            const int claim = elected ? claimer.take() : 0;
            const TileInfo info =
                decode_tile<Tile>(storage, params, __shfl_sync(0xffffffffu, claim, 0), rank);
            if (elected) {
                storage.tile_empty[slots.slot].wait(slots.phase ^ 1);
                storage.tile[slots.slot] = info;
                storage.tile_full[slots.slot].arrive();
            }
            slots.advance();
            if (info.phase == TileInfo::kEnd) return;
            if (elected) {
                claimer.prefetch();
                stream_tile(storage, params, info, rank, ring);
            }
            __syncwarp();
        }
    }
};

}  // namespace moe_jit::cuda::gemm
