// fp16 x fp16 and bf16 x bf16 with fp32 sums. The tensor core reads weights from shared memory as memory
// holds them, contiguous along K or along n.
#pragma once

#include "moe_jit/cuda/gemm/float16_atom.cuh"
#include "moe_jit/cuda/gemm/format.cuh"

namespace moe_jit::cuda::gemm {

// [e, k, n] memory, plain (slabs of 64 columns) or FRACTAL_NZ (of 16).
template <bool kBlocked>
struct Float16SlabsOfN : SlabsOfN<16, 64, kBlocked ? 32 : 128, kBlocked> {
    using Base = SlabsOfN<16, 64, kBlocked ? 32 : 128, kBlocked>;
    static constexpr bool kInRegisters = false;

    // Step `step` (16 of K) of a unit's 64 columns. A descriptor tells how far apart slabs and groups of
    // eight k are.
    __device__ __forceinline__ static uint64_t operand(const uint8_t* block, int unit, int step) {
        constexpr uint64_t kSwizzle = kBlocked ? 3ull << 62 : 1ull << 62;
        constexpr uint64_t kSlab = Base::kDepth * Base::kSlabBytes;
        constexpr uint64_t kEightK = 8 * Base::kSlabBytes;
        const uint8_t* first =
            block + unit * (kUnitRows / Base::kSlabRows) * kSlab + step * 16 * Base::kSlabBytes;
        const uint64_t address = (cute::cast_smem_ptr_to_uint(first) & 0x3ffff) >> 4;
        return kSwizzle | kEightK >> 4 << 32 | kSlab >> 4 << 16 | address;
    }
};

template <class Element_, class Weights_, cute::SM90::GMMA::Major kMajor>
struct Float16 {
    using Element = Element_;
    using Accum = float;
    using Weights = Weights_;
    static constexpr int kMmaBytes = 32;
    static constexpr bool kPromote = false;
    static constexpr int kStagingBytes = kMaxStagingBytes;
    struct Params {};

    template <int kTokens>
    __device__ __forceinline__ static void mma(uint64_t a, uint64_t b, Accum (&d)[kTokens / 2],
                                               bool accumulate) {
        using Atom = typename Float16Atom<Element, kTokens>::template Shared<kMajor>;
        detail::fma<Atom>(a, b, d, detail::scale_out(accumulate), std::make_index_sequence<kTokens / 2>{});
    }

    __device__ __forceinline__ static constexpr int column(int warp, int unit, int row, int h) {
        return 64 * unit + 16 * warp + row + 8 * h;
    }
};

// [e, n, k] memory.
template <class Element>
using Float16RowsOfK = Float16<Element, RowsOfK, cute::SM90::GMMA::Major::K>;
// [e, k, n] memory.
template <class Element, bool kBlocked>
using Float16RowsOfN = Float16<Element, Float16SlabsOfN<kBlocked>, cute::SM90::GMMA::Major::MN>;

}  // namespace moe_jit::cuda::gemm
