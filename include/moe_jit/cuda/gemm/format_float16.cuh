// fp16 x fp16 and bf16 x bf16 with fp32 sums. The tensor core reads weights from shared memory as memory
// holds them, contiguous along K or along n.
#pragma once

#include "moe_jit/cuda/gemm/float16_atom.cuh"
#include "moe_jit/cuda/gemm/format_product.cuh"

namespace moe_jit::cuda::gemm {

// [e, k, n] memory, plain (slabs of 64 columns) or FRACTAL_NZ (of 16).
template <bool kBlocked>
struct Float16SlabsOfN : SlabsOfN<16, 64, kBlocked ? 32 : 128, kBlocked> {
    using Base = SlabsOfN<16, 64, kBlocked ? 32 : 128, kBlocked>;
    static constexpr bool kInRegisters = false;

    // A unit's 64 columns, from k_bytes / 2 of a k-block's K on. A descriptor tells how far apart slabs and
    // groups of eight k are.
    __device__ __forceinline__ static uint64_t operand(const uint8_t* block, int unit, int k_bytes) {
        constexpr uint64_t kSwizzle = kBlocked ? 3ull << 62 : 1ull << 62;
        constexpr uint64_t kSlab = Base::kDepth * Base::kSlabBytes;
        constexpr uint64_t kEightK = 8 * Base::kSlabBytes;
        const uint8_t* first =
            block + unit * (kUnitRows / Base::kSlabRows) * kSlab + k_bytes / 2 * Base::kSlabBytes;
        const uint64_t address = (cute::cast_smem_ptr_to_uint(first) & 0x3ffff) >> 4;
        return kSwizzle | kEightK >> 4 << 32 | kSlab >> 4 << 16 | address;
    }
};

template <class Element_, class Weights_, class Tokens_ = RowsOfK>
struct Float16 : ProductFormat<float, 16> {
    using Element = Element_;
    using Weights = Weights_;
    using Tokens = Tokens_;
    static constexpr bool kPairedColumns = !Weights::kSlabs;

    template <int kTokens>
    __device__ __forceinline__ static void mma(uint64_t a, uint64_t b, Accum (&d)[kTokens / 2],
                                               bool accumulate) {
        constexpr Major kMajor = Weights::kSlabs ? Major::MN : Major::K;
        constexpr Major kTokenMajor = Tokens::kSlabs ? Major::MN : Major::K;
        using Atom = typename Float16Atom<Element, kTokens>::template Shared<kMajor, kTokenMajor>;
        detail::fma<Atom>(a, b, d, detail::scale_out(accumulate), std::make_index_sequence<kTokens / 2>{});
    }

    __device__ __forceinline__ static constexpr int column(int warp, int unit, int row, int h) {
        return 64 * unit + 16 * warp + (kPairedColumns ? 2 * row + h : row + 8 * h);
    }
};

// RowsOfK: [e, n, k] memory; Plain and Blocked: [e, k, n].
template <class Element>
struct Float16Formats {
    using RowsOfK = Float16<Element, gemm::RowsOfK>;
    using Plain = Float16<Element, Float16SlabsOfN<false>>;
    using Blocked = Float16<Element, Float16SlabsOfN<true>>;
};

// Groups of K: [k, tokens] and [k, n] memory. Maps are those of a group, whose K begins with them and ends.
struct GroupedDepthParams {
    const CUtensorMap* weight_maps;  // [groups]
    const CUtensorMap* token_maps;   // [groups]
    const int32_t* depths;           // [groups] elements of K
    int group_tokens;
};

template <class Element>
struct Float16GroupedDepth : Float16<Element, Float16SlabsOfN<false>, Float16SlabsOfN<false>> {
    static constexpr bool kGroupedDepth = true;
    static constexpr int kDepth = Float16SlabsOfN<false>::kDepth;
    using Params = GroupedDepthParams;
    static Params params(const DepthProductArgs& args) {
        return {static_cast<const CUtensorMap*>(args.weight_maps),
                static_cast<const CUtensorMap*>(args.token_maps), args.depths, args.group_tokens};
    }
};

}  // namespace moe_jit::cuda::gemm
