// int8 x int4: weights become 16 times their value in int8, sums are exact 32-bit integers within a segment
// of k, and segments are weighed with their scales in fp32.
#pragma once

#include <cute/arch/copy_sm75.hpp>

#include "moe_jit/core/rounding.h"
#include "moe_jit/cuda/gemm/format_int8.cuh"

namespace moe_jit::cuda::gemm {

struct Int8Int4Params {
    const uint64_t* scale;  // [experts, segments, columns], fp32 bits in the low word, used as fp19
    int columns;
    int segments;
    int segment_blocks;  // k-blocks in a segment
};

// [e, k, n] memory, packed along n, plain or FRACTAL_NZ. kShifted_: x loses eight. kSegmented_: several
// segments; otherwise the epilogue scales.
template <bool kBlocked, bool kShifted_, bool kSegmented_>
struct Int8Int4SlabsOfN : ProductFormat<uint32_t, 8> {
    using Params = Int8Int4Params;
    static constexpr bool kShifted = kShifted_;
    static constexpr bool kSegmented = kSegmented_;
    static constexpr int kScaleSteps = kSegmented ? kBlockSteps : 0;
    static constexpr int kScaleBytes = 8;
    static constexpr int kTileWarpgroups = 2;
    static constexpr int kDepth = kBlockBytes;
    using Weights = SlabsOfN<4, kDepth, kBlocked ? 32 : 128, kBlocked, 128>;
    // The bits that weights are shifted by in the sums.
    static constexpr int kScaleBits = 4;

    static Params params(const ProductArgs& args) {
        return {static_cast<const uint64_t*>(args.scale.data), static_cast<int>(args.n), args.segments,
                static_cast<int>(args.k / args.segments / kDepth)};
    }

    // Of columns from `column` on, in step `step` of K or the last one.
    __device__ __forceinline__ static const void* scales(const Params& params, int64_t expert, int step,
                                                         int column) {
        const int segment = min(step / kBlockSteps / params.segment_blocks, params.segments - 1);
        return params.scale + (expert * params.segments + segment) * params.columns + column;
    }

    template <int kTokens>
    __device__ __forceinline__ static void mma(const uint32_t (&a)[4], uint64_t b, Accum (&d)[kTokens / 2],
                                               bool accumulate) {
        detail::fma<typename Int8Atom<kTokens>::Registers>(a, b, d, detail::scale_out(accumulate),
                                                           std::make_index_sequence<kTokens / 2>{});
    }

    // A thread has four neighbouring columns in two units.
    __device__ __forceinline__ static constexpr int column(int warp, int unit, int row, int h) {
        return 128 * (unit / 2) + 32 * warp + 4 * row + 2 * (unit % 2) + h;
    }

    template <int kUnits, int kStageSteps, bool kWeighed>
    class Loader {
        static_assert(kUnits == 2, "columns of one word belong to two units");

      public:
        __device__ __forceinline__ Loader(const Params& params, const TileInfo& info, int first_column,
                                          int tile_column, int thread)
            : params_(params) {
            const int lane = thread % 32, warp = thread / 32, matrix = lane / 8, row = lane % 8;
            const int k = 16 * (matrix / 2) + 2 * (matrix % 2 ^ row / 4) + 4 * (row / 2) + row % 2;
            position_ = Weights::chunk_offset(tile_column / 32 + warp, k);
            const bool upper_first = lane % 4 >= 2;
            first_pair_ = upper_first ? 0x2064 : 0x6420;
            second_pair_ = upper_first ? 0x3175 : 0x7531;
            column_ = tile_column + Int8Int4SlabsOfN::column(warp, 0, lane / 4, 0);
        }

        // Thread (g, c) gets k = 4c .. 4c + 3 and 16 + 4c .. of columns 4g .. 4g + 3.
        __device__ __forceinline__ void load(const uint8_t* block, int step, uint32_t (&a)[kUnits][4]) {
            uint32_t m[4];
            const auto* rows = reinterpret_cast<const cute::uint128_t*>(
                block + position_ + step % kBlockSteps * 32 * Weights::kSlabBytes);
            cute::SM75_U16x8_LDSM_T::copy(*rows, m[0], m[1], m[2], m[3]);
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const uint32_t first = __byte_perm(m[2 * half], m[2 * half + 1], first_pair_);
                const uint32_t second = __byte_perm(m[2 * half], m[2 * half + 1], second_pair_);
                a[0][2 * half] = first << 4 & 0xf0f0f0f0u;
                a[0][2 * half + 1] = first & 0xf0f0f0f0u;
                a[1][2 * half] = second << 4 & 0xf0f0f0f0u;
                a[1][2 * half + 1] = second & 0xf0f0f0f0u;
            }
        }

        // Sums up the weights that are being multiplied.
        template <int kSteps>
        __device__ __forceinline__ void observe(const uint32_t (&a)[kSteps][kUnits][4]) {
            if constexpr (kShifted) {
#pragma unroll
                for (int i = 0; i < 4 * kUnits * kSteps; ++i) {
                    const int u = i / 4 % kUnits;
                    int& sum = sums_[2 * u + i % 2];
                    sum = __dp4a(static_cast<int>(a[i / (4 * kUnits)][u][i % 4]), 0x01010101, sum);
                }
            }
        }

        // Of the segment that the block is in.
        __device__ __forceinline__ void read_scales(const uint8_t* row, int) {
            const auto* pairs = reinterpret_cast<const uint4*>(row + kScaleBytes * column_);
            const uint4 low = pairs[0], high = pairs[1];
            scale_[0] = scale_of(low.x);
            scale_[1] = scale_of(low.z);
            scale_[2] = scale_of(high.x);
            scale_[3] = scale_of(high.z);
        }

        // Sums count from an integer whose bits are those of kOrigin: as long as they stay below 2^22, which
        // segments do, their bits are those of kOrigin plus the sum.
        template <int kAccums>
        __device__ __forceinline__ void begin_segment(Accum (&part)[kUnits][kAccums]) const {
#pragma unroll
            for (int i = 0; i < kUnits * kAccums; ++i) part[i / kAccums][i % kAccums] = float_bits(kOrigin);
        }

        // Adds a segment. What the shift of x takes away is added up in this thread's part of k.
        template <int kAccums>
        __device__ __forceinline__ void promote(float (&acc)[kUnits][kAccums],
                                                const Accum (&part)[kUnits][kAccums]) {
            if constexpr (kShifted) {
#pragma unroll
                for (int i = 0; i < 2 * kUnits; ++i) {
                    weighed_[i] += static_cast<float>(sums_[i]) * scale_[i];
                    sums_[i] = 0;
                }
            }
#pragma unroll
            for (int i = 0; i < kUnits * kAccums; ++i) {
                const int u = i / kAccums, a = i % kAccums;
                acc[u][a] = fp32::fma(bits_float(part[u][a]) - kOrigin, scale_[2 * u + a / 2 % 2], acc[u][a]);
            }
        }

        // After the last segment.
        template <int kAccums>
        __device__ __forceinline__ void finish(float (&acc)[kUnits][kAccums]) const {
            if constexpr (kShifted) {
                float shift[2 * kUnits];
#pragma unroll
                for (int i = 0; i < 2 * kUnits; ++i) shift[i] = kShift * over_quad(weighed_[i]);
#pragma unroll
                for (int i = 0; i < kUnits * kAccums; ++i) {
                    acc[i / kAccums][i % kAccums] -= shift[2 * (i / kAccums) + i % kAccums / 2 % 2];
                }
            }
        }

        // Without segments: turns the MMA results into the exact sums of (x - shift) * w.
        template <int kAccums>
        __device__ __forceinline__ void finish(Accum (&acc)[kUnits][kAccums]) const {
            int shift[2 * kUnits] = {};
            if constexpr (kShifted) {
#pragma unroll
                for (int i = 0; i < 2 * kUnits; ++i) shift[i] = kShift * (over_quad(sums_[i]) >> kScaleBits);
            }
#pragma unroll
            for (int i = 0; i < kUnits * kAccums; ++i) {
                Accum& sum = acc[i / kAccums][i % kAccums];
                const int unscaled = static_cast<int>(sum) >> kScaleBits;
                sum = static_cast<uint32_t>(unscaled - shift[2 * (i / kAccums) + i % kAccums / 2 % 2]);
            }
        }

        __device__ __forceinline__ int segment_blocks() const { return params_.segment_blocks; }

      private:
        static constexpr float kOrigin = 0x1.8p23f;
        static constexpr int kShift = 8;

        // The four threads of a row have a quarter of k each.
        template <class T>
        __device__ __forceinline__ static T over_quad(T sum) {
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            return sum + __shfl_xor_sync(0xffffffffu, sum, 2);
        }

        // Weights count 16 times in sums.
        __device__ __forceinline__ static float scale_of(uint32_t bits) {
            return fp32::mul(fp19(bits_float(bits)), 1.0f / (1 << kScaleBits));
        }

        const Params& params_;
        int position_;
        uint32_t first_pair_, second_pair_;
        int column_;
        float scale_[2 * kUnits];
        int sums_[2 * kUnits] = {};
        float weighed_[2 * kUnits] = {};
    };
};

// Names without commas, for the compiler's command line.
template <bool kBlocked>
struct Int8Int4 {
    using Single = Int8Int4SlabsOfN<kBlocked, false, false>;
    using Segments = Int8Int4SlabsOfN<kBlocked, false, true>;
    using ShiftedSingle = Int8Int4SlabsOfN<kBlocked, true, false>;
    using ShiftedSegments = Int8Int4SlabsOfN<kBlocked, true, true>;
};

}  // namespace moe_jit::cuda::gemm
