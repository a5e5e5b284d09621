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

template <class Element_, class Weights_, cute::SM90::GMMA::Major kMajor>
struct Float16 : ProductFormat<float, 16> {
    using Element = Element_;
    using Weights = Weights_;
    static constexpr bool kPairedColumns = kMajor == cute::SM90::GMMA::Major::K;

    template <int kTokens>
    __device__ __forceinline__ static void mma(uint64_t a, uint64_t b, Accum (&d)[kTokens / 2],
                                               bool accumulate) {
        using Atom = typename Float16Atom<Element, kTokens>::template Shared<kMajor>;
        detail::fma<Atom>(a, b, d, detail::scale_out(accumulate), std::make_index_sequence<kTokens / 2>{});
    }

    __device__ __forceinline__ static constexpr int column(int warp, int unit, int row, int h) {
        return 64 * unit + 16 * warp + (kPairedColumns ? 2 * row + h : row + 8 * h);
    }
};

// RowsOfK: [e, n, k] memory; Plain and Blocked: [e, k, n].
template <class Element>
struct Float16Formats {
    using RowsOfK = Float16<Element, gemm::RowsOfK, cute::SM90::GMMA::Major::K>;
    using Plain = Float16<Element, Float16SlabsOfN<false>, cute::SM90::GMMA::Major::MN>;
    using Blocked = Float16<Element, Float16SlabsOfN<true>, cute::SM90::GMMA::Major::MN>;
};

}  // namespace moe_jit::cuda::gemm
