// Producers of the grouped GEMM's ring: one warp claims tiles and streams weight tiles with TMA, three warps
// gather token rows with cp.async. They fill the two halves of a stage independently, so weights run ahead
// while token rows of the next phase are still being computed.
#pragma once

#include <cute/arch/copy_sm90_tma.hpp>

#include "moe_jit/cuda/gemm/params.h"
#include "moe_jit/cuda/gemm/scheduler.cuh"
#include "moe_jit/cuda/gemm/tile.cuh"

namespace moe_jit::cuda::gemm {

__device__ __forceinline__ int num_k_blocks(const PhaseParams& phase) {
    return (phase.k_bytes + kBlockBytes - 1) / kBlockBytes;
}

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
                                                    const TileInfo& info, int slot, int box, int k_offset,
                                                    uint64_t hint) {
        const int block = (info.row_tile * Tile::kBoxes + box) * params.phase[info.phase].blocks_per_box;
        const CUtensorMap* map = &params.weights[info.phase];
        auto* barrier = reinterpret_cast<uint64_t*>(&storage.full[slot]);
        void* target = storage.weights[slot] + box * Tile::kBoxBytes;
        if constexpr (Tile::kCluster > 1) {
            cute::SM90_TMA_LOAD_MULTICAST_5D::copy(map, barrier, (1 << Tile::kCluster) - 1, hint, target,
                                                   k_offset, 0, 0, block, info.expert);
        } else {
            cute::SM90_TMA_LOAD_5D::copy(map, barrier, hint, target, k_offset, 0, 0, block, info.expert);
        }
    }

    __device__ static void stream_tile(Storage& storage, const Params& params, const TileInfo& info, int rank,
                                       Ring& ring) {
        // A weight byte that only one tile needs should not displace token rows from L2.
        const uint64_t hint =
            static_cast<uint64_t>(info.shared_weights ? cute::TMA::CacheHintSm90::EVICT_NORMAL
                                                      : cute::TMA::CacheHintSm90::EVICT_FIRST);
        const int k_blocks = num_k_blocks(params.phase[info.phase]);
        for (int kb = 0; kb < k_blocks; ++kb, ring.advance()) {
            storage.empty[ring.slot].wait(ring.phase ^ 1);
            storage.full[ring.slot].arrive_and_expect_tx(Tile::kWeightStageBytes);
#pragma unroll
            for (int box = 0; box < Tile::kBoxes; box += Tile::kCluster) {
                load_box(storage, params, info, ring.slot, box + rank, kb * kBlockBytes, hint);
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

// 16-byte asynchronous copy that zero-fills when `valid` is false.
__device__ __forceinline__ void copy_async_16(uint32_t shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}

template <class Tile, class Params>
struct TokenProducer {
    using Storage = SharedStorage<Tile>;
    using Ring = RingCursor<Tile::kStages>;
    // One warp instruction moves 4 rows of 128 bytes.
    static constexpr int kRowsPerCopy = 4;
    static constexpr int kCopies =
        (Tile::kTokens + kRowsPerCopy * kGatherWarps - 1) / (kRowsPerCopy * kGatherWarps);

    static constexpr int kRowStep = kRowsPerCopy * kGatherWarps;
    static constexpr uint32_t kNoRow = ~0u;

    // Copy i of thread t moves chunk t % 8 of row t / 8 + i * kRowStep. Sources are offsets in 16-byte units.
    __device__ static void locate_rows(uint32_t (&source)[kCopies], const PhaseParams& phase,
                                       const TileInfo& info, int thread) {
#pragma unroll
        for (int i = 0; i < kCopies; ++i) {
            const int row = thread / 8 + i * kRowStep;
            source[i] = kNoRow;
            if (row < info.tokens) {
                const int sorted = info.token_begin + row;
                const uint32_t token = phase.row_ids ? phase.row_ids[sorted] / phase.pairs_per_token : sorted;
                source[i] = token * (phase.k_bytes / 16) + thread % 8;
            }
        }
    }

    __device__ static void gather_tile(Storage& storage, const PhaseParams& phase, const TileInfo& info,
                                       int thread, Ring& ring) {
        static_assert(kRowStep % 8 == 4, "the swizzle below alternates between two chunks");
        uint32_t source[kCopies];
        locate_rows(source, phase, info, thread);
        const int row = thread / 8;
        const int chunk = thread % 8;
        const uint32_t target = row * kBlockBytes + ((chunk ^ (row & 7)) * 16);
        const uint4* tokens = reinterpret_cast<const uint4*>(phase.tokens);
        const int k_blocks = num_k_blocks(phase);
        for (int kb = 0; kb < k_blocks; ++kb, ring.advance()) {
            storage.empty[ring.slot].wait(ring.phase ^ 1);
            const uint32_t stage = cute::cast_smem_ptr_to_uint(storage.tokens[ring.slot]);
            const bool in_k = kb * kBlockBytes + chunk * 16 < phase.k_bytes;
            const uint4* block = tokens + (in_k ? kb * (kBlockBytes / 16) : 0);
#pragma unroll
            for (int i = 0; i < kCopies; ++i) {
                const uint32_t swizzled = i % 2 ? target ^ 64 : target;
                if (source[i] != kNoRow) {
                    copy_async_16(stage + swizzled + i * kRowStep * kBlockBytes, block + source[i], in_k);
                }
            }
            cutlass::arch::cpasync_barrier_arrive_noinc(
                reinterpret_cast<uint64_t const*>(&storage.full[ring.slot]));
        }
    }

    __device__ static void run(Storage& storage, const Params& params, int thread) {
        Ring ring;
        RingCursor<kTileSlots> slots;
        while (true) {
            storage.tile_full[slots.slot].wait(slots.phase);
            const TileInfo info = storage.tile[slots.slot].warp_uniform();
            if (thread % 32 == 0) storage.tile_empty[slots.slot].arrive();
            slots.advance();
            if (info.phase == TileInfo::kEnd) return;
            const PhaseParams& phase = params.phase[info.phase];
            if (info.phase > 0) {
                if (thread % 32 == 0) {
                    wait_ready(params.schedule.ready + info.token_tile,
                               ready_target<Tile>(params.phase[info.phase - 1]));
                }
                __syncwarp();
            }
            gather_tile(storage, phase, info, thread, ring);
        }
    }
};

}  // namespace moe_jit::cuda::gemm
