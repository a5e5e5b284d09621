// How a k-block of weights lies in shared memory, and which coordinates of the weight map its boxes start at.
// The maps are those of weight_map.h.
#pragma once

#include <cstdint>
#include <cute/arch/util.hpp>

#include "moe_jit/cuda/gemm/params.h"
#include "moe_jit/cuda/gemm/tile.cuh"

namespace moe_jit::cuda::gemm {

// Shared-memory matrix descriptor of a K-major operand in 128-byte swizzle: 8-row groups 1024 bytes apart.
__device__ __forceinline__ uint64_t operand_descriptor(const void* shared) {
    constexpr uint64_t kSwizzle128 = 1ull << 62;
    constexpr uint64_t kGroupStride = static_cast<uint64_t>(1024 >> 4) << 32;
    constexpr uint64_t kIgnoredLeadingOffset = 1ull << 16;
    const uint64_t address = (cute::cast_smem_ptr_to_uint(shared) & 0x3ffff) >> 4;
    return kSwizzle128 | kGroupStride | kIgnoredLeadingOffset | address;
}

struct BoxOrigin {
    int at[5];
};

// Rows contiguous along K, kRowBytes_ of each, swizzled over that width. The tensor core reads those of 128
// bytes from shared memory.
template <int kRowBytes_>
struct KMajorRows {
    static constexpr bool kInRegisters = false;
    static constexpr int kRowBytes = kRowBytes_;
    static constexpr int kMaxBoxRows = 128;
    static constexpr int kMaxBoxBlocks = 1;
    static constexpr bool kSlabs = false;

    // A unit's rows, from byte k of a k-block on.
    __device__ __forceinline__ static uint64_t operand(const uint8_t* block, int unit, int k) {
        static_assert(kRowBytes == kBlockBytes, "one step of the tensor core is 32 bytes of a row");
        return operand_descriptor(block + unit * kUnitRows * kBlockBytes) + (k >> 4);
    }

    template <class Tile>
    __device__ __forceinline__ static BoxOrigin box_origin(const PhaseParams& phase, const TileInfo& info,
                                                           int box, int k_block) {
        const int row_block = (info.row_tile * Tile::kBoxes + box) * phase.blocks_per_box;
        return {{k_block * kRowBytes, 0, 0, row_block, info.expert}};
    }
};

using RowsOfK = KMajorRows<kBlockBytes>;

// Weights contiguous along n (8-bit MMAs cannot read them from shared memory): a block is a sequence of
// slabs, kSlabBytes of n by kDepth of K each, swizzled over lines of kLineBytes. kBits is the width of an
// element. kBlocked_: memory holds slabs too (FRACTAL_NZ: 32 bytes of n, all of K), a box brings several of
// them, and a line may hold several k: TMA is slow with lines of 32 bytes.
template <int kBits_, int kDepth_, int kSlabBytes_, bool kBlocked_, int kLineBytes_ = kSlabBytes_>
struct SlabsOfN {
    static constexpr bool kInRegisters = true;
    static constexpr int kBits = kBits_;
    static constexpr int kDepth = kDepth_;
    static constexpr int kSlabBytes = kSlabBytes_;
    static constexpr bool kBlocked = kBlocked_;
    static constexpr int kLineBytes = kLineBytes_;
    static constexpr int kRowBytes = kDepth * kBits / 8;
    static constexpr int kSlabRows = kSlabBytes * 8 / kBits;
    static constexpr int kMaxBoxRows = kBlocked ? 128 : kSlabRows;
    static constexpr int kMaxBoxBlocks = 1;
    static constexpr bool kSlabs = true;
    static_assert(kLineBytes == 32 || kLineBytes == 64 || kLineBytes == 128, "widths of swizzles");
    static_assert(kBlocked || kLineBytes == kSlabBytes, "memory has gaps between slabs");

    template <class Tile>
    __device__ __forceinline__ static BoxOrigin box_origin(const PhaseParams&, const TileInfo& info, int box,
                                                           int k_block) {
        static_assert(kBlocked || Tile::kBoxRows == kSlabRows, "one slab per box");
        const int slab = (info.row_tile * Tile::kRows + box * Tile::kBoxRows) / kSlabRows;
        const int k = k_block * kDepth;
        if constexpr (kBlocked) return {{0, k * kSlabBytes / kLineBytes, slab, 0, info.expert}};
        return {{slab * kSlabBytes, k, 0, 0, info.expert}};
    }

    // Offset in a block of the 16 bytes `chunk` (of n) at `k`. Multiples of 32 of k only add.
    __device__ __forceinline__ static int chunk_offset(int chunk, int k) {
        constexpr int kSlabChunks = kSlabBytes / 16, kLineChunks = kLineBytes / 16;
        const int position = k * kSlabChunks + chunk % kSlabChunks;
        const int line = position / kLineChunks;
        const int swizzled = position % kLineChunks ^ (line / (128 / kLineBytes) & (kLineChunks - 1));
        return chunk / kSlabChunks * kDepth * kSlabBytes + line * kLineBytes + swizzled * 16;
    }
};

}  // namespace moe_jit::cuda::gemm
