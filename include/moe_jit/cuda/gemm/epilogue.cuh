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

// Where a unit's features go: out[token row * pitch + feature], features [begin, end) of the whole tensor.
template <class Element>
struct FeatureSpan {
    Element* out;
    int begin;
    int end;
};

template <class Element>
struct StagedRow {
    static constexpr int kVector = 16 / sizeof(Element);
    static constexpr int kPitch(int features) { return features + kVector; }
};

// Transposes through shared memory so that every token row is written in 16-byte pieces. stage(staging, j)
// writes columns [8j, 8j + 8 * kGroups) to kGroups * 8 staged rows.
template <int kTokens, int kFeatures, class Element, class Stage>
__device__ __forceinline__ void store_token_rows(const EpilogueContext& ctx, const FeatureSpan<Element>& span,
                                                 Stage stage) {
    constexpr int kPitch = StagedRow<Element>::kPitch(kFeatures);
    constexpr int kVector = StagedRow<Element>::kVector;
    constexpr int kVectors = kFeatures / kVector;
    static_assert(kPitch * sizeof(Element) <= kStagedRowBytes, "staging row too long");
    Element* staging = reinterpret_cast<Element*>(ctx.staging);
#pragma unroll
    for (int first = 0; first < kTokens; first += kStagedTokens) {
        constexpr int kChunk = kTokens < kStagedTokens ? kTokens : kStagedTokens;
        if (first >= ctx.info.tokens) break;
        stage(staging, first / 8);
        ctx.sync();
#pragma unroll
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

// Columns per call of `stage`, in groups of 8.
template <int kTokens>
constexpr int kStagedGroups = (kTokens < kStagedTokens ? kTokens : kStagedTokens) / 8;

// Stages single elements: value(j, h, p) is the element of feature[h] and column 8j + column() + p.
template <int kTokens, int kPitch, int kHeld, class Element, class Value>
__device__ __forceinline__ void stage_elements(const EpilogueContext& ctx, Element* staging, int first_group,
                                               const int (&feature)[kHeld], Value value) {
#pragma unroll
    for (int j = 0; j < kStagedGroups<kTokens>; ++j) {
        if (first_group + j >= kTokens / 8) break;
#pragma unroll
        for (int h = 0; h < kHeld; ++h) {
#pragma unroll
            for (int p = 0; p < 2; ++p) {
                staging[(8 * j + ctx.column() + p) * kPitch + feature[h]] = value(first_group + j, h, p);
            }
        }
    }
}

// Stages 16-bit elements with transposing matrix stores: value(j, h) packs columns 8j + column() + {0, 1} of
// row row() + 8h. Features are rows.
template <int kTokens, int kPitch, class Value>
__device__ __forceinline__ void stage_matrices(const EpilogueContext& ctx, uint16_t* staging, int first_group,
                                               Value value) {
    const int lane = ctx.thread % 32;
    // Lanes 8m .. 8m + 7 hold the row addresses of matrix m = 2 * (group) + h.
    uint16_t* row = staging + (lane / 16 * 8 + lane % 8) * kPitch + ctx.warp() * 16 + lane / 8 % 2 * 8;
    static_assert(kTokens == 8 || kTokens % 16 == 0, "groups are stored in pairs");
    if constexpr (kStagedGroups<kTokens> == 1) {
        row = staging + lane % 8 * kPitch + ctx.warp() * 16 + lane / 8 % 2 * 8;
        cute::SM90_U16x4_STSM_T::copy(value(first_group, 0), value(first_group, 1),
                                      *reinterpret_cast<cute::uint128_t*>(row));
    } else {
#pragma unroll
        for (int j = 0; j < kStagedGroups<kTokens>; j += 2) {
            if (first_group + j >= kTokens / 8) break;
            cute::SM90_U16x8_STSM_T::copy(value(first_group + j, 0), value(first_group + j, 1),
                                          value(first_group + j + 1, 0), value(first_group + j + 1, 1),
                                          *reinterpret_cast<cute::uint128_t*>(row + 8 * j * kPitch));
        }
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

    using State = TileScales;

    __device__ __forceinline__ static State load(const Params& params, const EpilogueContext& ctx) {
        return {params.linear_scale[ctx.info.expert], params.gate_scale[ctx.info.expert]};
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

    template <int kTokens, int kUnits>
    __device__ __forceinline__ static void store(const Params& params, const EpilogueContext& ctx,
                                                 const TileScales& scales,
                                                 float (&acc)[kUnits][kTokens / 2]) {
#pragma unroll
        for (int u = 0; u < kUnits; ++u) store_unit<kTokens>(params, ctx, ctx.unit + u, scales, acc[u]);
    }

    template <int kTokens>
    __device__ __forceinline__ static void store_unit(const Params& params, const EpilogueContext& ctx,
                                                      int unit, const TileScales& scales,
                                                      float (&acc)[kTokens / 2]) {
        if (params.row_weights) weigh_rows<kTokens>(params, ctx, acc);
        const FeatureSpan<uint8_t> span{params.out, unit * kFeatures, params.features};
        constexpr int kPitch = StagedRow<uint8_t>::kPitch(kFeatures);
        if constexpr (kGated) {
            // Both layouts keep linear and gate of one feature 8 rows apart; they number the features
            // differently.
            const int feature[1] = {params.shuffled ? ctx.warp() / 2 * 16 + ctx.row() * 2 + ctx.warp() % 2
                                                    : ctx.warp() * 8 + ctx.row()};
            const auto value = [&](int j, int, int p) {
                const float first = acc[4 * j + p], second = acc[4 * j + 2 + p];
                const float linear = params.gate_first ? second : first;
                const float gate = params.gate_first ? first : second;
                return float_to_e4m3(Activation::apply(linear, gate, scales.linear, scales.gate));
            };
            store_token_rows<kTokens, kFeatures>(ctx, span, [&](uint8_t* staging, int group) {
                stage_elements<kTokens, kPitch>(ctx, staging, group, feature, value);
            });
        } else {
            const int feature[2] = {ctx.warp() * 16 + ctx.row(), ctx.warp() * 16 + ctx.row() + 8};
            const auto value = [&](int j, int h, int p) {
                const float sum = acc[4 * j + 2 * h + p];
                return float_to_e4m3(Activation::apply(sum, sum, scales.linear, scales.gate));
            };
            store_token_rows<kTokens, kFeatures>(ctx, span, [&](uint8_t* staging, int group) {
                stage_elements<kTokens, kPitch>(ctx, staging, group, feature, value);
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

    using State = TileScales;

    __device__ __forceinline__ static State load(const Params& params, const EpilogueContext& ctx) {
        return {params.scale[ctx.info.expert], 0.f};
    }

    template <int kTokens, int kUnits>
    __device__ __forceinline__ static void store(const Params& params, const EpilogueContext& ctx,
                                                 const TileScales& scales,
                                                 float (&acc)[kUnits][kTokens / 2]) {
#pragma unroll
        for (int u = 0; u < kUnits; ++u) store_unit<kTokens>(params, ctx, ctx.unit + u, scales, acc[u]);
    }

    template <int kTokens>
    __device__ __forceinline__ static void store_unit(const Params& params, const EpilogueContext& ctx,
                                                      int unit, const TileScales& scales,
                                                      float (&acc)[kTokens / 2]) {
        const FeatureSpan<uint16_t> span{params.out, unit * kFeatures, params.features};
        const auto value = [&](int j, int h) {
            const float* pair = acc + 4 * j + 2 * h;
            return floats_to_bf16x2(scales.linear * pair[0], scales.linear * pair[1]);
        };
        store_token_rows<kTokens, kFeatures>(ctx, span, [&](uint16_t* staging, int group) {
            stage_matrices<kTokens, StagedRow<uint16_t>::kPitch(kFeatures)>(ctx, staging, group, value);
        });
    }
};

}  // namespace moe_jit::cuda::gemm
