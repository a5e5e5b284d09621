// 16-bit activations and int8 or int4 weights that become 16-bit in registers: (w + offset) * scale, rounded
// as moe_jit/core/antiquant.h says, with the scale and offset of the column, or of the column and a group of
// k.
#pragma once

#include <cute/arch/copy_sm75.hpp>

#include "moe_jit/core/arithmetic.h"
#include "moe_jit/cuda/gemm/float16_atom.cuh"
#include "moe_jit/cuda/gemm/format.cuh"
#include "moe_jit/cuda/grouped_matmul.h"

namespace moe_jit::cuda::gemm {

// Integers in the mantissa of a large float become 16-bit floats by one exact subtraction.
template <class Element, int kBits>
struct Unpack;

// A matrix load gives a thread two k of 16 bits of neighbouring columns each; column(r, i) is column i of
// both.
template <>
struct Unpack<F16, 4> {
    __device__ __forceinline__ static void columns(uint32_t r, uint32_t (&out)[4]) {
        const uint32_t upper = r >> 8;
        out[0] = low(r);
        out[1] = high(r);
        out[2] = low(upper);
        out[3] = high(upper);
    }

  private:
    // 1024 + (w + 8)
    __device__ __forceinline__ static uint32_t low(uint32_t r) {
        return Pair<F16>::sub((r & 0x000f000fu) ^ 0x64086408u, 0x64086408u);
    }
    // 1024 + 16 * (w + 8), times 1/16, minus 72
    __device__ __forceinline__ static uint32_t high(uint32_t r) {
        return Pair<F16>::fma((r & 0x00f000f0u) ^ 0x64806480u, 0x2c002c00u, 0xd480d480u);
    }
};

template <>
struct Unpack<Bf16, 4> {
    __device__ __forceinline__ static void columns(uint32_t r, uint32_t (&out)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            // 128 + (w + 8)
            out[i] = Pair<Bf16>::sub((r >> 4 * i & 0x000f000fu) ^ 0x43084308u, 0x43084308u);
        }
    }
};

template <>
struct Unpack<F16, 8> {
    // 1024 + (w + 128), minus 1152
    __device__ __forceinline__ static void columns(uint32_t r, uint32_t (&out)[2]) {
        const uint32_t biased = r ^ 0x80808080u;
        out[0] = Pair<F16>::sub(__byte_perm(biased, 0x64u, 0x4240), 0x64806480u);
        out[1] = Pair<F16>::sub(__byte_perm(biased, 0x64u, 0x4341), 0x64806480u);
    }
};

template <>
struct Unpack<Bf16, 8> {
    // Seven bits have room in the mantissa: (128 + the lower bits) - (128, or 256 where the sign bit is set).
    __device__ __forceinline__ static void columns(uint32_t r, uint32_t (&out)[2]) {
        out[0] = split(__byte_perm(r, 0x43u, 0x4240));
        out[1] = split(__byte_perm(r, 0x43u, 0x4341));
    }

  private:
    __device__ __forceinline__ static uint32_t split(uint32_t pair) {
        return Pair<Bf16>::sub(pair & 0xff7fff7fu, pair & 0xff80ff80u);
    }
};

// (w + offset) * scale of two elements of one column; operands hold the parameter twice.
template <class Element>
__device__ __forceinline__ uint32_t dequantise(uint32_t pair, uint32_t scale, uint32_t offset);

template <>
__device__ __forceinline__ uint32_t dequantise<F16>(uint32_t pair, uint32_t scale, uint32_t offset) {
    return Pair<F16>::mul(Pair<F16>::add(pair, offset), scale);
}

template <>
__device__ __forceinline__ uint32_t dequantise<Bf16>(uint32_t pair, uint32_t scale, uint32_t offset) {
    const float s = bits_float(scale << 16), o = bits_float(offset << 16);
    const float low = fp32::mul(fp32::add(bits_float(pair << 16), o), s);
    const float high = fp32::mul(fp32::add(bits_float(pair & 0xffff0000u), o), s);
    return floats_to_bf16x2(low, high);
}

struct AntiquantParams {
    const uint16_t* scale;   // [experts, groups, columns]
    const uint16_t* offset;  // the same; read only by formats with offsets
    int columns;
    int groups;
    int group_steps;  // MMA steps (16 of K) in a group, even
};

// 4 bytes, or 8 in two registers, if `condition`. Without a branch: MMAs in flight do not outlast one.
__device__ __forceinline__ void load_if(bool condition, const uint16_t* data, uint32_t (&words)[1]) {
    asm("{ .reg .pred p; setp.ne.b32 p, %2, 0; @p ld.global.nc.b32 %0, [%1]; }"
        : "+r"(words[0])
        : "l"(data), "r"(static_cast<int>(condition)));
}

__device__ __forceinline__ void load_if(bool condition, const uint16_t* data, uint32_t (&words)[2]) {
    asm("{ .reg .pred p; setp.ne.b32 p, %3, 0; @p ld.global.nc.v2.b32 {%0, %1}, [%2]; }"
        : "+r"(words[0]), "+r"(words[1])
        : "l"(data), "r"(static_cast<int>(condition)));
}

// [e, k, n] memory, plain or FRACTAL_NZ. int4 is packed along n. kGroups: parameters of several groups of k.
template <class Element_, int kBits, bool kBlocked, bool kGroups, bool kOffset>
struct AntiquantSlabsOfN {
    using Element = Element_;
    using Accum = float;
    using Params = AntiquantParams;
    static constexpr int kDepth = 64;
    using Weights = SlabsOfN<kBits, kDepth, kBlocked ? 32 : 128, kBlocked>;
    static constexpr int kMmaBytes = 32;
    static constexpr bool kPromote = false;
    static constexpr bool kSegmented = false;
    static constexpr int kTileWarpgroups = 2;
    static constexpr int kStagingBytes = 0;
    static constexpr int kTokenBits = 16;
    static constexpr bool kPairedColumns = true;
    // Columns in the 16 bits of n that a thread gets of each k, and units that they belong to.
    static constexpr int kHeld = 16 / kBits;
    static constexpr int kSharedUnits = kHeld / 2;

    static Params params(const ProductArgs& args) {
        return {static_cast<const uint16_t*>(args.antiquant_scale.data),
                static_cast<const uint16_t*>(args.antiquant_offset.data), static_cast<int>(args.n),
                args.segments, static_cast<int>(args.k / args.segments * kTokenBits / 8 / kMmaBytes)};
    }

    template <int kTokens>
    __device__ __forceinline__ static void mma(const uint32_t (&a)[4], uint64_t b, Accum (&d)[kTokens / 2],
                                               bool accumulate) {
        detail::fma<typename Float16Atom<Element, kTokens>::Registers>(
            a, b, d, detail::scale_out(accumulate), std::make_index_sequence<kTokens / 2>{});
    }

    // A thread's columns are neighbours.
    __device__ __forceinline__ static constexpr int column(int warp, int unit, int row, int h) {
        const int chunk = 4 * (unit / kSharedUnits) + warp;
        return 8 * kHeld * chunk + kHeld * row + 2 * (unit % kSharedUnits) + h;
    }

    template <int kUnits>
    class Loader {
        static constexpr int kChunks = kUnits / kSharedUnits;
        static_assert(kUnits % kSharedUnits == 0, "columns of one word belong to several units");

      public:
        __device__ __forceinline__ Loader(const Params& params, const TileInfo& info, int first_column,
                                          int tile_column, int thread)
            : params_(params) {
            const int lane = thread % 32, warp = thread / 32;
#pragma unroll
            for (int i = 0; i < kChunks; ++i) {
                const int chunk = tile_column / (8 * kHeld) + 4 * i + warp;
                position_[i] = Weights::chunk_offset(chunk, lane);
                const int column = first_column + Base::column(warp, i * kSharedUnits, lane / 4, 0);
                valid_[i] = column < params.columns;
                at_[i] = static_cast<int64_t>(info.expert) * params.groups * params.columns +
                         (valid_[i] ? column : 0);
            }
            fetch(true);
            take(true);
        }

        __device__ __forceinline__ void load(const uint8_t* block, int step, uint32_t (&a)[kUnits][4]) {
            if constexpr (kGroups) {
                if (step % 2 == 0) {
                    take(steps_left_ == 0);
                    steps_left_ -= 2;
                }
            }
#pragma unroll
            for (int i = 0; i < kChunks; ++i) {
                // Four matrices of eight k serve two steps.
                uint32_t (&m)[4] = matrices_[i];
                if (step % 2 == 0) {
                    const auto* rows = reinterpret_cast<const cute::uint128_t*>(
                        block + position_[i] + step * 16 * Weights::kSlabBytes);
                    cute::SM75_U16x8_LDSM_T::copy(*rows, m[0], m[1], m[2], m[3]);
                }
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    uint32_t pairs[kHeld];
                    Unpack<Element, kBits>::columns(m[step % 2 * 2 + half], pairs);
#pragma unroll
                    for (int c = 0; c < kHeld; ++c) {
                        a[i * kSharedUnits + c / 2][half * 2 + c % 2] = scaled(pairs[c], i, c);
                    }
                }
            }
        }

        template <class Fragments>
        __device__ __forceinline__ void observe(const Fragments&) const {}
        template <class Sums>
        __device__ __forceinline__ void finish(Sums&) const {}

      private:
        using Base = AntiquantSlabsOfN;
        static constexpr int kWords = kHeld / 2;
        // The parameters of a thread's neighbouring columns.
        using Words = uint32_t[kWords];

        // Reads the next group's parameters ahead of their use.
        __device__ __forceinline__ void fetch(bool condition) {
            const bool more = condition && group_ < params_.groups;
#pragma unroll
            for (int i = 0; i < kChunks; ++i) {
                load_if(more && valid_[i], params_.scale + at_[i], next_scale_[i]);
                if constexpr (kOffset) load_if(more && valid_[i], params_.offset + at_[i], next_offset_[i]);
                at_[i] += condition ? params_.columns : 0;
            }
            group_ += condition;
        }

        __device__ __forceinline__ void take(bool condition) {
#pragma unroll
            for (int i = 0; i < kChunks * kWords; ++i) {
                const int c = i / kWords, w = i % kWords;
                scale_[c][w] = condition ? next_scale_[c][w] : scale_[c][w];
                if constexpr (kOffset) offset_[c][w] = condition ? next_offset_[c][w] : offset_[c][w];
            }
            if constexpr (kGroups) {
                steps_left_ = condition ? params_.group_steps : steps_left_;
                fetch(condition);
            }
        }

        __device__ __forceinline__ static uint32_t element(const Words& words, int c) {
            return __byte_perm(words[c / 2], 0, c % 2 ? 0x3232 : 0x1010);
        }

        __device__ __forceinline__ uint32_t scaled(uint32_t pair, int i, int c) const {
            if constexpr (kOffset) {
                return dequantise<Element>(pair, element(scale_[i], c), element(offset_[i], c));
            } else {
                return Pair<Element>::mul(pair, element(scale_[i], c));
            }
        }

        const Params& params_;
        int position_[kChunks];
        bool valid_[kChunks];
        int64_t at_[kChunks];
        int group_ = 0;
        int steps_left_ = 0;
        Words scale_[kChunks] = {}, next_scale_[kChunks] = {};
        Words offset_[kChunks] = {}, next_offset_[kChunks] = {};
        uint32_t matrices_[kChunks][4];
    };
};

// Names without commas, for the compiler's command line.
template <class Element, int kBits, bool kBlocked>
struct AntiquantFormats {
    using Single = AntiquantSlabsOfN<Element, kBits, kBlocked, false, false>;
    using SingleOffset = AntiquantSlabsOfN<Element, kBits, kBlocked, false, true>;
    using Groups = AntiquantSlabsOfN<Element, kBits, kBlocked, true, false>;
    using GroupsOffset = AntiquantSlabsOfN<Element, kBits, kBlocked, true, true>;
};
template <class Element>
using PlainInt8 = AntiquantFormats<Element, 8, false>;
template <class Element>
using BlockedInt8 = AntiquantFormats<Element, 8, true>;
template <class Element>
using PlainInt4 = AntiquantFormats<Element, 4, false>;
template <class Element>
using BlockedInt4 = AntiquantFormats<Element, 4, true>;

}  // namespace moe_jit::cuda::gemm
