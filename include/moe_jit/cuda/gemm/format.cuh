// Number formats of the grouped GEMM: what a weight and a token element is, what they accumulate in,
// and which warpgroup MMA multiplies them. The mainloop knows a format only through these traits.
#pragma once

#include <cstdint>
#include <cute/arch/mma_sm90_gmma.hpp>
#include <cute/arch/mma_sm90_gmma_ext.hpp>
#include <utility>

namespace moe_jit::cuda::gemm {

namespace detail {

template <class Atom, class Accum, int kCount, size_t... I>
__device__ __forceinline__ void fma(uint64_t a, uint64_t b, Accum (&d)[kCount],
                                    cute::SM90::GMMA::ScaleOut scale, std::index_sequence<I...>) {
    Atom::fma(a, b, d[I]..., scale);
}

}  // namespace detail

template <int kTokens>
struct Fp8Atom;

#define MOE_JIT_FP8_ATOM(N)                                                 \
    template <>                                                             \
    struct Fp8Atom<N> {                                                     \
        using type = cute::SM90::GMMA::MMA_64x##N##x32_F32E4M3E4M3_SS_TN<>; \
    }
MOE_JIT_FP8_ATOM(8);
MOE_JIT_FP8_ATOM(16);
MOE_JIT_FP8_ATOM(32);
MOE_JIT_FP8_ATOM(64);
MOE_JIT_FP8_ATOM(80);
MOE_JIT_FP8_ATOM(96);
MOE_JIT_FP8_ATOM(112);
MOE_JIT_FP8_ATOM(128);
MOE_JIT_FP8_ATOM(144);
MOE_JIT_FP8_ATOM(160);
#undef MOE_JIT_FP8_ATOM

// kPromote_: Hopper sums FP8 products in about 14 bits; partial sums leave the tensor core every k-block.
template <bool kPromote_>
struct Fp8E4M3 {
    using Accum = float;
    // Bytes of K that one MMA consumes from each operand.
    static constexpr int kMmaBytes = 32;
    static constexpr bool kPromote = kPromote_;

    // d (64 x kTokens, one warpgroup) = a * b^T, or d += a * b^T when `accumulate`.
    template <int kTokens>
    __device__ __forceinline__ static void mma(uint64_t a, uint64_t b, Accum (&d)[kTokens / 2],
                                               bool accumulate) {
        using cute::SM90::GMMA::ScaleOut;
        detail::fma<typename Fp8Atom<kTokens>::type>(a, b, d, accumulate ? ScaleOut::One : ScaleOut::Zero,
                                                     std::make_index_sequence<kTokens / 2>{});
    }
};

}  // namespace moe_jit::cuda::gemm
