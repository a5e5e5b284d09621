// Dynamic tile scheduler. Tiles have one global order: phase by phase, expert by expert, weight-row tile by
// weight-row tile, token tile by token tile, so that tiles which share weights run side by side. A phase is
// claimed from its beginning, or from both ends. Of few tokens, tiles may be cut into parts of K, and the
// work may come as a list while routing still runs.
//
// Every tile is claimed by a CTA that is already running, and a tile of phase p waits only for tiles of phase
// p - 1, which all come earlier in the order: progress needs no co-residency of CTAs.
#pragma once

#include "moe_jit/cuda/gemm/pair.cuh"
#include "moe_jit/cuda/gemm/params.h"
#include "moe_jit/cuda/gemm/tile.cuh"

namespace moe_jit::cuda::gemm {

// Stages that one tile of a phase passes through the ring.
template <class Tile>
__device__ __forceinline__ int num_stages(const PhaseParams& phase) {
    constexpr int kStageK = Tile::kBlocks * kBlockBytes;
    return (phase.k_bytes + kStageK - 1) / kStageK;
}

// Of a unit of work: its stages, and where in K they begin.
template <class Tile>
__device__ __forceinline__ int num_stages(const PhaseParams& phase, const TileInfo&) {
    return num_stages<Tile>(phase);
}
template <class Tile>
__device__ __forceinline__ int num_stages(const PhaseParams&, const TilePart& part) {
    return part.stages;
}
__device__ __forceinline__ int part_of(const TileInfo&) { return 0; }
__device__ __forceinline__ int part_of(const TilePart& part) { return part.part; }
__device__ __forceinline__ int first_stage(const TileInfo&) { return 0; }
__device__ __forceinline__ int first_stage(const TilePart& part) { return part.first_stage; }

template <class Tile>
__device__ __forceinline__ bool is_listed(const Schedule& schedule) {
    return Tile::kFewTokens && schedule.list != nullptr;
}

template <class Tile>
__device__ __forceinline__ StageRing<Tile> stage_ring(const Schedule& schedule) {
    if constexpr (Tile::kFewTokens) {
        return {schedule.ring_stages};
    } else {
        return {};
    }
}

// Whether a phase waits for the values of the one before instead of its signals.
template <class Tile>
__device__ __forceinline__ bool awaits_values(const Schedule& schedule) {
    return Tile::kFewTokens && schedule.awaits_values;
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

// Which of a phase's tiles is claimed as number `id`. From both ends, tiles of an expert with many rows,
// bound by arithmetic, run beside tiles of others, bound by memory.
__device__ __forceinline__ int claimed_tile(const Schedule& schedule, int id, int tiles) {
    if (!schedule.from_both_ends) return id;
    return id % 2 == 0 ? id / 2 : tiles - 1 - id / 2;
}

// What is claimed of a phase: parts of tiles, or tiles for each CTA, all row tiles of a token tile together.
template <class Tile>
__device__ __forceinline__ int num_parts(const PhaseParams& phase) {
    if constexpr (Tile::kCtas > 1) return (phase.row_tiles + Tile::kCtas - 1) / Tile::kCtas;
    return Tile::kFewTokens ? phase.row_tiles * phase.k_parts : phase.row_tiles;
}

// Place of a unit of work among those of an expert with `tiles` token tiles.
struct Place {
    int row_tile;
    int token_tile;
    WeightReaders readers;
};

template <class Tile>
__device__ __forceinline__ Place place_in_expert(int local, int tiles, int row_tiles) {
    if constexpr (Tile::kCtas == 1) return {local / tiles, local % tiles, tiles > 1 ? kTiles : kOneTile};
    // Two token tiles of a row tile; of an odd number of token tiles, two row tiles of the last one.
    const int pairs = tiles / 2, rank = cluster_rank<Tile>();
    const int alone = local - pairs * Tile::kCtas * row_tiles;
    if (alone >= 0) return {alone * Tile::kCtas + rank, tiles - 1, tiles > 1 ? kTiles : kOneTile};
    return {local / pairs, local % pairs * Tile::kCtas + rank, pairs > 1 || tiles % 2 ? kPairs : kOnePair};
}

// The row tile's index counts parts: the part of K is split off.
template <class Tile>
__device__ __forceinline__ void split_k(const PhaseParams& phase, TilePart& part) {
    const int stages = num_stages<Tile>(phase);
    const int shift = phase.k_parts / 2;  // 1, 2 or 4 parts
    part.part = part.row_tile & (phase.k_parts - 1);
    part.row_tile >>= shift;
    part.first_stage = stages * part.part >> shift;
    part.stages = (stages * (part.part + 1) >> shift) - part.first_stage;
}

// The list of few tokens, word by word as the routing kernel writes it; one warp takes part.
template <class Storage>
__device__ __forceinline__ void await_list(Storage& storage, const Schedule& schedule) {
    constexpr int kWords = kListedRows / 32;  // of a lane
    const int lane = threadIdx.x % 32;
    unsigned long long word[kWords];
    int rows;
    bool complete;
    do {
#pragma unroll
        for (int i = 0; i < kWords; ++i) {
            asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];"
                         : "=l"(word[i])
                         : "l"(schedule.list + 32 * i + lane)
                         : "memory");
        }
        rows = static_cast<int>(__shfl_sync(0xffffffffu, word[0], 0) >> 48) - 1;
        complete = rows >= 0;
#pragma unroll
        for (int i = 0; i < kWords; ++i) complete &= 32 * i + lane >= rows || word[i] != 0;
    } while (!__all_sync(0xffffffffu, complete));
    int count = 0;
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
        const bool is_first = 32 * i + lane < rows && (word[i] >> 32 & 0xffff) != 0;
        const unsigned firsts = __ballot_sync(0xffffffffu, is_first);
        if (is_first) {
            auto* expert = &storage.list.expert[count + __popc(firsts & ((1u << lane) - 1))];
            *reinterpret_cast<unsigned long long*>(expert) = word[i];
        }
        count += __popc(firsts);
    }
    storage.list.count = count;
    __syncwarp();
}

// Part `id` of listed experts, each of which has one token tile.
template <class Tile, class Params>
__device__ __forceinline__ TilePart decode_listed(const SharedStorage<Tile>& storage, const Params& params,
                                                  int id) {
    TilePart part{};
    const int count = storage.list.count;
#pragma unroll
    for (int p = 0; p < Params::kPhases; ++p) {
        const PhaseParams& phase = params.phase[p];
        const int parts = count * phase.row_tiles * phase.k_parts;
        if (id >= parts) {
            id -= parts;
            continue;
        }
        part.phase = p;
        // Exact, because id is below 2^21.
        part.token_tile = static_cast<int>((static_cast<float>(id) + 0.5f) * phase.inverse_parts);
        part.row_tile = id - part.token_tile * (phase.row_tiles * phase.k_parts);
        split_k<Tile>(phase, part);
        const ListedRow& expert = storage.list.expert[part.token_tile];
        part.expert = expert.expert;
        part.token_begin = expert.row;
        part.tokens = __popc(expert.tokens);
        return part;
    }
    part.phase = TileInfo::kEnd;
    return part;
}

// Tile, or part of a tile, `id` of the global order; a whole warp takes part.
template <class Tile, class Params>
__device__ __forceinline__ WorkOf<Tile> decode_tile(const SharedStorage<Tile>& storage, const Params& params,
                                                    int id) {
    if constexpr (Tile::kFewTokens) {
        if (is_listed<Tile>(params.schedule)) return decode_listed(storage, params, id);
    }
    const int num_experts = params.schedule.num_experts;
    const int token_tiles = storage.tile_offsets[num_experts];
    WorkOf<Tile> info{};
    info.phase = 0;
    while (info.phase < Params::kPhases && id >= token_tiles * num_parts<Tile>(params.phase[info.phase])) {
        id -= token_tiles * num_parts<Tile>(params.phase[info.phase]);
        ++info.phase;
    }
    if (info.phase == Params::kPhases) {
        info.phase = TileInfo::kEnd;
        return info;
    }
    const int row_tiles = num_parts<Tile>(params.phase[info.phase]);
    id = claimed_tile(params.schedule, id, token_tiles * row_tiles);
    // Expert e owns ids [tile_offsets[e] * row_tiles, tile_offsets[e + 1] * row_tiles).
    info.expert = find_expert(storage.tile_offsets, num_experts, id / row_tiles);
    const int first_tile = storage.tile_offsets[info.expert];
    const int tiles = storage.tile_offsets[info.expert + 1] - first_tile;
    const int local = id - first_tile * row_tiles;
    const int row_begin = storage.row_offsets[info.expert];
    const int rows = storage.row_offsets[info.expert + 1] - row_begin;
    const int width = equal_width(rows, tiles);
    const Place place = place_in_expert<Tile>(local, tiles, row_tiles);
    info.row_tile = place.row_tile;
    info.token_tile = first_tile + place.token_tile;
    info.token_begin = row_begin + place.token_tile * width;
    info.tokens = min(width, rows - place.token_tile * width);
    info.weight_readers = place.readers;
    // A pair that has one row tile left: its other CTA computes a tile without tokens.
    if (Tile::kCtas > 1 && info.row_tile >= params.phase[info.phase].row_tiles) info.tokens = 0;
    if constexpr (Tile::kFewTokens) split_k<Tile>(params.phase[info.phase], info);
    if constexpr (Tile::Format::kGroupedDepth) {
        constexpr int kStageDepth = Tile::kBlocks * Tile::Format::kDepth;
        info.stages = (params.format.depths[info.expert] + kStageDepth - 1) / kStageDepth;
    }
    if (params.schedule.expert_ids) info.expert = params.schedule.expert_ids[info.expert];
    return info;
}

// A map that a kernel before has written, made visible to this thread's TMA copies.
__device__ __forceinline__ const CUtensorMap* acquired(const CUtensorMap* map) {
    asm volatile("fence.proxy.tensormap::generic.acquire.gpu [%0], 128;" ::"l"(map) : "memory");
    return map;
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
