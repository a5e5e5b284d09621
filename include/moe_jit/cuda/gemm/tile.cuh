// The tile of the grouped GEMM, its shared memory, and the description of one unit of work.
// Weights are the M operand ("swap-AB"): a tile is kRows weight rows by up to kTokens token rows. A weight
// row is an output feature, also where memory holds weights as [k, n] and a row is a column.
#pragma once

#include <cutlass/arch/barrier.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "moe_jit/cuda/row_list.h"

namespace moe_jit::cuda::gemm {

constexpr int kWarpgroupThreads = 128;
constexpr int kMathWarpgroups = 2;
constexpr int kMathWarps = kMathWarpgroups * 4;
constexpr int kThreads = kWarpgroupThreads * (1 + kMathWarpgroups);

// A k-block is as much of K as 128 bytes of a token row hold: one swizzle atom, whatever the element size.
constexpr int kBlockBytes = 128;
// MMAs that a k-block takes.
constexpr int kBlockSteps = kBlockBytes / 32;
// Rows of one MMA.
constexpr int kUnitRows = 64;

// Tiles announced ahead of the consumers.
constexpr int kTileSlots = 4;
// Shared memory in which one math warpgroup's epilogue transposes: 32 tokens by 128 bytes and padding.
constexpr int kMaxStagingBytes = 32 * (128 + 16);

constexpr int kMaxSharedBytes = 227 * 1024;

// Format_            what is multiplied, see format.cuh
// kUnits_            64-row units that one math warpgroup accumulates
// kTileWarpgroups_   math warpgroups that share a tile; with 1 they work on alternate tiles, so that the
//                    epilogue of one overlaps the MMAs of the other
// kBlocks_           k-blocks per stage
// Widths_            token widths with code, ascending; the last one sizes the ring
template <class Format_, int kMaxExperts_, int kUnits_, int kTileWarpgroups_, int kBlocks_, int... Widths_>
struct Tile {
    using Format = Format_;
    using Widths = std::integer_sequence<int, Widths_...>;
    static constexpr int kMaxExperts = kMaxExperts_;
    static constexpr int kUnits = kUnits_;
    static constexpr int kTileWarpgroups = kTileWarpgroups_;
    static constexpr int kBlocks = kBlocks_;
    static constexpr int kTurns = kMathWarpgroups / kTileWarpgroups;
    static constexpr int kRows = kUnitRows * kUnits * kTileWarpgroups;
    static constexpr int kBoxRows = std::min(kRows, Format::Weights::kMaxBoxRows);
    // k-blocks of a box: one, or those of a stage, which then lie side by side in every row.
    static constexpr int kBoxBlocks = std::min(kBlocks, Format::Weights::kMaxBoxBlocks);
    static constexpr int kBoxBytes = kBoxRows * kBoxBlocks * Format::Weights::kRowBytes;
    static constexpr int kBoxes = kRows / kBoxRows;
    static constexpr int kTokens = std::max({Widths_...});
    static constexpr bool kFewTokens = false;
    static constexpr int kCtas = 1;  // of a cluster
    static constexpr bool kOneEpilogue = Format::kOneEpilogue;
    // Who brings token rows: TMA boxes of neighbouring rows, TMA boxes of one row each, or asynchronous
    // copies.
    static constexpr bool kTokensInOrder = Format::kTokensInOrder;
    static constexpr bool kTokensByTma = kTokensInOrder || kTokens <= 8;
    static constexpr int kTokenBoxRows = !kTokensInOrder ? 1 : kTokens <= 16 ? 8 : kTokens <= 64 ? 16 : 32;

    static constexpr int kWeightBlockBytes = kRows * Format::Weights::kRowBytes;
    // From the weights of a k-block to those of the next one.
    static constexpr int kBlockStep = kBoxBlocks == 1 ? kWeightBlockBytes : 0;
    static constexpr int kTokenBlockBytes = kTokens * kBlockBytes;
    static constexpr int kWeightStageBytes = kBlocks * kWeightBlockBytes;
    static constexpr int kTokenStageBytes = kBlocks * kTokenBlockBytes;
    // Sums of segments of K are weighed, with scales that come with the stages.
    static constexpr bool kScaled = Format::kSegmented || kTokens <= Format::kWeighedTokens;
    static constexpr int kScaleRows = kScaled ? kBlocks * kBlockSteps / std::max(Format::kScaleSteps, 1) : 0;
    static constexpr int kScaleRowBytes = kRows * Format::kScaleBytes;
    static constexpr int kStageSegments = std::max(kScaleRows, 1);
    // Lanes of a warp that free a stage: all where each has read from it for itself.
    static constexpr int kFreeingLanes = kScaled ? 32 : 1;
    static constexpr int kStageBytes = kWeightStageBytes + kTokenStageBytes + kScaleRows * kScaleRowBytes;
    static constexpr int kFixedBytes =
        1024 + 2 * 4 * (kMaxExperts + 1) + kMathWarpgroups * Format::kStagingBytes + 1024;
    static constexpr int kStages = (kMaxSharedBytes - kFixedBytes) / kStageBytes;

    static_assert(((Widths_ % 8 == 0) && ...), "wgmma's N is a multiple of 8");
    static_assert(kTokens % kTokenBoxRows == 0, "whole boxes of token rows");
    static_assert(kRows % kBoxRows == 0, "boxes cover a tile");
    static_assert(kBoxBlocks == 1 || kBoxBlocks == kBlocks, "boxes of one k-block, or of all");
    static_assert(kStages >= 3, "ring depth");
};

// k-blocks per stage that bring as many weight bytes as 8-bit rows of K.
template <class Format>
constexpr int kStageBlocks = std::max(1, kBlockBytes / Format::Weights::kRowBytes);

// The tiles worth having code for, by the tokens that one of them covers.
template <int kTileTokens, class Format, int kMaxExperts>
struct TileOf;
// Few tokens: narrow row tiles spread few experts evenly over the SMs.
template <class Format, int kMaxExperts>
struct TileOf<8, Format, kMaxExperts> {
    using type = Tile<Format, kMaxExperts, 1, 1, 2, 8>;
};
template <class Format, int kMaxExperts>
struct TileOf<16, Format, kMaxExperts> {
    using type = Tile<Format, kMaxExperts, 2, Format::kTileWarpgroups, kStageBlocks<Format>, 8, 16>;
};
// Weights that are converted: more of them in a stage than the next tile has.
template <class Format, int kMaxExperts>
struct TileOf<32, Format, kMaxExperts> {
    using type = Tile<Format, kMaxExperts, 2, Format::kTileWarpgroups, kStageBlocks<Format>, 8, 16, 32>;
};
template <class Format, int kMaxExperts>
struct TileOf<64, Format, kMaxExperts> {
    using type = Tile<Format, kMaxExperts, 2, Format::kTileWarpgroups,
                      kStageBlocks<Format> / Format::kTileWarpgroups, 16, 32, 64>;
};
template <class Format, int kMaxExperts>
struct TileOf<128, Format, kMaxExperts> {
    using type = Tile<Format, kMaxExperts, 2, 1, 1, 32, 64, 96, 128>;
};
// Compute-bound: both warpgroups share 256 weight rows. Per product, token rows are read half as often from
// L2 as in tiles of 128 rows, and fewer bytes are written to shared memory.
template <class Format, int kMaxExperts>
struct TileOf<160, Format, kMaxExperts> {
    template <int... kWidths>
    using Of = Tile<Format, kMaxExperts, 2, 2, 1, kWidths...>;
    using type = std::conditional_t<Format::kOneEpilogue,
                                    Of<64, 72, 80, 88, 96, 104, 112, 120, 128, 136, 144, 152, 160>,
                                    Of<64, 80, 96, 112, 128, 144, 160>>;
};

// For experts whose rows would not fit the tile above: one stage less, but fewer tiles.
template <class Format, int kMaxExperts>
struct TileOf<192, Format, kMaxExperts> {
    using type = Tile<Format, kMaxExperts, 2, 2, 1, 64, 80, 96, 104, 112, 120, 128, 136, 144, 152, 160, 168,
                      176, 184, 192>;
};

// The same tile for pairs of CTAs, see pair.cuh.
template <class Tile_>
struct Paired : Tile_ {
    static constexpr int kCtas = 2;
    static_assert(Tile_::kBoxes % kCtas == 0, "each CTA of a pair loads half of the boxes for both");
    static_assert(Tile_::kFreeingLanes == 1, "one lane tells the peer that a warp has read a stage");
};

// Experts with two token tiles or more: a pair covers so many tokens.
template <class Format, int kMaxExperts>
struct TileOf<320, Format, kMaxExperts> {
    using type = Paired<typename TileOf<160, Format, kMaxExperts>::type>;
};
template <class Format, int kMaxExperts>
struct TileOf<384, Format, kMaxExperts> {
    using type = Paired<typename TileOf<192, Format, kMaxExperts>::type>;
};

// The same tile in a kernel that is made for few tokens: CTAs may compute parts of K, and the work may come
// as a list of experts.
template <class Tile_>
struct FewTokens : Tile_ {
    static constexpr bool kFewTokens = true;
    // Of the ring while the work comes as a list: more loads in flight add no bandwidth, but each of them
    // waits longer, and weights of the second phase come before those of the first.
    static constexpr int kListedStages = std::min(Tile_::kStages, Tile_::kTokens <= 8 ? 6 : 8);
};

// Who reads the weight rows of a tile. Those of the first two are read once.
enum WeightReaders : int { kOneTile, kOnePair, kPairs, kTiles };

// One unit of work of a CTA: a row tile of one expert times `tokens` consecutive expert-sorted rows.
struct TileInfo {
    int phase;  // index of the GEMM phase; kEnd: no work is left
    int expert;
    int row_tile;
    int token_tile;   // index over all experts: one readiness counter each
    int token_begin;  // first expert-sorted row
    int tokens;
    int weight_readers;  // WeightReaders

    static constexpr int kEnd = -1;

    __device__ __forceinline__ bool reads_weights_once() const { return weight_readers <= kOnePair; }
    // Two CTAs at once.
    __device__ __forceinline__ bool shares_weights() const {
        return weight_readers == kOnePair || weight_readers == kPairs;
    }

    // The same values, known to the compiler to be equal in all lanes: MMAs must not sit behind branches that
    // it believes divergent.
    __device__ __forceinline__ TileInfo warp_uniform() const {
        const auto first = [](int value) { return __shfl_sync(0xffffffffu, value, 0); };
        return {first(phase),       first(expert), first(row_tile),      first(token_tile),
                first(token_begin), first(tokens), first(weight_readers)};
    }
};

// Part `part` of a tile: `stages` stages of K from `first_stage` on.
struct TilePart : TileInfo {
    int part;
    int first_stage;
    int stages;

    __device__ __forceinline__ TilePart warp_uniform() const {
        const auto first = [](int value) { return __shfl_sync(0xffffffffu, value, 0); };
        return {TileInfo::warp_uniform(), first(part), first(first_stage), first(stages)};
    }
};

template <class Tile>
using WorkOf = std::conditional_t<Tile::kFewTokens || Tile::Format::kGroupedDepth, TilePart, TileInfo>;

struct ExpertList {
    ListedRow expert[kListedRows];  // first rows only
    int count;
};
struct NoExpertList {};

template <class Tile>
struct StagedScales {
    alignas(16) uint8_t row[Tile::kStages][Tile::kScaleRows][Tile::kScaleRowBytes];
};
struct NoScales {};

// A CTA streams a tile when its peer has at most a ring of stages left to read: so many claims, and the one
// that follows, may wait to be read.
constexpr int kPassedClaims = 8;

struct PassedClaims {
    int claim[kPassedClaims];
    cutlass::arch::ClusterTransactionBarrier full[kPassedClaims];
};
struct NoPassedClaims {};

template <class Tile>
struct alignas(1024) SharedStorage {
    uint8_t weights[Tile::kStages][Tile::kWeightStageBytes];
    uint8_t tokens[Tile::kStages][Tile::kTokenStageBytes];
    alignas(16) uint8_t staging[kMathWarpgroups][std::max(Tile::Format::kStagingBytes, 16)];
    std::conditional_t<Tile::kScaled, StagedScales<Tile>, NoScales> scales;
    int row_offsets[Tile::kMaxExperts + 1];
    int tile_offsets[Tile::kMaxExperts + 1];
    WorkOf<Tile> tile[kTileSlots];
    std::conditional_t<Tile::kFewTokens, ExpertList, NoExpertList> list;
    std::conditional_t<(Tile::kCtas > 1), PassedClaims, NoPassedClaims> passed;
    static_assert(Tile::kCtas == 1 || Tile::kStages + 1 < kPassedClaims, "claims are read in time");
    cutlass::arch::ClusterTransactionBarrier full[Tile::kStages];
    cutlass::arch::ClusterBarrier empty[Tile::kStages];
    cutlass::arch::ClusterBarrier turn[kMathWarpgroups];
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
    __device__ __forceinline__ void advance(int count) {
        slot += count;
        phase ^= (slot / kSlots) & 1;
        slot %= kSlots;
    }
};

// The same for a number of slots that the launch chooses.
struct ChosenRing {
    int slots;
    int slot = 0;
    uint32_t phase = 0;
    __device__ __forceinline__ void advance() {
        if (++slot == slots) {
            slot = 0;
            phase ^= 1;
        }
    }
    __device__ __forceinline__ void advance(int count) {
        for (slot += count; slot >= slots; slot -= slots) phase ^= 1;
    }
};

template <class Tile>
using StageRing = std::conditional_t<Tile::kFewTokens, ChosenRing, RingCursor<Tile::kStages>>;

// The tile that the weight producer announces next; by all lanes of a warp, which then let go of the slot.
template <class Tile>
__device__ __forceinline__ WorkOf<Tile> next_announced(SharedStorage<Tile>& storage,
                                                       RingCursor<kTileSlots>& slots) {
    storage.tile_full[slots.slot].wait(slots.phase);
    const WorkOf<Tile> work = storage.tile[slots.slot].warp_uniform();
    storage.tile_empty[slots.slot].arrive();
    slots.advance();
    return work;
}

}  // namespace moe_jit::cuda::gemm
