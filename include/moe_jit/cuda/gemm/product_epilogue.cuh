// Epilogue of a grouped product: one value for each (row, column), computed from its sum and stored from
// registers. What the value is, is an Output's business (product_output.cuh); where it goes, is told here.
#pragma once

#include <cstring>
#include <type_traits>

#include "moe_jit/cuda/gemm/epilogue.cuh"

namespace moe_jit::cuda::gemm {

template <int kBytes>
using WordOf = std::conditional_t<kBytes == 2, uint16_t, std::conditional_t<kBytes == 4, uint32_t, uint2>>;

// Neighbouring elements, `low` first, in one store.
template <class Element>
__device__ __forceinline__ void store_pair(Element* out, Element low, Element high) {
    const Element pair[2] = {low, high};
    WordOf<2 * sizeof(Element)> word;
    memcpy(&word, pair, sizeof(word));
    *reinterpret_cast<decltype(word)*>(out) = word;
}

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

    // Columns are valid 16 at a time, which is at least what a warp has of a unit.
    template <class Sum, int kAccums>
    __device__ __forceinline__ static void store_token(const EpilogueContext& ctx, const State& state,
                                                       Sum (&acc)[kUnits][kAccums], int i, Element* out,
                                                       int valid, const typename Output::Token& token) {
        constexpr auto offset = [](int unit, int h) {
            return Format::column(0, unit, 0, h) - Format::column(0, 0, 0, 0);
        };
#pragma unroll
        for (int u = 0; u < kUnits; ++u) {
            if (offset(u, 0) >= valid) break;
            const Element low = Output::apply(acc[u][i], state.channel[u][0], token);
            const Element high = Output::apply(acc[u][i + 2], state.channel[u][1], token);
            if constexpr (Format::kPairedColumns) {
                store_pair(out + offset(u, 0), low, high);
            } else {
                out[offset(u, 0)] = low;
                if (offset(u, 1) < valid) out[offset(u, 1)] = high;
            }
        }
    }

    template <int kTokens, class Sum>
    __device__ __forceinline__ static void store(const Params& params, const EpilogueContext& ctx,
                                                 const State& state, Sum (&acc)[kUnits][kTokens / 2]) {
        const int64_t first_column = column(ctx, 0, 0);
        const auto valid = static_cast<int>(min(params.columns - first_column, int64_t{kUnits * kUnitRows}));
        const int64_t first_row = ctx.info.token_begin + ctx.column();
        const int tokens = ctx.info.tokens - ctx.column();
        Element* out = params.out + first_row * params.columns + first_column;
        constexpr int kGroups = kTokens / 8;
#pragma unroll
        for (int first = 0; first < kGroups; first += kGroupsAhead) {
            typename Output::Token token[kGroupsAhead][2];
#pragma unroll
            for (int i = 0; i < 2 * kGroupsAhead; ++i) {
                const int t = 8 * (first + i / 2) + i % 2;
                if (t < tokens) token[i / 2][i % 2] = Output::token(params.output, first_row + t);
            }
#pragma unroll
            for (int i = 0; i < 2 * kGroupsAhead; ++i) {
                const int j = first + i / 2, p = i % 2;
                if (j >= kGroups || 8 * j + p >= tokens) break;
                store_token(ctx, state, acc, 4 * j + p, out, valid, token[i / 2][p]);
                out += p == 0 ? params.columns : 7 * params.columns;
            }
        }
    }
};

}  // namespace moe_jit::cuda::gemm
