// int8 x int8 with exact 32-bit sums. A pair of neighbouring columns of the weight shares a thread's
// accumulators in every layout.
#pragma once

#include <cute/arch/copy_sm75.hpp>

#include "moe_jit/cuda/gemm/format_product.cuh"

namespace moe_jit::cuda::gemm {

template <int kTokens>
struct Int8Atom;

#define MOE_JIT_INT8_ATOM(N)                                               \
    template <>                                                            \
    struct Int8Atom<N> {                                                   \
        using Shared = cute::SM90::GMMA::MMA_64x##N##x32_S32S8S8_SS_TN;    \
        using Registers = cute::SM90::GMMA::MMA_64x##N##x32_S32S8S8_RS_TN; \
    }
MOE_JIT_INT8_ATOM(8);
MOE_JIT_INT8_ATOM(16);
MOE_JIT_INT8_ATOM(32);
MOE_JIT_INT8_ATOM(64);
MOE_JIT_INT8_ATOM(80);
MOE_JIT_INT8_ATOM(96);
MOE_JIT_INT8_ATOM(112);
MOE_JIT_INT8_ATOM(128);
MOE_JIT_INT8_ATOM(144);
MOE_JIT_INT8_ATOM(160);
#undef MOE_JIT_INT8_ATOM

// Column, relative to the first one of 64 * unit, of accumulator row `row` + 8h of a warp.
__device__ __forceinline__ constexpr int paired_column(int warp, int unit, int row, int h) {
    return 64 * unit + 16 * warp + 2 * row + h;
}

struct Int8Base : ProductFormat<uint32_t, 8> {
    __device__ __forceinline__ static constexpr int column(int warp, int unit, int row, int h) {
        return paired_column(warp, unit, row, h);
    }
};

// [e, n, k] memory: rows come in RowOrder::kPairs.
struct Int8RowsOfK : Int8Base {
    using Weights = RowsOfK;

    template <int kTokens>
    __device__ __forceinline__ static void mma(uint64_t a, uint64_t b, Accum (&d)[kTokens / 2],
                                               bool accumulate) {
        detail::fma<typename Int8Atom<kTokens>::Shared>(a, b, d, detail::scale_out(accumulate),
                                                        std::make_index_sequence<kTokens / 2>{});
    }
};

// [e, k, n] memory, plain (slabs of 128 bytes) or FRACTAL_NZ (32 bytes).
template <bool kBlocked>
struct Int8SlabsOfN : Int8Base {
    using Weights = SlabsOfN<8, kBlockBytes, kBlocked ? 32 : 128, kBlocked, 128>;

    template <int kTokens>
    __device__ __forceinline__ static void mma(const uint32_t (&a)[4], uint64_t b, Accum (&d)[kTokens / 2],
                                               bool accumulate) {
        detail::fma<typename Int8Atom<kTokens>::Registers>(a, b, d, detail::scale_out(accumulate),
                                                           std::make_index_sequence<kTokens / 2>{});
    }

    // A transposing matrix load gives thread (g, c) of a warp columns 2g and 2g + 1 of two k; two of them
    // make the k = 4c .. 4c + 3 that the MMA wants. Which two k come first depends on c, so that the eight k
    // of a matrix differ in the swizzle.
    template <int kUnits, int kStageSteps, bool kWeighed>
    class Loader {
      public:
        __device__ __forceinline__ Loader(const Params&, const TileInfo&, int, int tile_column, int thread) {
            const int lane = thread % 32, matrix = lane / 8, row = lane % 8;
            const int k = 16 * (matrix / 2) + 2 * (matrix % 2 ^ row / 4) + 4 * (row / 2) + row % 2;
#pragma unroll
            for (int u = 0; u < kUnits; ++u) {
                offset_[u] = Weights::chunk_offset(tile_column / 16 + 4 * u + thread / 32, k);
            }
            const bool upper_first = lane % 4 >= 2;
            even_ = upper_first ? 0x2064 : 0x6420;
            odd_ = upper_first ? 0x3175 : 0x7531;
        }

        // Step `step` of a stage, which is in `block`: the operand registers of every unit.
        __device__ __forceinline__ void load(const uint8_t* block, int step, uint32_t (&a)[kUnits][4]) const {
#pragma unroll
            for (int u = 0; u < kUnits; ++u) {
                uint32_t m[4];
                const auto* chunk = reinterpret_cast<const cute::uint128_t*>(
                    block + offset_[u] + step % kBlockSteps * 32 * Weights::kSlabBytes);
                cute::SM75_U16x8_LDSM_T::copy(*chunk, m[0], m[1], m[2], m[3]);
                a[u][0] = __byte_perm(m[0], m[1], even_);
                a[u][1] = __byte_perm(m[0], m[1], odd_);
                a[u][2] = __byte_perm(m[2], m[3], even_);
                a[u][3] = __byte_perm(m[2], m[3], odd_);
            }
        }

        template <class Fragments>
        __device__ __forceinline__ void observe(const Fragments&) const {}
        template <class Sums>
        __device__ __forceinline__ void finish(Sums&) const {}

      private:
        int offset_[kUnits];
        uint32_t even_, odd_;
    };
};

}  // namespace moe_jit::cuda::gemm
