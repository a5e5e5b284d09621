// The tile of the grouped GEMM, its shared memory, and the description of one unit of work.
// Weights are the M operand ("swap-AB"): a tile is kRows weight rows by up to kTokens token rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cutlass/arch/barrier.h>
#include <utility>

namespace moe_jit::cuda::gemm {

constexpr int kWarpgroupThreads = 128;
constexpr int kMathWarpgroups = 2;
constexpr int kMathWarps = kMathWarpgroups * 4;
constexpr int kThreads = kWarpgroupThreads * (1 + kMathWarpgroups);
constexpr int kGatherWarps = 3;
constexpr int kGatherThreads = 32 * kGatherWarps;

// One 128-byte swizzle atom of K per stage, whatever the element size.
constexpr int kBlockBytes = 128;
constexpr int kRows = 64 * kMathWarpgroups;
constexpr int kWeightStageBytes = kRows * kBlockBytes;

// Tiles announced ahead of the consumers.
constexpr int kTileSlots = 4;
// Tokens that pass through the epilogue's staging buffer at a time.
constexpr int kStagedTokens = 32;
constexpr int kStagedRowBytes = 128 + 16;
constexpr int kStagingBytes = kStagedTokens * kStagedRowBytes;

constexpr int kMaxSharedBytes = 227 * 1024;

// Widths_: the token widths this kernel has code for, ascending; the last one sizes the ring.
template <int kMaxExperts_, int... Widths_>
struct Tile {
    using Widths = std::integer_sequence<int, Widths_...>;
    static constexpr int kMaxExperts = kMaxExperts_;
    static constexpr int kTokens = std::max({Widths_...});
    static constexpr int kTokenStageBytes = kTokens * kBlockBytes;
    static constexpr int kStageBytes = kWeightStageBytes + kTokenStageBytes;
    static constexpr int kFixedBytes =
        1024 + 2 * 4 * (kMaxExperts + 1) + kMathWarpgroups * kStagingBytes + 1024;
    static constexpr int kStages = (kMaxSharedBytes - kFixedBytes) / kStageBytes;

    static_assert(((Widths_ % 8 == 0) && ...), "wgmma's N is a multiple of 8");
    static_assert(kStages >= 3, "the ring must hide the load latency");
};

// The widths worth having code for when the widest is kTokens.
template <int kTokens>
struct TokenTile;
template <>
struct TokenTile<16> {
    template <int kMaxExperts>
    using Tile = Tile<kMaxExperts, 8, 16>;
};
template <>
struct TokenTile<64> {
    template <int kMaxExperts>
    using Tile = Tile<kMaxExperts, 16, 32, 64>;
};
template <>
struct TokenTile<128> {
    template <int kMaxExperts>
    using Tile = Tile<kMaxExperts, 32, 64, 96, 128>;
};

// One unit of work: kRows weight rows of one expert times `tokens` consecutive expert-sorted rows.
struct TileInfo {
    int phase;  // index of the GEMM phase; kEnd: no work is left
    int expert;
    int row_tile;
    int token_tile;   // global index over all experts: one readiness counter each
    int token_begin;  // first expert-sorted row
    int tokens;
    int shared_weights;  // other token tiles read the same weight rows

    static constexpr int kEnd = -1;
};

template <class Tile>
struct alignas(1024) SharedStorage {
    uint8_t weights[Tile::kStages][kWeightStageBytes];
    uint8_t tokens[Tile::kStages][Tile::kTokenStageBytes];
    alignas(16) uint8_t staging[kMathWarpgroups][kStagingBytes];
    int row_offsets[Tile::kMaxExperts + 1];
    int tile_offsets[Tile::kMaxExperts + 1];
    TileInfo tile[kTileSlots];
    cutlass::arch::ClusterTransactionBarrier full[Tile::kStages];
    cutlass::arch::ClusterBarrier empty[Tile::kStages];
    cutlass::arch::ClusterBarrier tile_full[kTileSlots];
    cutlass::arch::ClusterBarrier tile_empty[kTileSlots];
};

// Position in a ring of kSlots: the slot and the parity of its current pass.
template <int kSlots>
struct RingCursor {
    int slot = 0;
    uint32_t phase = 0;
    __device__ __forceinline__ void advance() {
        if (++slot == kSlots) {
            slot = 0;
            phase ^= 1;
        }
    }
};

}  // namespace moe_jit::cuda::gemm
