// Epilogue of a grouped product: one value for each (row, column), computed from its sum and stored from
// registers. What the value is, is an Output's business (product_output.cuh); where it goes, is told here.
#pragma once

#include <cstring>

#include "moe_jit/cuda/gemm/epilogue.cuh"

namespace moe_jit::cuda::gemm {

// Stores under a predicate, so that values are computed without branches.
__device__ __forceinline__ void store_if(bool condition, void* out, uint16_t value) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %0, 0;\n@p st.global.b16 [%1], %2;\n}" ::"r"(int{condition}),
        "l"(out), "h"(value)
        : "memory");
}
__device__ __forceinline__ void store_if(bool condition, void* out, uint32_t value) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %0, 0;\n@p st.global.b32 [%1], %2;\n}" ::"r"(int{condition}),
        "l"(out), "r"(value)
        : "memory");
}
__device__ __forceinline__ void store_if(bool condition, void* out, uint2 value) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %0, 0;\n@p st.global.v2.b32 [%1], {%2, %3};\n}" ::"r"(
                     int{condition}),
                 "l"(out), "r"(value.x), "r"(value.y)
                 : "memory");
}

// Neighbouring elements, `low` first, in one word.
template <class Rounding, class Value>
__device__ __forceinline__ auto pack_pair(Value low, Value high) {
    using Element = typename Rounding::Storage;
    if constexpr (sizeof(Element) == 2) {
        return Rounding::from_floats(low, high);
    } else if constexpr (sizeof(Element) == 1) {
        return static_cast<uint16_t>(low | high << 8);
    } else {
        const Element pair[2] = {Rounding::from_float(low), Rounding::from_float(high)};
        uint2 words;
        static_assert(sizeof(pair) == sizeof(words));
        memcpy(&words, pair, sizeof(words));
        return words;
    }
}

// An Output provides
//   Rounding                   from a value to the element that is stored
//   Params, params(args)       kernel parameters, from ProductArgs
//   Read, kChannelRegisters    parameters of a column as memory has them; read(params, index) requests them
//   Channel                    the same as values use them; channel(params, read)
//   Token                      parameters of a row; token(params, row) reads them
//   value(sum, channel, token) the value
template <class Tile, class Output>
struct ProductRows {
    using Format = typename Tile::Format;
    using Element = typename Output::Rounding::Storage;
    static constexpr int kUnits = Tile::kUnits;
    // Tokens whose parameters are requested together, in groups of eight columns of the accumulators.
    static constexpr int kGroupsAhead = 4;
    // Of those, requested before the mainloop.
    static constexpr int kEarlyGroups = Tile::kTokens <= 32 ? 2 : 0;
    static constexpr int kEarlyTokens = std::max(2 * kEarlyGroups, 1);

    struct Params {
        typename Output::Params output;
        Element* out;     // [rows, columns]
        int64_t columns;  // even
    };

    struct State {
        static constexpr int kRegisters =
            2 * kUnits * Output::kChannelRegisters + kEarlyTokens * sizeof(typename Output::Token) / 4;
        typename Output::Read read[kUnits][2];
        typename Output::Token token[kEarlyTokens];
    };
    using Channels = typename Output::Channel[kUnits][2];

    __device__ __forceinline__ static int64_t column(const EpilogueContext& ctx, int unit, int h) {
        return ctx.unit * int64_t{kUnitRows} + Format::column(ctx.warp(), unit, ctx.row(), h);
    }

    __device__ __forceinline__ static State load(const Params& params, const EpilogueContext& ctx) {
        State state;
#pragma unroll
        for (int i = 0; i < 2 * kUnits; ++i) {
            const int64_t n = min(column(ctx, i / 2, i % 2), params.columns - 1);
            state.read[i / 2][i % 2] = Output::read(params.output, ctx.info.expert * params.columns + n);
        }
#pragma unroll
        for (int i = 0; i < 2 * kEarlyGroups; ++i) state.token[i] = token(params, ctx, i);
        return state;
    }

    // Parameters of a thread's token i: two of every eight are.
    __device__ __forceinline__ static typename Output::Token token(const Params& params,
                                                                   const EpilogueContext& ctx, int i) {
        const int t = ctx.column() + 8 * (i / 2) + i % 2;
        typename Output::Token token{};
        if (t < ctx.info.tokens) token = Output::token(params.output, int64_t{ctx.info.token_begin} + t);
        return token;
    }

    // Column of a thread's element h in `unit`, relative to its first one.
    static constexpr int column_offset(int unit, int h) {
        return Format::column(0, unit, 0, h) - Format::column(0, 0, 0, 0);
    }

    template <class Sum, int kAccums>
    __device__ __forceinline__ static void store_token(const Channels& channel, Sum (&acc)[kUnits][kAccums],
                                                       int i, Element* out, int valid,
                                                       const typename Output::Token& token) {
        using Rounding = typename Output::Rounding;
#pragma unroll
        for (int u = 0; u < kUnits; ++u) {
            const auto low = Output::value(acc[u][i], channel[u][0], token);
            const auto high = Output::value(acc[u][i + 2], channel[u][1], token);
            Element* target = out + column_offset(u, 0);
            if constexpr (Format::kPairedColumns) {
                store_if(column_offset(u, 0) < valid, target, pack_pair<Rounding>(low, high));
            } else {
                store_if(column_offset(u, 0) < valid, target, Rounding::from_float(low));
                store_if(column_offset(u, 1) < valid, out + column_offset(u, 1), Rounding::from_float(high));
            }
        }
    }

    template <int kTokens, class Sum>
    __device__ __forceinline__ static void store(const Params& params, const EpilogueContext& ctx,
                                                 const State& state, Sum (&acc)[kUnits][kTokens / 2]) {
        Channels channel;
#pragma unroll
        for (int i = 0; i < 2 * kUnits; ++i) {
            channel[i / 2][i % 2] = Output::channel(params.output, state.read[i / 2][i % 2]);
        }
        const int64_t first_column = column(ctx, 0, 0);
        const auto columns =
            static_cast<int>(min(params.columns - first_column, int64_t{kUnits * kUnitRows}));
        const int64_t first_row = ctx.info.token_begin + ctx.column();
        const int tokens = ctx.info.tokens - ctx.column();
        Element* out[2];
        out[0] = params.out + first_row * params.columns + first_column;
        out[1] = out[0] + params.columns;
        constexpr int kGroups = kTokens / 8;
#pragma unroll
        for (int first = 0; first < kGroups; first += kGroupsAhead) {
            if (8 * first >= ctx.info.tokens) break;
            typename Output::Token tokens_ahead[2 * kGroupsAhead];
#pragma unroll
            for (int i = 0; i < 2 * kGroupsAhead; ++i) {
                const int t = 2 * first + i;
                tokens_ahead[i] = t < 2 * kEarlyGroups ? state.token[t] : token(params, ctx, t);
            }
#pragma unroll
            for (int i = 0; i < 2 * kGroupsAhead; ++i) {
                const int j = first + i / 2, p = i % 2;
                if (j >= kGroups) break;
                const int valid = 8 * j + p < tokens ? columns : 0;
                store_token(channel, acc, 4 * j + p, out[p], valid, tokens_ahead[i]);
                out[p] += 8 * params.columns;
            }
        }
    }
};

}  // namespace moe_jit::cuda::gemm
