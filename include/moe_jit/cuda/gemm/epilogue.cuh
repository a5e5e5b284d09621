// Epilogues of the grouped GEMM: what becomes of a warpgroup's accumulators, kUnits times 64 x kTokens.
//   State, load    what a thread reads before it stores, with a bound of its registers
//   store          writes the rows
//
// Accumulator layout of wgmma: a thread holds rows r and r + 8 (r = lane / 4) of its warp's 16-row slab and,
// in every 8 columns, columns 2c and 2c + 1 (c = lane % 4): acc[4j + 2h + p] = (row r + 8h, column 8j + 2c +
// p).
#pragma once

#include <cute/arch/copy_sm90.hpp>

#include "moe_jit/core/activation.h"
#include "moe_jit/core/numeric.h"
#include "moe_jit/cuda/gemm/tile.cuh"

namespace moe_jit::cuda::gemm {

struct EpilogueContext {
    const TileInfo& info;
    int part;  // of K
    uint8_t* staging;
    int unit;       // index of the first 64 weight rows over all row tiles
    int warpgroup;  // math warpgroup
    int thread;     // within the warpgroup

    __device__ __forceinline__ int warp() const { return thread / 32; }
    __device__ __forceinline__ int row() const { return thread % 32 / 4; }
    __device__ __forceinline__ int column() const { return thread % 4 * 2; }
    __device__ __forceinline__ void sync() const {
        cutlass::arch::NamedBarrier::sync(kWarpgroupThreads, static_cast<uint32_t>(warpgroup));
    }
};

struct TileScales {
    static constexpr int kRegisters = 2;
    float linear = 0.f;
    float gate = 0.f;
};

enum class RowStore { kPlain, kAwaited, kHinted };

// Rows of out[token row, features] that end at feature `end`. kAwaited: others poll them.
template <class Element, RowStore kStore>
struct FeatureRows {
    Element* out;
    int end;
    uint64_t hint = 0;  // eviction policy, if it is kHinted

    __device__ __forceinline__ void store(const EpilogueContext& ctx, int token, int feature,
                                          uint4 value) const {
        if (token >= ctx.info.tokens || feature >= end) return;
        auto* at = out + static_cast<int64_t>(ctx.info.token_begin + token) * end + feature;
        if constexpr (kStore == RowStore::kAwaited) {
            asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(at), "r"(value.x),
                         "r"(value.y), "r"(value.z), "r"(value.w)
                         : "memory");
        } else if constexpr (kStore == RowStore::kHinted) {
            asm volatile("st.global.L2::cache_hint.v4.u32 [%0], {%1, %2, %3, %4}, %5;" ::"l"(at),
                         "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w), "l"(hint)
                         : "memory");
        } else {
            *reinterpret_cast<uint4*>(at) = value;
        }
    }
};

// Stores kCount 8 x 8 matrices of 16-bit elements transposed; lanes 8m .. 8m + 7 hold the addresses of the
// stored rows of matrix m.
template <int kCount>
__device__ __forceinline__ void store_transposed(const uint32_t (&matrix)[kCount], void* row) {
    auto& address = *reinterpret_cast<cute::uint128_t*>(row);
    if constexpr (kCount == 1) {
        cute::SM90_U16x2_STSM_T::copy(matrix[0], address);
    } else if constexpr (kCount == 2) {
        cute::SM90_U16x4_STSM_T::copy(matrix[0], matrix[1], address);
    } else {
        static_assert(kCount == 4, "a matrix store moves 1, 2 or 4");
        cute::SM90_U16x8_STSM_T::copy(matrix[0], matrix[1], matrix[2], matrix[3], address);
    }
}

// GEMM1: activation and saturating e4m3 requantisation; out is [rows, features] e4m3.
//
// A matrix store moves 16-bit elements: here the bytes of one feature for two neighbouring tokens. A staged
// row therefore interleaves a pair of tokens, which are told apart when it is read.
template <class Activation, bool kAwaited>
struct ActivationQuantize {
    static constexpr bool kGated = Activation::kGated;
    static constexpr int kFeatures = kGated ? 32 : 64;  // per unit
    static constexpr int kHeld = kGated ? 1 : 2;        // features of a thread and unit
    static constexpr int kVector = 16;                  // features per store

    struct Params {
        const float* linear_scale;    // [experts]
        const float* gate_scale;      // [experts]
        const uint16_t* row_weights;  // bf16 per pair, multiplied into the accumulators; nullptr: none
        const int32_t* row_to_pair;
        uint8_t* out;
        int features;
        bool shuffled;    // rows in FlashInfer's shuffled order
        bool gate_first;  // of a (gate, linear) row pair the gate comes first
    };

    using State = TileScales;

    __device__ __forceinline__ static State load(const Params& params, const EpilogueContext& ctx) {
        return {params.linear_scale[ctx.info.expert], params.gate_scale[ctx.info.expert]};
    }

    // Two buffers in turn: one barrier per chunk of tokens.
    template <int kUnits>
    struct Staging {
        static constexpr int kRowFeatures = kUnits * kFeatures;
        static constexpr int kPitch = 2 * kRowFeatures + 16;
        static constexpr int kTokens = kMaxStagingBytes / 2 / kPitch >= 16 ? 32 : 16;
        static constexpr int kBytes = kTokens / 2 * kPitch;
        static_assert(2 * kBytes <= kMaxStagingBytes, "staging");
    };

    template <int kTokens>
    __device__ __forceinline__ static void weigh_rows(const Params& params, const EpilogueContext& ctx,
                                                      float (&acc)[kTokens / 2]) {
#pragma unroll
        for (int j = 0; j < kTokens / 8; ++j) {
#pragma unroll
            for (int p = 0; p < 2; ++p) {
                const int token = 8 * j + ctx.column() + p;
                if (token >= ctx.info.tokens) continue;
                const int pair = params.row_to_pair[ctx.info.token_begin + token];
                const float weight = bf16_to_float(params.row_weights[pair]);
                acc[4 * j + p] *= weight;
                acc[4 * j + 2 + p] *= weight;
            }
        }
    }

    // The pair of tokens 8j + column() + {0, 1} of held feature h.
    template <int kAccums>
    __device__ __forceinline__ static uint32_t pair(const Params& params, const TileScales& scales,
                                                    const float (&acc)[kAccums], int j, int h) {
        float value[2];
#pragma unroll
        for (int p = 0; p < 2; ++p) {
            const float first = acc[4 * j + 2 * h + p];
            const float second = kGated ? acc[4 * j + 2 + p] : first;
            const float linear = params.gate_first ? second : first;
            const float gate = params.gate_first ? first : second;
            value[p] = Activation::apply(linear, gate, scales.linear, scales.gate);
        }
        return floats_to_e4m3x2(value[0], value[1]);
    }

    // Stages groups j and j + 1 of 8 tokens; pairs are numbered within the buffer.
    template <int kTokens, int kUnits>
    __device__ __forceinline__ static void stage(const Params& params, const EpilogueContext& ctx,
                                                 const TileScales& scales,
                                                 const float (&acc)[kUnits][kTokens / 2], uint8_t* buffer,
                                                 int first_pair, int j) {
        constexpr int kMatrices = kUnits * kHeld;
        constexpr int kLastGroup = kTokens / 8 - 1;
        uint32_t matrix[kMatrices];
#pragma unroll
        for (int m = 0; m < kMatrices; ++m) {
            const auto& unit = acc[m / kHeld];
            matrix[m] = pair(params, scales, unit, j, m % kHeld) |
                        pair(params, scales, unit, min(j + 1, kLastGroup), m % kHeld) << 16;
        }
        // Columns of a matrix alternate between the two groups.
        const int lane = ctx.thread % 32;
        const int row = first_pair + lane % 2 * 4 + lane % 8 / 2;
        const int m = lane / 8 % kMatrices;
        const int feature = m / kHeld * kFeatures + ctx.warp() * 8 * kHeld + m % kHeld * 8;
        store_transposed(matrix, buffer + row * Staging<kUnits>::kPitch + 2 * feature);
    }

    // Bytes `t` of 16 features' pairs, in the order of memory: e and o hold 8 features each.
    __device__ __forceinline__ static uint4 unpair(const uint4& e, const uint4& o, int t, bool shuffled) {
        const uint32_t apart = t ? 0x7531 : 0x6420, alternating = t ? 0x7351 : 0x6240;
        if (shuffled && kGated) {
            return {__byte_perm(e.x, o.x, alternating), __byte_perm(e.y, o.y, alternating),
                    __byte_perm(e.z, o.z, alternating), __byte_perm(e.w, o.w, alternating)};
        }
        return {__byte_perm(e.x, e.y, apart), __byte_perm(e.z, e.w, apart), __byte_perm(o.x, o.y, apart),
                __byte_perm(o.z, o.w, apart)};
    }

    template <int kTokens, int kUnits>
    __device__ __forceinline__ static void store(const Params& params, const EpilogueContext& ctx,
                                                 const TileScales& scales,
                                                 float (&acc)[kUnits][kTokens / 2]) {
        using Buffer = Staging<kUnits>;
        constexpr int kVectors = Buffer::kRowFeatures / kVector;
        constexpr int kChunk = kTokens < Buffer::kTokens ? kTokens : Buffer::kTokens;
        constexpr RowStore kStore = kAwaited ? RowStore::kAwaited : RowStore::kPlain;
        const FeatureRows<uint8_t, kStore> rows{params.out, params.features};
        if (params.row_weights) {
#pragma unroll
            for (int u = 0; u < kUnits; ++u) weigh_rows<kTokens>(params, ctx, acc[u]);
        }
#pragma unroll
        for (int first = 0; first < kTokens; first += Buffer::kTokens) {
            if (first >= ctx.info.tokens) break;
            uint8_t* buffer = ctx.staging + first / Buffer::kTokens % 2 * Buffer::kBytes;
#pragma unroll
            for (int token = 0; token < kChunk && first + token < kTokens; token += 16) {
                stage<kTokens>(params, ctx, scales, acc, buffer, token / 2, (first + token) / 8);
            }
            ctx.sync();
#pragma unroll
            for (int i = ctx.thread; i < kChunk * kVectors; i += kWarpgroupThreads) {
                const int token = i / kVectors, vector = i % kVectors;
                const auto* staged =
                    reinterpret_cast<const uint4*>(buffer + token / 2 * Buffer::kPitch) + 2 * vector;
                rows.store(ctx, first + token, ctx.unit * kFeatures + vector * kVector,
                           unpair(staged[0], staged[1], token % 2, params.shuffled));
            }
        }
        ctx.sync();
    }
};

// GEMM2: one scale per expert, rounded to bf16; out is [rows, features] bf16.
//
// A warp transposes its own 16 features, one 32-byte sector of every token row.
struct ScaledRows {
    static constexpr int kFeatures = 64;
    static constexpr int kStepTokens = 16;
    static constexpr int kRowBytes = 32;
    static constexpr int kBufferBytes = kStepTokens * kRowBytes;
    static_assert(4 * 2 * kBufferBytes <= kMaxStagingBytes, "staging");

    struct Params {
        const float* scale;  // [experts]
        uint16_t* out;
        int features;
        uint64_t hint;  // eviction policy of the rows
    };

    using State = TileScales;

    __device__ __forceinline__ static State load(const Params& params, const EpilogueContext& ctx) {
        return {params.scale[ctx.info.expert], 0.f};
    }

    // Place of half a staged row; neighbouring rows swap their halves against bank conflicts.
    __device__ __forceinline__ static uint4* place(uint8_t* buffer, int token, int half) {
        return reinterpret_cast<uint4*>(buffer + token * kRowBytes) + (half ^ (token >> 2 & 1));
    }

    template <int kTokens>
    __device__ __forceinline__ static void stage(uint8_t* buffer, int lane, float scale,
                                                 const float (&acc)[kTokens / 2], int j) {
        constexpr int kLastGroup = kTokens / 8 - 1;
        uint32_t matrix[4];
#pragma unroll
        for (int m = 0; m < 4; ++m) {
            const float* pair = acc + 4 * min(j + m / 2, kLastGroup) + 2 * (m % 2);
            matrix[m] = floats_to_bf16x2(scale * pair[0], scale * pair[1]);
        }
        store_transposed(matrix, place(buffer, lane / 16 * 8 + lane % 8, lane / 8 % 2));
    }

    template <int kTokens, int kUnits>
    __device__ __forceinline__ static void store(const Params& params, const EpilogueContext& ctx,
                                                 const TileScales& scales,
                                                 float (&acc)[kUnits][kTokens / 2]) {
        const FeatureRows<uint16_t, RowStore::kHinted> rows{params.out, params.features, params.hint};
        const int lane = ctx.thread % 32;
        uint8_t* buffers = ctx.staging + ctx.warp() * 2 * kBufferBytes;
#pragma unroll
        for (int first = 0; first < kTokens; first += kStepTokens) {
            if (first >= ctx.info.tokens) break;
#pragma unroll
            for (int u = 0; u < kUnits; ++u) {
                uint8_t* buffer = buffers + (first / kStepTokens * kUnits + u) % 2 * kBufferBytes;
                stage<kTokens>(buffer, lane, scales.linear, acc[u], first / 8);
                __syncwarp();
                rows.store(ctx, first + lane / 2, (ctx.unit + u) * kFeatures + ctx.warp() * 16 + lane % 2 * 8,
                           *place(buffer, lane / 2, lane % 2));
            }
        }
        ctx.sync();
    }
};

// GEMM2 whose K may be cut: the fp32 rows of a part, scaled; finalize adds the parts and rounds.
struct ScaledParts {
    static constexpr int kFeatures = ScaledRows::kFeatures;

    struct Params {
        ScaledRows::Params rows;
        float* parts;           // [k_parts, part_elements / features, features]; nullptr: K is not cut
        int64_t part_elements;  // of one part
    };

    using State = TileScales;

    __device__ __forceinline__ static State load(const Params& params, const EpilogueContext& ctx) {
        return ScaledRows::load(params.rows, ctx);
    }

    // A warp store covers sectors: 8 features of 4 tokens.
    template <int kTokens, int kUnits>
    __device__ __forceinline__ static void store(const Params& params, const EpilogueContext& ctx,
                                                 const TileScales& scales,
                                                 float (&acc)[kUnits][kTokens / 2]) {
        if (params.parts == nullptr) return ScaledRows::store<kTokens>(params.rows, ctx, scales, acc);
        float* out = params.parts + ctx.part * params.part_elements;
        const int end = params.rows.features;
#pragma unroll
        for (int i = 0; i < kUnits * kTokens / 2; ++i) {
            const int unit = i / (kTokens / 2), j = i % (kTokens / 2);
            const int token = j / 4 * 8 + ctx.column() + j % 2;
            const int feature = (ctx.unit + unit) * kFeatures + ctx.warp() * 16 + j / 2 % 2 * 8 + ctx.row();
            if (token >= ctx.info.tokens || feature >= end) continue;
            out[static_cast<int64_t>(ctx.info.token_begin + token) * end + feature] =
                scales.linear * acc[unit][j];
        }
    }
};

}  // namespace moe_jit::cuda::gemm
