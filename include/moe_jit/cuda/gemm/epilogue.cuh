// Epilogues of the grouped GEMM: what becomes of one unit's 64 x kTokens accumulators.
//
// Accumulator layout of wgmma: a thread holds rows r and r + 8 (r = lane / 4) of its warp's 16-row slab and, in
// every 8 columns, columns 2c and 2c + 1 (c = lane % 4): acc[4j + 2h + p] = (row r + 8h, column 8j + 2c + p).
#pragma once

#include <moe_jit/core/activation.h>
#include <moe_jit/core/numeric.h>

#include <moe_jit/cuda/gemm/tile.cuh>

namespace moe_jit::cuda::gemm {

struct EpilogueContext {
    const TileInfo& info;
    uint8_t* staging;
    int unit;       // index of the 64 weight rows over all row tiles
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
    float linear = 0.f;
    float gate = 0.f;
};

// Where a unit's features go: out[token row * pitch + feature], features [begin, end) of the whole tensor.
template <class Element>
struct FeatureSpan {
    Element* out;
    int begin;
    int end;
};

// Transposes through shared memory so that every token row is written in 16-byte pieces.
// value(j, h, p) is the element of feature[h] and column 8j + column() + p.
template <int kTokens, int kFeatures, class Element, int kHeld, class Value>
__device__ __forceinline__ void store_token_rows(const EpilogueContext& ctx, const FeatureSpan<Element>& span,
                                                 const int (&feature)[kHeld], Value value) {
    constexpr int kPitch = kFeatures + 16 / sizeof(Element);
    constexpr int kChunk = kTokens < kStagedTokens ? kTokens : kStagedTokens;
    constexpr int kVector = 16 / sizeof(Element);
    constexpr int kVectors = kFeatures / kVector;
    static_assert(kPitch * sizeof(Element) <= kStagedRowBytes, "staging row too long");
    Element* staging = reinterpret_cast<Element*>(ctx.staging);
#pragma unroll
    for (int first = 0; first < kTokens; first += kChunk) {
        if (first >= ctx.info.tokens) break;
#pragma unroll
        for (int j = 0; j < kChunk / 8; ++j) {
#pragma unroll
            for (int h = 0; h < kHeld; ++h) {
#pragma unroll
                for (int p = 0; p < 2; ++p) {
                    staging[(8 * j + ctx.column() + p) * kPitch + feature[h]] = value(first / 8 + j, h, p);
                }
            }
        }
        ctx.sync();
        for (int i = ctx.thread; i < kChunk * kVectors; i += kWarpgroupThreads) {
            const int token = i / kVectors;
            const int offset = i % kVectors * kVector;
            if (first + token < ctx.info.tokens && span.begin + offset < span.end) {
                const int64_t row = ctx.info.token_begin + first + token;
                *reinterpret_cast<uint4*>(span.out + row * span.end + span.begin + offset) =
                    *reinterpret_cast<const uint4*>(staging + token * kPitch + offset);
            }
        }
        ctx.sync();
    }
}

// GEMM1: activation and saturating e4m3 requantisation; out is [rows, features] e4m3.
template <class Activation>
struct ActivationQuantize {
    static constexpr bool kGated = Activation::kGated;
    static constexpr int kFeatures = kGated ? 32 : 64;  // per unit

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

    __device__ __forceinline__ static TileScales load(const Params& params, const TileInfo& info) {
        return {params.linear_scale[info.expert], params.gate_scale[info.expert]};
    }

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

    template <int kTokens>
    __device__ __forceinline__ static void store(const Params& params, const EpilogueContext& ctx,
                                                 const TileScales& scales, float (&acc)[kTokens / 2]) {
        if (params.row_weights) weigh_rows<kTokens>(params, ctx, acc);
        const FeatureSpan<uint8_t> span{params.out, ctx.unit * kFeatures, params.features};
        if constexpr (kGated) {
            // Both layouts keep linear and gate of one feature 8 rows apart; they number the features differently.
            const int feature[1] = {params.shuffled ? ctx.warp() / 2 * 16 + ctx.row() * 2 + ctx.warp() % 2
                                                    : ctx.warp() * 8 + ctx.row()};
            store_token_rows<kTokens, kFeatures>(ctx, span, feature, [&](int j, int, int p) {
                const float first = acc[4 * j + p], second = acc[4 * j + 2 + p];
                const float linear = params.gate_first ? second : first;
                const float gate = params.gate_first ? first : second;
                return float_to_e4m3(Activation::apply(linear, gate, scales.linear, scales.gate));
            });
        } else {
            const int feature[2] = {ctx.warp() * 16 + ctx.row(), ctx.warp() * 16 + ctx.row() + 8};
            store_token_rows<kTokens, kFeatures>(ctx, span, feature, [&](int j, int h, int p) {
                const float value = acc[4 * j + 2 * h + p];
                return float_to_e4m3(Activation::apply(value, value, scales.linear, scales.gate));
            });
        }
    }
};

// GEMM2: one scale per expert, rounded to bf16; out is [rows, features] bf16.
struct ScaledRows {
    static constexpr int kFeatures = 64;

    struct Params {
        const float* scale;  // [experts]
        uint16_t* out;
        int features;
    };

    __device__ __forceinline__ static TileScales load(const Params& params, const TileInfo& info) {
        return {params.scale[info.expert], 0.f};
    }

    template <int kTokens>
    __device__ __forceinline__ static void store(const Params& params, const EpilogueContext& ctx,
                                                 const TileScales& scales, float (&acc)[kTokens / 2]) {
        const FeatureSpan<uint16_t> span{params.out, ctx.unit * kFeatures, params.features};
        const int feature[2] = {ctx.warp() * 16 + ctx.row(), ctx.warp() * 16 + ctx.row() + 8};
        store_token_rows<kTokens, kFeatures>(
            ctx, span, feature, [&](int j, int h, int p) { return float_to_bf16(scales.linear * acc[4 * j + 2 * h + p]); });
    }
};

}  // namespace moe_jit::cuda::gemm
