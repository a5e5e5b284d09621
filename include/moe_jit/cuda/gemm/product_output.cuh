// What a grouped product stores for a sum. Parameters that are absent are neutral: 1 for a factor, -0 for an
// addend, which keep every value's bits.
#pragma once

#include <type_traits>

#include "moe_jit/core/half.h"
#include "moe_jit/core/pointwise.h"
#include "moe_jit/core/rounding.h"
#include "moe_jit/cuda/grouped_matmul.h"

namespace moe_jit::cuda::gemm {

// A parameter as memory has it, which may still be on its way: nothing waits for it before it is converted.
__device__ __forceinline__ uint32_t channel_bits(const ChannelTable& table, int64_t index, float absent) {
    if (!table.data) return float_bits(absent);
    if (table.element == Element::kBf16 || table.element == Element::kF16) {
        return __ldg(static_cast<const uint16_t*>(table.data) + index);
    }
    return __ldg(static_cast<const uint32_t*>(table.data) + index);
}

__device__ __forceinline__ float channel_value(const ChannelTable& table, uint32_t bits) {
    if (!table.data) return bits_float(bits);
    const float half = half_to_float(static_cast<uint16_t>(bits));
    return table.element == Element::kBf16  ? bits_float(bits << 16)
           : table.element == Element::kF16 ? half
                                            : bits_float(bits);
}

__device__ __forceinline__ int32_t channel_integer(const ChannelTable& table, int64_t index) {
    return table.data && table.element == Element::kI32
               ? __ldg(static_cast<const int32_t*>(table.data) + index)
               : 0;
}

struct ProductOutputParams {
    ChannelTable bias;
    ChannelTable scale;
    ChannelTable offset;
    const float* token_scale;  // [rows]
    const int32_t* row_sums;   // [rows]
};

inline ProductOutputParams product_output_params(const ProductArgs& args) {
    return {args.bias, args.scale, args.offset, args.token_scale, args.row_sums};
}

struct NoToken {};

// A result that is not rounded any more.
template <class Value>
struct Exact {
    using Storage = Value;
    __device__ __forceinline__ static Storage from_float(Value value) { return value; }
};

// The 32-bit sum itself.
struct IntegerOutput {
    using Rounding = Exact<int32_t>;
    using Params = ProductOutputParams;
    static Params params(const ProductArgs& args) { return product_output_params(args); }
    using Read = int32_t;
    using Channel = int32_t;
    using Token = NoToken;
    static constexpr int kChannelRegisters = 1;

    __device__ __forceinline__ static Read read(const Params& params, int64_t index) {
        return channel_integer(params.bias, index);
    }
    __device__ __forceinline__ static Channel channel(const Params&, Read bias) { return bias; }
    __device__ __forceinline__ static Token token(const Params&, int64_t) { return {}; }
    __device__ __forceinline__ static int32_t value(uint32_t sum, const Channel& bias, const Token&) {
        return wrapping_add(static_cast<int32_t>(sum), bias);
    }
};

// int8 (or uint8) by the rule of Ascend's matrix unit; scales are packed parameters.
struct RequantisedOutput {
    using Rounding = Exact<uint8_t>;
    using Params = ProductOutputParams;
    static Params params(const ProductArgs& args) { return product_output_params(args); }
    struct Channel {
        uint64_t scale;
        int32_t bias;
    };
    using Read = Channel;
    using Token = NoToken;
    static constexpr int kChannelRegisters = 3;

    __device__ __forceinline__ static Read read(const Params& params, int64_t index) {
        return {static_cast<uint64_t>(__ldg(static_cast<const long long*>(params.scale.data) + index)),
                channel_integer(params.bias, index)};
    }
    __device__ __forceinline__ static Channel channel(const Params&, const Read& read) { return read; }
    __device__ __forceinline__ static Token token(const Params&, int64_t) { return {}; }
    __device__ __forceinline__ static uint8_t value(uint32_t sum, const Channel& channel, const Token&) {
        return RequantParameter::unpack(channel.scale)
            .apply(wrapping_add(static_cast<int32_t>(sum), channel.bias));
    }
};

// activation(((sum + integer bias) * scale) * token scale + bias), rounded once. kBiased: there is a bias.
template <class Format, PointwiseType kActivation, bool kBiased>
struct ScaledOutput {
    using Rounding = Format;
    using Params = ProductOutputParams;
    static Params params(const ProductArgs& args) { return product_output_params(args); }
    struct NoBias {};
    struct Bias {
        int32_t integer;
        float value;
    };
    struct Read {
        uint32_t scale, bias;
    };
    struct Channel {
        float scale;
        std::conditional_t<kBiased, Bias, NoBias> bias;
    };
    using Token = float;
    static constexpr int kChannelRegisters = kBiased ? 2 : 1;

    __device__ __forceinline__ static Read read(const Params& params, int64_t index) {
        return {channel_bits(params.scale, index, 1.0f),
                kBiased ? channel_bits(params.bias, index, -0.0f) : 0u};
    }
    __device__ __forceinline__ static Channel channel(const Params& params, const Read& read) {
        Channel channel;
        channel.scale = channel_value(params.scale, read.scale);
        if constexpr (kBiased) {
            const bool integer = params.bias.element == moe_jit::Element::kI32;
            channel.bias = {integer ? static_cast<int32_t>(read.bias) : 0,
                            integer ? -0.0f : channel_value(params.bias, read.bias)};
        }
        return channel;
    }
    __device__ __forceinline__ static Token token(const Params& params, int64_t row) {
        return params.token_scale ? __ldg(params.token_scale + row) : 1.0f;
    }
    __device__ __forceinline__ static float value(uint32_t sum, const Channel& channel, const Token& token) {
        auto total = static_cast<int32_t>(sum);
        if constexpr (kBiased) total = wrapping_add(total, channel.bias.integer);
        float scaled = fp32::mul(fp32::mul(static_cast<float>(total), channel.scale), token);
        if constexpr (kBiased) scaled = fp32::add(scaled, channel.bias.value);
        return pointwise(kActivation, scaled);
    }
};

// sum + bias, rounded once.
template <class Format>
struct FloatOutput {
    using Rounding = Format;
    using Params = ProductOutputParams;
    static Params params(const ProductArgs& args) { return product_output_params(args); }
    using Read = uint32_t;
    using Channel = float;
    using Token = NoToken;
    static constexpr int kChannelRegisters = 1;

    __device__ __forceinline__ static Read read(const Params& params, int64_t index) {
        return channel_bits(params.bias, index, -0.0f);
    }
    __device__ __forceinline__ static Channel channel(const Params& params, Read bias) {
        return channel_value(params.bias, bias);
    }
    __device__ __forceinline__ static Token token(const Params&, int64_t) { return {}; }
    __device__ __forceinline__ static float value(float sum, const Channel& bias, const Token&) {
        return fp32::add(sum, bias);
    }
};

// sum * the scale of the column's weights + bias, rounded once.
template <class Format>
struct AntiquantOutput {
    using Rounding = Format;
    using Params = ProductOutputParams;
    static Params params(const ProductArgs& args) {
        Params params = product_output_params(args);
        params.scale = args.antiquant_scale;
        return params;
    }
    struct Read {
        uint32_t scale, bias;
    };
    struct Channel {
        float scale, bias;
    };
    using Token = NoToken;
    static constexpr int kChannelRegisters = 2;

    __device__ __forceinline__ static Read read(const Params& params, int64_t index) {
        return {channel_bits(params.scale, index, 1.0f), channel_bits(params.bias, index, -0.0f)};
    }
    __device__ __forceinline__ static Channel channel(const Params& params, const Read& read) {
        return {channel_value(params.scale, read.scale), channel_value(params.bias, read.bias)};
    }
    __device__ __forceinline__ static Token token(const Params&, int64_t) { return {}; }
    __device__ __forceinline__ static float value(float sum, const Channel& channel, const Token&) {
        return fp32::add(fp32::mul(sum, channel.scale), channel.bias);
    }
};

// (sum + bias + row sum of x * offset) * token scale, of int4 weights. A sum that is still an integer is
// first multiplied with the scale, fp32 bits used as fp19.
template <class Format>
struct Int4Output {
    using Rounding = Format;
    using Params = ProductOutputParams;
    static Params params(const ProductArgs& args) { return product_output_params(args); }
    struct Read {
        uint32_t scale, bias, offset;
    };
    struct Channel {
        float scale, bias, offset;
    };
    struct Token {
        float scale, row_sum;
    };
    static constexpr int kChannelRegisters = 3;

    __device__ __forceinline__ static Read read(const Params& params, int64_t index) {
        return {__ldg(static_cast<const uint32_t*>(params.scale.data) + 2 * index),
                channel_bits(params.bias, index, -0.0f), channel_bits(params.offset, index, 0.0f)};
    }
    __device__ __forceinline__ static Channel channel(const Params& params, const Read& read) {
        return {fp19(bits_float(read.scale)), channel_value(params.bias, read.bias),
                channel_value(params.offset, read.offset)};
    }
    __device__ __forceinline__ static Token token(const Params& params, int64_t row) {
        return {params.token_scale ? __ldg(params.token_scale + row) : 1.0f,
                params.row_sums ? static_cast<float>(__ldg(params.row_sums + row)) : 0.0f};
    }
    __device__ __forceinline__ static float value(float sum, const Channel& channel, const Token& token) {
        const float biased = fp32::add(sum, channel.bias);
        return fp32::mul(fp32::add(biased, fp32::mul(token.row_sum, channel.offset)), token.scale);
    }
    __device__ __forceinline__ static float value(uint32_t sum, const Channel& channel, const Token& token) {
        return value(fp32::mul(static_cast<float>(static_cast<int32_t>(sum)), channel.scale), channel, token);
    }
};

}  // namespace moe_jit::cuda::gemm
