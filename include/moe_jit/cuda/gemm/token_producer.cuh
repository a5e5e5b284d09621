// Token half of the grouped GEMM's ring: rows of the tile's tokens, brought from wherever they are.
#pragma once

#include <cute/arch/copy_sm90_tma.hpp>
#include <type_traits>

#include "moe_jit/cuda/gemm/params.h"
#include "moe_jit/cuda/gemm/scheduler.cuh"
#include "moe_jit/cuda/gemm/tile.cuh"
#include "moe_jit/cuda/pdl.cuh"

namespace moe_jit::cuda::gemm {

// Of row `i` of a tile: its pair, where tokens have several, else its token row.
template <class Tile, class Params>
__device__ __forceinline__ uint32_t row_id(const SharedStorage<Tile>& storage, const Params& params,
                                           const TileInfo& info, int i) {
    const PhaseParams& phase = params.phase[info.phase];
    if constexpr (Tile::kFewTokens) {
        if (info.phase == 0 && is_listed<Tile>(params.schedule)) {
            return __fns(storage.list.expert[info.token_tile].tokens, 0, i + 1);
        }
    }
    const int row = info.token_begin + i;
    return phase.row_ids ? phase.row_ids[row] : row;
}

__device__ __forceinline__ uint32_t token_row(const PhaseParams& phase, uint32_t id) {
    const Divisor& pairs = phase.pairs_per_token;
    return pairs.inverse ? __umulhi(id, pairs.inverse) >> pairs.shift : id;
}

__device__ __forceinline__ bool is_written(const uint4& v) {
    return (__vcmpeq4(v.x, kUnwritten) | __vcmpeq4(v.y, kUnwritten) | __vcmpeq4(v.z, kUnwritten) |
            __vcmpeq4(v.w, kUnwritten)) == 0;
}

// Returns when the values of a tile's rows are there, in the part of K that it needs; a warp takes part.
template <class Tile>
__device__ __forceinline__ void await_values(const PhaseParams& phase, const TilePart& info) {
    constexpr int kStageK = Tile::kBlocks * kBlockBytes;
    constexpr int kRequests = 4;
    const int begin = info.first_stage * kStageK;
    const int row_vectors = (min(begin + info.stages * kStageK, phase.k_bytes) - begin) / 16;
    const int vectors = info.tokens * row_vectors;
    const auto* rows = phase.tokens + static_cast<int64_t>(info.token_begin) * phase.token_pitch + begin;
    for (int first = threadIdx.x % 32; first < vectors; first += 32 * kRequests) {
        bool complete;
        do {
            uint4 v[kRequests];
#pragma unroll
            for (int i = 0; i < kRequests; ++i) {
                const int vector = min(first + 32 * i, vectors - 1);
                const int row = vector / row_vectors, column = vector - row * row_vectors;
                asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                             : "=r"(v[i].x), "=r"(v[i].y), "=r"(v[i].z), "=r"(v[i].w)
                             : "l"(rows + row * phase.token_pitch + column * 16)
                             : "memory");
            }
            complete = true;
#pragma unroll
            for (const uint4& vector : v) complete &= is_written(vector);
        } while (!complete);
    }
}

// 16-byte asynchronous copy that zero-fills when `valid` is false.
__device__ __forceinline__ void copy_async_16(uint32_t shared, const void* global, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global),
                 "r"(valid ? 16 : 0)
                 : "memory");
}

// Any number of rows, with cp.async.
template <class Tile, class Params>
struct CopyGather {
    using Storage = SharedStorage<Tile>;
    using Ring = StageRing<Tile>;
    static constexpr int kWarps = 3;
    static constexpr int kArrivals = 32 * kWarps;  // per stage
    // One warp instruction moves 4 rows of 128 bytes.
    static constexpr int kRowsPerCopy = 4;
    static constexpr int kCopies = (Tile::kTokens + kRowsPerCopy * kWarps - 1) / (kRowsPerCopy * kWarps);

    static constexpr int kRowStep = kRowsPerCopy * kWarps;
    static constexpr uint32_t kNoRow = ~0u;

    // Whether the warp of a thread moves anything.
    __device__ __forceinline__ static bool gathers(const TileInfo& info, int thread) {
        return thread / 32 * kRowsPerCopy < info.tokens;
    }

    // Copy i of thread t moves chunk t % 8 of row t / 8 + i * kRowStep. Sources are offsets in 16-byte units.
    // All ids are requested before the first one is used, those of absent rows, too.
    template <int kCount>
    __device__ static void locate_rows(uint32_t (&source)[kCount], const Storage& storage,
                                       const Params& params, const TileInfo& info, int thread) {
        const PhaseParams& phase = params.phase[info.phase];
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            source[i] = row_id<Tile>(storage, params, info, min(thread / 8 + i * kRowStep, info.tokens - 1));
        }
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
            source[i] = token_row(phase, source[i]) * (phase.token_pitch / 16) + thread % 8;
            if (thread / 8 + i * kRowStep >= info.tokens) source[i] = kNoRow;
        }
    }

    // Tiles of at most kCount * kRowStep tokens.
    template <int kCount>
    __device__ static void gather_rows(Storage& storage, const Params& params, const WorkOf<Tile>& info,
                                       int thread, Ring& ring) {
        const PhaseParams& phase = params.phase[info.phase];
        static_assert(kRowStep % 8 == 4, "the swizzle below alternates between two chunks");
        uint32_t source[kCount];
        locate_rows(source, storage, params, info, thread);
        const int row = thread / 8;
        const int chunk = thread % 8;
        const uint32_t target = row * kBlockBytes + ((chunk ^ (row & 7)) * 16);
        const uint4* tokens = reinterpret_cast<const uint4*>(phase.tokens);
        const int stages = num_stages<Tile>(phase, info);
        for (int s = 0; s < stages; ++s, ring.advance()) {
            storage.empty[ring.slot].wait(ring.phase ^ 1);
#pragma unroll
            for (int b = 0; b < Tile::kBlocks; ++b) {
                const int k = ((first_stage(info) + s) * Tile::kBlocks + b) * kBlockBytes;
                const uint32_t shared =
                    cute::cast_smem_ptr_to_uint(storage.tokens[ring.slot] + b * Tile::kTokenBlockBytes);
                const bool in_k = k + chunk * 16 < phase.k_bytes;
                const uint4* block = tokens + (in_k ? k / 16 : 0);
#pragma unroll
                for (int i = 0; i < kCount; ++i) {
                    const uint32_t swizzled = i % 2 ? target ^ 64 : target;
                    if (source[i] != kNoRow) {
                        copy_async_16(shared + swizzled + i * kRowStep * kBlockBytes, block + source[i],
                                      in_k);
                    }
                }
            }
            cutlass::arch::cpasync_barrier_arrive_noinc(
                reinterpret_cast<uint64_t const*>(&storage.full[ring.slot]));
        }
    }

    // A stage is filled again as fast as its copies are issued, and absent ones are instructions, too.
    __device__ static void gather(Storage& storage, const Params& params, const WorkOf<Tile>& info,
                                  int thread, Ring& ring) {
        constexpr int kFewer = kCopies / 2 + 1;
        if (info.tokens <= kFewer * kRowStep) {
            gather_rows<kFewer>(storage, params, info, thread, ring);
        } else {
            gather_rows<kCopies>(storage, params, info, thread, ring);
        }
    }
};

// Few rows, one TMA box each: about 26 rows per microsecond and SM, but no proxy fence and one arrival per
// stage.
template <class Tile, class Params>
struct TmaGather {
    using Storage = SharedStorage<Tile>;
    using Ring = StageRing<Tile>;
    static constexpr int kWarps = 1;
    static constexpr int kArrivals = 1;

    __device__ __forceinline__ static bool gathers(const TileInfo&, int) { return true; }

    __device__ static void gather(Storage& storage, const Params& params, const WorkOf<Tile>& info, int lane,
                                  Ring& ring) {
        const PhaseParams& phase = params.phase[info.phase];
        const uint32_t row =
            lane < info.tokens ? token_row(phase, row_id<Tile>(storage, params, info, lane)) : 0;
        // Other CTAs wrote the rows of this phase through the generic proxy.
        if (info.phase > 0) asm volatile("fence.proxy.async;" ::: "memory");
        const int stages = num_stages<Tile>(phase, info);
        for (int s = 0; s < stages; ++s, ring.advance()) {
            auto& full = storage.full[ring.slot];
            storage.empty[ring.slot].wait(ring.phase ^ 1);
            if (lane == 0) full.arrive_and_expect_tx(info.tokens * Tile::kBlocks * kBlockBytes);
            if (lane >= info.tokens) continue;
#pragma unroll
            for (int b = 0; b < Tile::kBlocks; ++b) {
                cute::SM90_TMA_LOAD_2D::copy(
                    &params.tokens[info.phase], reinterpret_cast<uint64_t*>(&full),
                    static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_LAST),
                    storage.tokens[ring.slot] + b * Tile::kTokenBlockBytes + lane * kBlockBytes,
                    ((first_stage(info) + s) * Tile::kBlocks + b) * kBlockBytes, row);
            }
        }
    }
};

// Rows in order: boxes of neighbours. Rows behind the tile's last one come along.
template <class Tile, class Params>
struct TmaRows {
    using Storage = SharedStorage<Tile>;
    using Ring = StageRing<Tile>;
    static constexpr int kWarps = 1;
    static constexpr int kArrivals = 1;
    static constexpr int kBoxBytes = Tile::kTokenBoxRows * kBlockBytes;

    __device__ static void gather(Storage& storage, const Params& params, const TileInfo& info, int lane,
                                  Ring& ring) {
        const int stages = num_stages<Tile>(params.phase[info.phase]);
        if (lane > 0) return ring.advance(stages);
        const int boxes = (info.tokens + Tile::kTokenBoxRows - 1) / Tile::kTokenBoxRows;
        for (int s = 0; s < stages; ++s, ring.advance()) {
            auto& full = storage.full[ring.slot];
            storage.empty[ring.slot].wait(ring.phase ^ 1);
            full.arrive_and_expect_tx(boxes * Tile::kBlocks * kBoxBytes);
#pragma unroll
            for (int b = 0; b < Tile::kBlocks; ++b) {
                for (int box = 0; box < boxes; ++box) {
                    cute::SM90_TMA_LOAD_2D::copy(
                        &params.tokens[info.phase], reinterpret_cast<uint64_t*>(&full),
                        static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_LAST),
                        storage.tokens[ring.slot] + b * Tile::kTokenBlockBytes + box * kBoxBytes,
                        (s * Tile::kBlocks + b) * kBlockBytes, info.token_begin + box * Tile::kTokenBoxRows);
                }
            }
        }
    }
};

// Columns of [k, tokens] memory: slabs of as many tokens as 128 bytes hold.
template <class Tile, class Params>
struct TmaColumns {
    using Storage = SharedStorage<Tile>;
    using Ring = StageRing<Tile>;
    using Slabs = typename Tile::Format::Tokens;
    static constexpr int kWarps = 1;
    static constexpr int kArrivals = 1;
    static constexpr int kSlabBytes = Slabs::kDepth * Slabs::kSlabBytes;
    static_assert(Tile::kTokens % Slabs::kSlabRows == 0, "whole slabs of tokens");

    __device__ static void gather(Storage& storage, const Params& params, const TilePart& info, int lane,
                                  Ring& ring) {
        if (lane > 0) return ring.advance(info.stages);
        const CUtensorMap* map = acquired(params.format.token_maps + info.expert);
        const int first_token = info.token_begin - info.expert * params.format.group_tokens;
        const int slabs = (info.tokens + Slabs::kSlabRows - 1) / Slabs::kSlabRows;
        for (int s = 0; s < info.stages; ++s, ring.advance()) {
            auto& full = storage.full[ring.slot];
            storage.empty[ring.slot].wait(ring.phase ^ 1);
            full.arrive_and_expect_tx(slabs * Tile::kBlocks * kSlabBytes);
#pragma unroll
            for (int b = 0; b < Tile::kBlocks; ++b) {
                for (int slab = 0; slab < slabs; ++slab) {
                    cute::SM90_TMA_LOAD_2D::copy(
                        map, reinterpret_cast<uint64_t*>(&full),
                        static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_LAST),
                        storage.tokens[ring.slot] + b * Tile::kTokenBlockBytes + slab * kSlabBytes,
                        2 * first_token + slab * Slabs::kSlabBytes, (s * Tile::kBlocks + b) * Slabs::kDepth);
                }
            }
        }
    }
};

template <class Tile, class Params>
using OrderedRows =
    std::conditional_t<Tile::Format::kGroupedDepth, TmaColumns<Tile, Params>, TmaRows<Tile, Params>>;

template <class Tile, class Params>
using Gather = std::conditional_t<
    Tile::kTokensInOrder, OrderedRows<Tile, Params>,
    std::conditional_t<Tile::kTokensByTma, TmaGather<Tile, Params>, CopyGather<Tile, Params>>>;

template <class Tile, class Params>
struct TokenProducer {
    using Source = Gather<Tile, Params>;
    using Storage = SharedStorage<Tile>;

    // Returns when the phase before has stored what a warp gathers.
    __device__ __forceinline__ static void await_rows(const Params& params, const WorkOf<Tile>& info,
                                                      int thread) {
        const PhaseParams& phase = params.phase[info.phase];
        if constexpr (Tile::kFewTokens) {
            if (awaits_values<Tile>(params.schedule)) {
                wait_for_predecessors();  // routing marks the values as unwritten
                if (Source::gathers(info, thread)) await_values<Tile>(phase, info);
                return;
            }
        }
        if (thread % 32 == 0) {
            wait_ready(params.schedule.ready + info.token_tile,
                       ready_target<Tile>(params.phase[info.phase - 1]));
        }
    }

    __device__ static void run(Storage& storage, const Params& params, int thread) {
        auto ring = stage_ring<Tile>(params.schedule);
        RingCursor<kTileSlots> slots;
        while (true) {
            const auto info = next_announced<Tile>(storage, slots);
            if (info.phase == TileInfo::kEnd) return;
            if (info.phase > 0) {
                await_rows(params, info, thread);
                __syncwarp();
            }
            Source::gather(storage, params, info, thread, ring);
        }
    }
};

}  // namespace moe_jit::cuda::gemm
