// 16-bit activations and int8 or int4 weights that become 16-bit in registers: (w + offset) * scale, rounded
// as moe_jit/core/antiquant.h says, with the scale and offset of the column, or of the column and a group of
// k. A scale of the column alone multiplies the sum instead.
#pragma once

#include <algorithm>
#include <cute/arch/copy_sm75.hpp>

#include "moe_jit/cuda/gemm/antiquant_unpack.cuh"
#include "moe_jit/cuda/gemm/format_product.cuh"

namespace moe_jit::cuda::gemm {

struct AntiquantParams {
    const uint16_t* scale;   // [experts, groups, columns]
    const uint16_t* offset;  // the same; read only by formats with offsets
    int columns;
    int groups;
    int group_steps;  // MMA steps (16 of K) in a group
};

// [e, n, k] rows in order of K, which a thread gets in another order than the MMA wants: tokens must come in
// that order, see launch_order_pairs(). Lines of up to 128 bytes: TMA is slow with those of 32.
template <int kBits>
struct AntiquantRowsOfK : KMajorRows<kBlockBytes * kBits / 16> {
    static constexpr bool kInRegisters = true;
    static constexpr int kMaxBoxBlocks = 16 / kBits;

    // Offset of the 16 bytes `chunk` of a row, in lines of kLineBytes. Even multiples of 16 bytes flip bits.
    template <int kLineBytes>
    __device__ __forceinline__ static int chunk_offset(int row, int chunk) {
        constexpr int kChunks = kLineBytes / 16;
        return row * kLineBytes + (chunk ^ (row / (8 / kChunks) & (kChunks - 1))) * 16;
    }
};

// [e, k, n] memory, plain or FRACTAL_NZ, int4 packed along n; or AntiquantRowsOfK. kGroupSteps: the MMA steps
// in a group of k, or a number that divides them and that a stage's steps divide; 0: a single group.
template <class Element_, int kBits, class Weights_, int kGroupSteps, bool kOffset>
struct Antiquantised : ProductFormat<float, 16> {
    using Element = Element_;
    using Params = AntiquantParams;
    using Weights = Weights_;
    static constexpr bool kSlabs = Weights::kSlabs;
    static constexpr int kTileWarpgroups = 2;
    // The weights themselves are multiplied, which are exact; AntiquantOutput scales their sums.
    static constexpr bool kScaledSums = kGroupSteps == 0 && !kOffset;
    // Neighbouring columns that a thread gets by one load, and units that they belong to.
    static constexpr int kHeld = kSlabs ? 16 / kBits : 2;
    static constexpr int kSharedUnits = kHeld / 2;
    static constexpr int kWeighedTokens = kBits == 4 && kGroupSteps >= 8 && !kOffset ? 32 : 0;
    static constexpr int kScaleSteps = std::min(kGroupSteps, 8);
    static constexpr int kScaleBytes = 2;

    static Params params(const ProductArgs& args) {
        return {static_cast<const uint16_t*>(args.antiquant_scale.data),
                static_cast<const uint16_t*>(args.antiquant_offset.data), static_cast<int>(args.n),
                args.segments, static_cast<int>(args.k / args.segments * kTokenBits / 8 / kMmaBytes)};
    }

    // Of columns from `column` on, in step `step` of K or the last one.
    __device__ __forceinline__ static const void* scales(const Params& params, int64_t expert, int step,
                                                         int column) {
        const int group = min(step / params.group_steps, params.groups - 1);
        return params.scale + (expert * params.groups + group) * params.columns + column;
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

    template <int kUnits, int kStageSteps, bool kWeighed>
    class Loader {
        static constexpr bool kUnscaled = kScaledSums || kWeighed;
        // Weights are multiplied as w / kSmall.
        static constexpr float kSmall = kUnscaled && kBits == 4 && std::is_same_v<Element, Bf16> ? 64.f : 1.f;
        static constexpr int kChunks = kUnits / kSharedUnits;
        // Groups that begin or go on in a stage.
        static constexpr int kStageGroups =
            kGroupSteps == 0 ? 1 : std::max(1, kStageSteps / std::max(kGroupSteps, 1));
        static constexpr int kStageSegments = kWeighed ? kStageSteps / std::max(kScaleSteps, 1) : 1;
        static_assert(kUnits % kSharedUnits == 0, "columns of one word belong to several units");
        // Pairs of k in a word of weights, and steps that a word serves.
        static constexpr int kPairs = 16 / kBits;
        static constexpr int kWordSteps = kSlabs ? 1 : kPairs / 2;
        // Matrices loaded at a time, and steps that they serve: the widest tiles have few registers.
        static constexpr int kMatrices = kStageSteps == kBlockSteps && kWordSteps > 1 ? 2 : 4;
        static constexpr int kMatrixSteps = kMatrices / 2 * kWordSteps;
        // Of rows of K.
        static constexpr int kBoxSteps = kBlockSteps * Weights::kMaxBoxBlocks;
        static constexpr int kLineSteps = std::min(kStageSteps, kBoxSteps);
        static constexpr int kLineBytes = kLineSteps / kBlockSteps * Weights::kRowBytes;

      public:
        __device__ __forceinline__ Loader(const Params& params, const TileInfo& info, int first_column,
                                          int tile_column, int thread)
            : params_(params) {
            const int lane = thread % 32, warp = thread / 32;
            column_ = tile_column + Base::column(warp, 0, lane / 4, 0);
#pragma unroll
            for (int i = 0; i < kChunks; ++i) {
                if (kSlabs || i == 0) position_[i] = first_chunk(tile_column, 4 * i + warp, lane);
                const int column = first_column + Base::column(warp, i * kSharedUnits, lane / 4, 0);
                at_[i] = static_cast<uint32_t>(info.expert) * params.groups * (params.columns / kHeld) +
                         (column < params.columns ? column / kHeld : 0);
            }
            if constexpr (!kUnscaled) fetch();
            if constexpr (kGroupSteps == 0 && !kUnscaled) {
                take_stage();
                use_group(0);
            }
        }

        // Step `step` of a stage, which is in `block`.
        __device__ __forceinline__ void load(const uint8_t* block, int step, uint32_t (&a)[kUnits][4]) {
            if constexpr (kGroupSteps > 0 && !kUnscaled) {
                if (step == 0) {
                    take_stage();
                    fetch();
                }
                if (step % (kStageSteps / kStageGroups) == 0) use_group(step / (kStageSteps / kStageGroups));
            }
#pragma unroll
            for (int i = 0; i < kChunks; ++i) {
                uint32_t (&m)[kMatrices] = matrices_[i];
                if (step % kMatrixSteps == 0) load_matrices(block, step, i, m);
#pragma unroll
                for (int half = 0; half < 2; ++half) {
                    uint32_t pairs[kPairs];
                    unpack(m[step % kMatrixSteps / kWordSteps * 2 + half], pairs);
                    if constexpr (kSlabs) {
#pragma unroll
                        for (int c = 0; c < kHeld; ++c) {
                            a[i * kSharedUnits + c / 2][half * 2 + c % 2] = scaled(pairs[c], i, c);
                        }
                    } else {
#pragma unroll
                        for (int c = 0; c < 2; ++c) {
                            a[i][c * 2 + half] = scaled(pairs[step % kWordSteps * 2 + c], i, half);
                        }
                    }
                }
            }
        }

        // Of a stage's segment `segment`.
        __device__ __forceinline__ void read_scales(const uint8_t* row, int segment) {
#pragma unroll
            for (int i = 0; i < kChunks; ++i) {
                const auto words = *reinterpret_cast<const Words*>(row + 2 * (column_ + 32 * kHeld * i));
#pragma unroll
                for (int c = 0; c < kHeld; ++c) {
                    const uint32_t word = words.word[c / 2];
                    sum_scale_[segment][i * kHeld + c] = scale_value(word, c % 2);
                }
            }
        }

        // Adds it.
        template <int kAccums>
        __device__ __forceinline__ void promote(float (&acc)[kUnits][kAccums],
                                                const float (&part)[kUnits][kAccums], int segment) const {
#pragma unroll
            for (int i = 0; i < kUnits * kAccums; ++i) {
                const int u = i / kAccums, a = i % kAccums;
                acc[u][a] = fp32::fma(part[u][a], sum_scale_[segment][2 * u + a / 2 % 2], acc[u][a]);
            }
        }

        template <class Fragments>
        __device__ __forceinline__ void observe(const Fragments&) const {}

        // After the last MMAs.
        template <int kAccums>
        __device__ __forceinline__ void finish(float (&acc)[kUnits][kAccums]) const {
#pragma unroll
            for (int i = 0; i < kUnits * kAccums; ++i) acc[i / kAccums][i % kAccums] *= kSmall;
        }

      private:
        using Base = Antiquantised;

        // Where in a block lane `lane` finds its row of the first four matrices: 32 of K by 16 bytes of n, or
        // 16 rows of n by 32 bytes of K.
        __device__ __forceinline__ static int first_chunk(int tile_column, int slab_chunk, int lane) {
            if constexpr (kSlabs) {
                return Weights::chunk_offset(tile_column / (8 * kHeld) + slab_chunk, lane);
            } else {
                const int row = tile_column + 16 * slab_chunk + lane % 16;
                return Weights::template chunk_offset<kLineBytes>(row, kMatrices == 2 ? 0 : lane / 16);
            }
        }

        __device__ __forceinline__ void load_matrices(const uint8_t* block, int step, int i,
                                                      uint32_t (&m)[kMatrices]) const {
            using cute::uint128_t;
            constexpr int kUnitBytes = kUnitRows * kLineBytes;  // of rows
            if constexpr (kSlabs) {
                const auto* rows = block + position_[i] + step % kBlockSteps * 16 * Weights::kSlabBytes;
                cute::SM75_U16x8_LDSM_T::copy(*reinterpret_cast<const uint128_t*>(rows), m[0], m[1], m[2],
                                              m[3]);
            } else if constexpr (kMatrices == 2) {
                const int position = position_[0] ^ step % kLineSteps / kMatrixSteps * 16;
                const auto* rows = block + position + i * kUnitBytes;
                cute::SM75_U32x2_LDSM_N::copy(*reinterpret_cast<const uint128_t*>(rows), m[0], m[1]);
            } else {
                const int position = position_[0] ^ step % kLineSteps / kMatrixSteps * 32;
                const auto* rows = block + position + i * kUnitBytes;
                cute::SM75_U32x4_LDSM_N::copy(*reinterpret_cast<const uint128_t*>(rows), m[0], m[1], m[2],
                                              m[3]);
            }
        }

        __device__ __forceinline__ static float scale_value(uint32_t word, int half) {
            const auto bits = static_cast<uint16_t>(half ? word >> 16 : word);
            return std::is_same_v<Element, Bf16> ? bits_float(uint32_t{bits} << 16) : half_to_float(bits);
        }

        __device__ __forceinline__ static void unpack(uint32_t word, uint32_t (&pairs)[kPairs]) {
            if constexpr (kSmall != 1.f) {
                Unpack<Element, kBits>::small_columns(word, pairs);
            } else if constexpr (kSlabs || kBits == 4) {
                Unpack<Element, kBits>::columns(word, pairs);
            } else {
                Unpack<Element, kBits>::depths(word, pairs);
            }
        }

        static constexpr int kWords = kHeld / 2;
        // The parameters of a thread's neighbouring columns, packed.
        struct alignas(4 * kWords) Words {
            uint32_t word[kWords];
        };

        __device__ __forceinline__ static Words read(const uint16_t* data, uint32_t at) {
            if constexpr (kWords == 2) {
                const uint2 two = __ldg(reinterpret_cast<const uint2*>(data) + at);
                return {two.x, two.y};
            } else {
                return {__ldg(reinterpret_cast<const uint32_t*>(data) + at)};
            }
        }

        // Requests the parameters of the next stage: those of the last group behind K.
        __device__ __forceinline__ void fetch() {
#pragma unroll
            for (int g = 0; g < kStageGroups; ++g) {
                const uint32_t row = min(group_ + g, params_.groups - 1) * (params_.columns / kHeld);
#pragma unroll
                for (int i = 0; i < kChunks; ++i) {
                    next_scale_[g][i] = read(params_.scale, at_[i] + row);
                    if constexpr (kOffset) next_offset_[g][i] = read(params_.offset, at_[i] + row);
                }
            }
            if constexpr (kGroupSteps > 0 && kStageSteps >= kGroupSteps) {
                steps_ += kStageSteps;
                const bool whole = steps_ >= params_.group_steps;
                group_ += whole ? kStageGroups : 0;
                steps_ = whole ? 0 : steps_;
            } else if constexpr (kGroupSteps > 0) {
                steps_ += kStageSteps;
                const bool whole = steps_ == params_.group_steps;
                group_ += whole;
                steps_ = whole ? 0 : steps_;
            }
        }

        // What was requested a stage ago.
        __device__ __forceinline__ void take_stage() {
#pragma unroll
            for (int g = 0; g < kStageGroups; ++g) {
#pragma unroll
                for (int i = 0; i < kChunks; ++i) {
                    stage_scale_[g][i] = next_scale_[g][i];
                    if constexpr (kOffset) stage_offset_[g][i] = next_offset_[g][i];
                }
            }
        }

        // Parameters twice, for pairs of weights.
        __device__ __forceinline__ void use_group(int g) {
#pragma unroll
            for (int i = 0; i < kChunks * kHeld; ++i) {
                const int chunk = i / kHeld, c = i % kHeld, half = c % 2 ? 0x3232 : 0x1010;
                scale_[chunk][c] = __byte_perm(stage_scale_[g][chunk].word[c / 2], 0, half);
                if constexpr (kOffset) {
                    offset_[chunk][c] = __byte_perm(stage_offset_[g][chunk].word[c / 2], 0, half);
                }
            }
        }

        __device__ __forceinline__ uint32_t scaled(uint32_t pair, int i, int c) const {
            if constexpr (kUnscaled) {
                return pair;
            } else if constexpr (kOffset) {
                return dequantise<Element>(pair, scale_[i][c], offset_[i][c]);
            } else {
                return Pair<Element>::mul(pair, scale_[i][c]);
            }
        }

        const Params& params_;
        int column_;
        float sum_scale_[kStageSegments][kChunks * kHeld];
        int position_[kChunks];
        uint32_t at_[kChunks];  // in Words: 2^32 of them are more than fit a GPU's memory with their weights
        int group_ = 0;         // of the next stage's first step
        int steps_ = 0;         // of that group in stages before
        Words next_scale_[kStageGroups][kChunks], stage_scale_[kStageGroups][kChunks];
        Words next_offset_[kStageGroups][kChunks], stage_offset_[kStageGroups][kChunks];
        uint32_t scale_[kChunks][kHeld], offset_[kChunks][kHeld];
        uint32_t matrices_[kChunks][kMatrices];
    };
};

// Names without commas, for the compiler's command line. GroupsN: of N elements of k; Groups: of a multiple
// of 256.
template <class Element, int kBits, class Weights>
struct AntiquantFormats {
    template <int kGroupSteps, bool kOffset>
    using Format = Antiquantised<Element, kBits, Weights, kGroupSteps, kOffset>;
    using Single = Format<0, false>;
    using SingleOffset = Format<0, true>;
    using Groups32 = Format<2, false>;
    using Groups32Offset = Format<2, true>;
    using Groups64 = Format<4, false>;
    using Groups64Offset = Format<4, true>;
    using Groups128 = Format<8, false>;
    using Groups128Offset = Format<8, true>;
    using Groups = Format<16, false>;
    using GroupsOffset = Format<16, true>;
};
template <int kBits>
using PlainSlabs = SlabsOfN<kBits, kBlockBytes / 2, 128, false>;
template <int kBits>
using BlockedSlabs = SlabsOfN<kBits, kBlockBytes / 2, 32, true>;
template <class Element>
using PlainInt8 = AntiquantFormats<Element, 8, PlainSlabs<8>>;
template <class Element>
using BlockedInt8 = AntiquantFormats<Element, 8, BlockedSlabs<8>>;
template <class Element>
using RowsOfInt8 = AntiquantFormats<Element, 8, AntiquantRowsOfK<8>>;
template <class Element>
using RowsOfInt4 = AntiquantFormats<Element, 4, AntiquantRowsOfK<4>>;
template <class Element>
using PlainInt4 = AntiquantFormats<Element, 4, PlainSlabs<4>>;
template <class Element>
using BlockedInt4 = AntiquantFormats<Element, 4, BlockedSlabs<4>>;

}  // namespace moe_jit::cuda::gemm
