// Epilogue of a grouped product: one value for each (row, column), computed from its sum and stored from
// registers. What the value is, is an Output's business (product_output.cuh); where it goes, is told here.
#pragma once

#include <cstring>
#include <type_traits>

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
// Only what ordered_sum reads next is stored as fp32: it had better stay in the L2 cache.
__device__ __forceinline__ void store_if(bool condition, void* out, float2 value) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.b32 p, %0, 0;\n"
        "@p st.global.L2::cache_hint.v2.f32 [%1], {%2, %3}, %4;\n}" ::"r"(int{condition}),
        "l"(out), "f"(value.x), "f"(value.y), "l"(static_cast<uint64_t>(cute::TMA::CacheHintSm90::EVICT_LAST))
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
    } else if constexpr (std::is_same_v<Element, float>) {
        return make_float2(low, high);
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
    // Two neighbouring elements.
    using LongWord = std::conditional_t<std::is_same_v<Element, float>, float2, uint2>;
    using Word = std::conditional_t<sizeof(Element) == 4, LongWord,
                                    std::conditional_t<sizeof(Element) == 2, uint32_t, uint16_t>>;
    static constexpr int kUnits = Tile::kUnits;
    // Tokens whose parameters are requested together, in groups of eight columns of the accumulators.
    static constexpr int kGroupsAhead = 4;
    // Of those, requested before the mainloop.
    static constexpr int kEarlyGroups = Tile::kTokens <= 32 ? 2 : 0;
    static constexpr int kEarlyTokens = std::max(2 * kEarlyGroups, 1);

    struct Params {
        typename Output::Params output;
        Element* out;  // [rows, columns]
        const int64_t*
            shift;        // [experts] elements to each group's rows from their place in `out`; nullptr: 0
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

    // First of the two neighbouring columns that a thread stores in `unit`, relative to its rows' first one.
    __device__ __forceinline__ static int stored_column(const EpilogueContext& ctx) {
        return Format::kPairedColumns ? 0 : ctx.row() % 2 * 7;
    }
    static constexpr int unit_offset(int unit) {
        return Format::column(0, unit, 0, 0) - Format::column(0, 0, 0, 0);
    }

    // From rows r and r + 8 of two tokens each to two neighbouring rows of each token: r and r + 1 of an even
    // r, r + 7 and r + 8 of an odd one.
    __device__ __forceinline__ static void exchange_rows(uint32_t low, uint32_t high, uint32_t (&word)[2]) {
        const bool odd = threadIdx.x / 4 % 2;
        const uint32_t received = __shfl_xor_sync(0xffffffffu, odd ? low : high, 4);
        const uint32_t first = odd ? received : low, second = odd ? high : received;
        word[0] = __byte_perm(first, second, 0x5410);
        word[1] = __byte_perm(first, second, 0x7632);
    }

    // What a thread stores of accumulators i and i + 1, two tokens.
    template <class Sum, int kAccums>
    __device__ __forceinline__ static void pack_tokens(const Channels& channel,
                                                       const Sum (&acc)[kUnits][kAccums], int unit, int i,
                                                       const typename Output::Token* token, Word (&word)[2]) {
        using Rounding = typename Output::Rounding;
        const auto value = [&](int h, int t) {
            return Output::value(acc[unit][i + 2 * h + t], channel[unit][h], token[t]);
        };
        if constexpr (Format::kPairedColumns) {
#pragma unroll
            for (int t = 0; t < 2; ++t) word[t] = pack_pair<Rounding>(value(0, t), value(1, t));
        } else {
            exchange_rows(Rounding::from_floats(value(0, 0), value(0, 1)),
                          Rounding::from_floats(value(1, 0), value(1, 1)), word);
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
        const int64_t first_column = column(ctx, 0, 0) + stored_column(ctx);
        const auto columns =
            static_cast<int>(min(params.columns - first_column, int64_t{kUnits * kUnitRows}));
        const int64_t first_row = ctx.info.token_begin + ctx.column();
        const int tokens = ctx.info.tokens - ctx.column();
        Element* out[2];
        const int64_t shift = params.shift ? __ldg(params.shift + ctx.info.expert) : 0;
        out[0] = params.out + first_row * params.columns + first_column + shift;
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
            for (int i = 0; i < kGroupsAhead; ++i) {
                const int j = first + i;
                if (j >= kGroups) break;
#pragma unroll
                for (int u = 0; u < kUnits; ++u) {
                    Word word[2];
                    pack_tokens(channel, acc, u, 4 * j, tokens_ahead + 2 * i, word);
#pragma unroll
                    for (int t = 0; t < 2; ++t) {
                        const int valid = 8 * j + t < tokens ? columns : 0;
                        store_if(unit_offset(u) < valid, out[t] + unit_offset(u), word[t]);
                    }
                }
                out[0] += 8 * params.columns;
                out[1] += 8 * params.columns;
            }
        }
    }
};

}  // namespace moe_jit::cuda::gemm
