// Epilogue of a grouped product: one value for each (row, column), computed from its sum and stored from
// registers. What the value is, is an Output's business (product_output.cuh); where it goes, is told here.
#pragma once

#include <type_traits>

#include "moe_jit/cuda/gemm/epilogue.cuh"

namespace moe_jit::cuda::gemm {

template <class Element, int kCount>
struct alignas(sizeof(Element) * kCount) ElementVector {
    Element value[kCount];
};

// An Output provides
//   Element                    of the result
//   Params, params(args)       kernel parameters, from ProductArgs
//   Channel, kChannelRegisters parameters of a column; channel(params, expert, column) reads them
//   Token                      parameters of a row; token(params, row) reads them
//   apply(sum, channel, token) the element
template <class Tile, class Output>
struct ProductRows {
    using Format = typename Tile::Format;
    using Element = typename Output::Element;
    static constexpr int kUnits = Tile::kUnits;
    // Tokens whose parameters are requested together, in groups of eight columns of the accumulators.
    static constexpr int kGroupsAhead = 4;

    struct Params {
        typename Output::Params output;
        Element* out;     // [rows, columns]
        int64_t columns;  // even
    };

    struct State {
        static constexpr int kRegisters = 2 * kUnits * Output::kChannelRegisters;
        typename Output::Channel channel[kUnits][2];
    };

    __device__ __forceinline__ static int64_t column(const EpilogueContext& ctx, int unit, int h) {
        return ctx.unit * int64_t{kUnitRows} + Format::column(ctx.warp(), unit, ctx.row(), h);
    }

    __device__ __forceinline__ static State load(const Params& params, const EpilogueContext& ctx) {
        State state;
#pragma unroll
        for (int i = 0; i < 2 * kUnits; ++i) {
            const int64_t n = min(column(ctx, i / 2, i % 2), params.columns - 1);
            state.channel[i / 2][i % 2] = Output::channel(params.output, ctx.info.expert, n, params.columns);
        }
        return state;
    }

    template <class Sum, int kAccums>
    __device__ __forceinline__ static void store_token(const Params& params, const EpilogueContext& ctx,
                                                       const State& state, Sum (&acc)[kUnits][kAccums], int i,
                                                       int64_t row, const typename Output::Token& token) {
#pragma unroll
        for (int u = 0; u < kUnits; ++u) {
            const int64_t first = column(ctx, u, 0);
            Element* out = params.out + row * params.columns;
            if constexpr (Format::kPairedColumns) {
                ElementVector<Element, 2> pair;
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    pair.value[h] = Output::apply(acc[u][i + 2 * h], state.channel[u][h], token);
                }
                if (first < params.columns) {
                    *reinterpret_cast<ElementVector<Element, 2>*>(out + first) = pair;
                }
            } else {
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const int64_t n = column(ctx, u, h);
                    if (n < params.columns) {
                        out[n] = Output::apply(acc[u][i + 2 * h], state.channel[u][h], token);
                    }
                }
            }
        }
    }

    template <int kTokens, class Sum>
    __device__ __forceinline__ static void store(const Params& params, const EpilogueContext& ctx,
                                                 const State& state, Sum (&acc)[kUnits][kTokens / 2]) {
        constexpr int kGroups = kTokens / 8;
#pragma unroll
        for (int first = 0; first < kGroups; first += kGroupsAhead) {
            if (8 * first >= ctx.info.tokens) break;
            typename Output::Token token[kGroupsAhead][2];
#pragma unroll
            for (int i = 0; i < 2 * kGroupsAhead; ++i) {
                const int t = min(8 * (first + i / 2) + ctx.column() + i % 2, ctx.info.tokens - 1);
                token[i / 2][i % 2] = Output::token(params.output, ctx.info.token_begin + t);
            }
#pragma unroll
            for (int i = 0; i < 2 * kGroupsAhead; ++i) {
                const int j = first + i / 2, p = i % 2;
                if (j >= kGroups) break;
                const int t = 8 * j + ctx.column() + p;
                if (t >= ctx.info.tokens) continue;
                store_token(params, ctx, state, acc, 4 * j + p, ctx.info.token_begin + t, token[i / 2][p]);
            }
        }
    }
};

}  // namespace moe_jit::cuda::gemm
