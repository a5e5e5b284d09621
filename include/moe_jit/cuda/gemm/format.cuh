// Number formats of the grouped GEMM: what a weight and a token element is, what they accumulate in,
// and which warpgroup MMA multiplies them. The mainloop knows a format only through these traits:
//   Accum          float, or uint32_t for 32-bit integer sums
//   kMmaBytes      bytes of a token row that one MMA consumes
//   kPromote       CUDA cores add the sums of every k-block
//   kStagingBytes  shared memory that the epilogue needs for each math warpgroup
//   kTokensInOrder  token rows are sorted by expert already, and are not gathered
//   kGroupedDepth  groups divide K instead of token rows: each has tensor maps and a length of its own
//   Weights        weight_tile.cuh: the weights of a k-block in shared memory
//   Tokens         the same for tokens
//   Params         further kernel parameters
//   mma            d = or += weights * tokens^T; weights are a descriptor, or registers
//   column         where accumulator rows belong (not FP8, whose epilogues know)
//   Loader         weights in registers only: shared memory -> operand registers
//   kTileWarpgroups  of narrow token tiles: 2 where the weights keep both warpgroups busy, see Tile
//   kOneEpilogue   the epilogue of the widest tile serves all widths: less code to compile and to fetch
//   kSegmented     the Loader weighs and adds, in fp32, sums over segments of K
//   kWeighedTokens  in tiles of up to so many tokens the sums of segments are weighed, not the weights
//   kScaleSteps    MMAs that a row of scales serves, which come with the stages where sums are weighed; 0:
//                  they never are. kScaleBytes: of one column
#pragma once

#include <cstdint>
#include <cute/arch/mma_sm90_gmma.hpp>
#include <cute/arch/mma_sm90_gmma_ext.hpp>
#include <utility>

#include "moe_jit/cuda/gemm/weight_tile.cuh"

namespace moe_jit::cuda::gemm {

namespace detail {

using cute::SM90::GMMA::ScaleOut;

template <class Atom, class Accum, int kCount, size_t... I>
__device__ __forceinline__ void fma(uint64_t a, uint64_t b, Accum (&d)[kCount], ScaleOut scale,
                                    std::index_sequence<I...>) {
    Atom::fma(a, b, d[I]..., scale);
}

template <class Atom, class Accum, int kCount, size_t... I>
__device__ __forceinline__ void fma(const uint32_t (&a)[4], uint64_t b, Accum (&d)[kCount], ScaleOut scale,
                                    std::index_sequence<I...>) {
    Atom::fma(a[0], a[1], a[2], a[3], b, d[I]..., scale);
}

__device__ __forceinline__ ScaleOut scale_out(bool accumulate) {
    return accumulate ? ScaleOut::One : ScaleOut::Zero;
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
MOE_JIT_FP8_ATOM(72);
MOE_JIT_FP8_ATOM(80);
MOE_JIT_FP8_ATOM(88);
MOE_JIT_FP8_ATOM(96);
MOE_JIT_FP8_ATOM(104);
MOE_JIT_FP8_ATOM(112);
MOE_JIT_FP8_ATOM(120);
MOE_JIT_FP8_ATOM(128);
MOE_JIT_FP8_ATOM(136);
MOE_JIT_FP8_ATOM(144);
MOE_JIT_FP8_ATOM(152);
MOE_JIT_FP8_ATOM(160);
MOE_JIT_FP8_ATOM(168);
MOE_JIT_FP8_ATOM(176);
MOE_JIT_FP8_ATOM(184);
MOE_JIT_FP8_ATOM(192);
#undef MOE_JIT_FP8_ATOM

// kPromote_: Hopper sums FP8 products in about 14 bits; partial sums leave the tensor core every k-block.
template <bool kPromote_>
struct Fp8E4M3 {
    using Accum = float;
    using Weights = RowsOfK;
    using Tokens = RowsOfK;
    static constexpr int kMmaBytes = 32;
    static constexpr bool kPromote = kPromote_;
    static constexpr bool kSegmented = false;
    static constexpr int kWeighedTokens = 0;
    static constexpr int kScaleSteps = 0;
    static constexpr int kScaleBytes = 0;
    static constexpr int kTileWarpgroups = 1;
    static constexpr bool kOneEpilogue = !kPromote_;
    static constexpr int kStagingBytes = kMaxStagingBytes;
    static constexpr bool kTokensInOrder = false;
    static constexpr bool kGroupedDepth = false;
    struct Params {};

    // d (64 x kTokens, one warpgroup) = a * b^T, or d += a * b^T when `accumulate`. kHeld >= kTokens / 2.
    template <int kTokens, int kHeld>
    __device__ __forceinline__ static void mma(uint64_t a, uint64_t b, Accum (&d)[kHeld], bool accumulate) {
        detail::fma<typename Fp8Atom<kTokens>::type>(a, b, d, detail::scale_out(accumulate),
                                                     std::make_index_sequence<kTokens / 2>{});
    }
};

}  // namespace moe_jit::cuda::gemm
