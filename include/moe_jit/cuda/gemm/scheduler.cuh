// Dynamic tile scheduler. Tiles have one global order: phase by phase, expert by expert, weight-row tile by
// weight-row tile, token tile by token tile, so that tiles which share weights run side by side.
//
// Every tile is claimed by a CTA that is already running, and a tile of phase p waits only for tiles of phase
// p - 1, which all come earlier in the order: progress needs no co-residency of CTAs.
#pragma once

#include "moe_jit/cuda/gemm/params.h"
#include "moe_jit/cuda/gemm/tile.cuh"

namespace moe_jit::cuda::gemm {

// Stages that one tile of a phase passes through the ring.
template <class Tile>
__device__ __forceinline__ int num_stages(const PhaseParams& phase) {
    constexpr int kStageK = Tile::kBlocks * kBlockBytes;
    return (phase.k_bytes + kStageK - 1) / kStageK;
}

// Copies the prefix sums to shared memory; all kThreads threads take part. Ends without a barrier.
template <class Storage>
__device__ __forceinline__ void load_schedule(Storage& storage, const Schedule& schedule) {
    for (int e = threadIdx.x; e <= schedule.num_experts; e += kThreads) {
        storage.row_offsets[e] = schedule.row_offsets[e];
        storage.tile_offsets[e] = schedule.tile_offsets[e];
    }
}

// Largest e with tile_offsets[e] <= token_tile, found by a whole warp: of equal offsets the last one is the
// expert that owns rows.
__device__ __forceinline__ int find_expert(const int* tile_offsets, int num_experts, int token_tile) {
    const int lane = threadIdx.x % 32;
    int begin = 0;
    int count = num_experts;
    while (count > 1) {
        const int step = (count + 31) / 32;
        const int probe = begin + lane * step;
        const bool below = lane * step < count && tile_offsets[probe] <= token_tile;
        const int hit = 31 - __clz(__ballot_sync(0xffffffffu, below));
        begin += hit * step;
        count = min(step, count - hit * step);
    }
    return begin;
}

__device__ __forceinline__ int equal_width(int rows, int tiles) {
    const int share = (rows + tiles - 1) / tiles;
    return (share + 7) & ~7;
}

// Tile `id` of the global order; a whole warp takes part.
template <class Tile, class Params>
__device__ __forceinline__ TileInfo decode_tile(const SharedStorage<Tile>& storage, const Params& params,
                                                int id) {
    const int num_experts = params.schedule.num_experts;
    const int token_tiles = storage.tile_offsets[num_experts];
    TileInfo info{};
    info.phase = 0;
    while (info.phase < Params::kPhases && id >= token_tiles * params.phase[info.phase].row_tiles) {
        id -= token_tiles * params.phase[info.phase].row_tiles;
        ++info.phase;
    }
    if (info.phase == Params::kPhases) {
        info.phase = TileInfo::kEnd;
        return info;
    }
    const int row_tiles = params.phase[info.phase].row_tiles;
    // Expert e owns ids [tile_offsets[e] * row_tiles, tile_offsets[e + 1] * row_tiles).
    info.expert = find_expert(storage.tile_offsets, num_experts, id / row_tiles);
    const int first_tile = storage.tile_offsets[info.expert];
    const int tiles = storage.tile_offsets[info.expert + 1] - first_tile;
    const int local = id - first_tile * row_tiles;
    const int row_begin = storage.row_offsets[info.expert];
    const int rows = storage.row_offsets[info.expert + 1] - row_begin;
    const int width = equal_width(rows, tiles);
    const int token_tile = local % tiles;
    info.row_tile = local / tiles;
    info.token_tile = first_tile + token_tile;
    info.token_begin = row_begin + token_tile * width;
    info.tokens = min(width, rows - token_tile * width);
    info.shared_weights = tiles > 1;
    if (params.schedule.expert_ids) info.expert = params.schedule.expert_ids[info.expert];
    return info;
}

// Number of signals that complete a token tile of `phase`.
template <class Tile>
__device__ __forceinline__ int ready_target(const PhaseParams& phase) {
    return phase.row_tiles * Tile::kTileWarpgroups;
}

__device__ __forceinline__ void wait_ready(const int32_t* counter, int target) {
    int seen;
    do {
        asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
    } while (seen < target);
}

__device__ __forceinline__ void signal_ready(int32_t* counter) {
    asm volatile("red.release.gpu.global.add.s32 [%0], 1;" ::"l"(counter) : "memory");
}

}  // namespace moe_jit::cuda::gemm
