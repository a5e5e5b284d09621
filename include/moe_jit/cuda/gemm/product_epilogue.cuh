// Epilogue of a grouped product: one value for each (row, column), computed from its sum and stored from
// registers. What the value is, is an Output's business (product_output.cuh); where it goes, is told here.
#pragma once

#include <cstring>

#include "moe_jit/cuda/gemm/epilogue.cuh"

namespace moe_jit::cuda::gemm {

// Neighbouring elements, `low` first, in one store.
template <class Rounding, class Value>
__device__ __forceinline__ void store_pair(typename Rounding::Storage* out, Value low, Value high) {
    using Element = typename Rounding::Storage;
    if constexpr (sizeof(Element) == 2) {
        *reinterpret_cast<uint32_t*>(out) = Rounding::from_floats(low, high);
    } else if constexpr (sizeof(Element) == 1) {
        *reinterpret_cast<uint16_t*>(out) = static_cast<uint16_t>(low | high << 8);
    } else {
        static_assert(sizeof(Element) == 4);
        const Element pair[2] = {Rounding::from_float(low), Rounding::from_float(high)};
        uint2 words;
        memcpy(&words, pair, sizeof(words));
        *reinterpret_cast<uint2*>(out) = words;
    }
}

// An Output provides
//   Rounding                   from a value to the element that is stored
//   Params, params(args)       kernel parameters, from ProductArgs
//   Channel, kChannelRegisters parameters of a column; channel(params, expert, column) reads them
//   Token                      parameters of a row; token(params, row) reads them
//   value(sum, channel, token) the value
template <class Tile, class Output>
struct ProductRows {
    using Format = typename Tile::Format;
    using Element = typename Output::Rounding::Storage;
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
            const auto low = Output::value(acc[u][i], state.channel[u][0], token);
            const auto high = Output::value(acc[u][i + 2], state.channel[u][1], token);
            if constexpr (Format::kPairedColumns) {
                store_pair<typename Output::Rounding>(out + offset(u, 0), low, high);
            } else {
                out[offset(u, 0)] = Output::Rounding::from_float(low);
                if (offset(u, 1) < valid) out[offset(u, 1)] = Output::Rounding::from_float(high);
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
