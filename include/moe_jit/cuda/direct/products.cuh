// What the grouped product on CUDA cores multiplies: how elements are read, and what becomes of their sums.
#pragma once

#include "moe_jit/core/antiquant.h"
#include "moe_jit/core/epilogue.h"
#include "moe_jit/core/half.h"
#include "moe_jit/core/int4.h"
#include "moe_jit/core/rounding.h"
#include "moe_jit/cuda/direct/args.h"

namespace moe_jit::cuda::direct {

__device__ __forceinline__ const char* expert_data(const ExpertTable& table, int expert) {
    return table.stacked ? table.base[0] + expert * table.stride : table.base[expert];
}

// A parameter as fp32; int64 holds the bits of an fp19 in its low word.
__device__ __forceinline__ float parameter(const char* data, Element element, int64_t i) {
    switch (element) {
        case Element::kF16:
            return half_to_float(reinterpret_cast<const uint16_t*>(data)[i]);
        case Element::kBf16:
            return bf16_to_float(reinterpret_cast<const uint16_t*>(data)[i]);
        case Element::kF32:
            return reinterpret_cast<const float*>(data)[i];
        default:
            return fp19(bits_float(static_cast<uint32_t>(reinterpret_cast<const uint64_t*>(data)[i])));
    }
}

// The tensors of one expert; null where not given.
struct Expert {
    const char *weight, *bias, *scale, *offset, *antiquant_scale, *antiquant_offset;

    __device__ Expert(const DirectArgs& args, int expert)
        : weight(expert_data(args.weight, expert)),
          bias(given(args.bias, expert)),
          scale(given(args.scale, expert)),
          offset(given(args.offset, expert)),
          antiquant_scale(given(args.antiquant_scale, expert)),
          antiquant_offset(given(args.antiquant_offset, expert)) {}

  private:
    __device__ static const char* given(const ExpertTable& table, int expert) {
        return table.base[0] ? expert_data(table, expert) : nullptr;
    }
};

// One element of the result.
struct Place {
    int row;  // of x, which is also that of token_scale
    int column;
    int64_t out;  // offset in y
};

__device__ __forceinline__ void store(const DirectArgs& args, const Place& at, float value) {
    switch (args.y_element) {
        case Element::kF16:
            static_cast<uint16_t*>(args.y)[at.out] = float_to_half(value);
            break;
        case Element::kBf16:
            static_cast<uint16_t*>(args.y)[at.out] = float_to_bf16(value);
            break;
        default:
            static_cast<float*>(args.y)[at.out] = value;
    }
}

__device__ __forceinline__ void store_zero(const DirectArgs& args, int64_t at) {
    switch (args.y_element) {
        case Element::kI8:
            static_cast<uint8_t*>(args.y)[at] = 0;
            break;
        case Element::kF16:
        case Element::kBf16:
            static_cast<uint16_t*>(args.y)[at] = 0;
            break;
        default:
            static_cast<uint32_t*>(args.y)[at] = 0;
    }
}

struct FloatSums {
    using Value = float;
    static constexpr bool kIntegers = false;

    __device__ __forceinline__ static void finish(const DirectArgs& args, const Expert& expert,
                                                  const Place& at, float sum, int) {
        if (expert.bias) sum = fp32::add(sum, parameter(expert.bias, args.bias_element, at.column));
        store(args, at, sum);
    }
};

template <class Format>
struct FloatProduct : FloatSums {
    __device__ __forceinline__ static float activation(const DirectArgs& args, int64_t i) {
        return Format::to_float(static_cast<const typename Format::Storage*>(args.x)[i]);
    }
    __device__ __forceinline__ static float weight(const DirectArgs&, const Expert& expert, int64_t i, int,
                                                   int) {
        return Format::to_float(reinterpret_cast<const typename Format::Storage*>(expert.weight)[i]);
    }
};

struct Int8Weight {
    __device__ __forceinline__ static int at(const Expert& expert, int64_t i) {
        return reinterpret_cast<const int8_t*>(expert.weight)[i];
    }
};

struct Int4Weight {
    __device__ __forceinline__ static int at(const Expert& expert, int64_t i) {
        return int4_at(reinterpret_cast<const uint32_t*>(expert.weight), i);
    }
};

template <class Format, class Weight>
struct AntiquantProduct : FloatProduct<Format> {
    __device__ __forceinline__ static float weight(const DirectArgs& args, const Expert& expert, int64_t i,
                                                   int k, int column) {
        using Storage = typename Format::Storage;
        const int64_t group = static_cast<int64_t>(k / (args.k / args.segments)) * args.n + column;
        const auto* scale = reinterpret_cast<const Storage*>(expert.antiquant_scale);
        const auto* offset = reinterpret_cast<const Storage*>(expert.antiquant_offset);
        const auto value = static_cast<float>(Weight::at(expert, i));
        const float shift = offset ? Format::to_float(offset[group]) : 0.0f;
        return Format::to_float(Antiquant<Format>::apply(value, shift, Format::to_float(scale[group])));
    }
};

template <class Weight>
struct IntegerProduct {
    using Value = int;
    static constexpr bool kIntegers = true;

    __device__ __forceinline__ static int activation(const DirectArgs& args, int64_t i) {
        return static_cast<const int8_t*>(args.x)[i];
    }
    __device__ __forceinline__ static int weight(const DirectArgs&, const Expert& expert, int64_t i, int,
                                                 int) {
        return Weight::at(expert, i);
    }
};

struct Int8Product : IntegerProduct<Int8Weight> {
    static constexpr bool kSegments = false;

    __device__ __forceinline__ static void finish(const DirectArgs& args, const Expert& expert,
                                                  const Place& at, int sum, int) {
        const bool integer_bias = expert.bias && args.bias_element == Element::kI32;
        if (integer_bias) sum = wrapping_add(sum, reinterpret_cast<const int32_t*>(expert.bias)[at.column]);
        if (args.y_element == Element::kI32) {
            static_cast<int32_t*>(args.y)[at.out] = sum;
        } else if (args.y_element == Element::kI8) {
            const uint64_t bits = reinterpret_cast<const uint64_t*>(expert.scale)[at.column];
            static_cast<uint8_t*>(args.y)[at.out] = RequantParameter::unpack(bits).apply(sum);
        } else {
            float value = static_cast<float>(sum);
            value = fp32::mul(value, parameter(expert.scale, args.scale_element, at.column));
            value = epilogue::TokenScale{args.token_scale}(value, at.row, at.column);
            if (expert.bias && !integer_bias) {
                value = fp32::add(value, parameter(expert.bias, args.bias_element, at.column));
            }
            store(args, at, pointwise(args.act_type, value));
        }
    }
};

// Exact within a segment of k; segments are weighed with their scales and summed in fp32.
struct SegmentedProduct : IntegerProduct<Int4Weight> {
    static constexpr bool kSegments = true;

    __device__ __forceinline__ static float weigh(const DirectArgs& args, const Expert& expert, int sum,
                                                  int segment, int column) {
        const float scale =
            parameter(expert.scale, args.scale_element, static_cast<int64_t>(segment) * args.n + column);
        return fp32::mul(static_cast<float>(sum), scale);
    }
    __device__ __forceinline__ static void finish(const DirectArgs& args, const Expert& expert,
                                                  const Place& at, float sum, int row_sum) {
        const auto* bias = reinterpret_cast<const float*>(expert.bias);
        const auto* offset = reinterpret_cast<const float*>(expert.offset);
        const epilogue::ChannelBias<F32> add_bias{bias};
        sum = add_bias(sum, at.row, at.column);
        if (offset) sum = fp32::add(sum, fp32::mul(static_cast<float>(row_sum), offset[at.column]));
        store(args, at, epilogue::TokenScale{args.token_scale}(sum, at.row, at.column));
    }
};

// A bias is meant to hold eight times the weights' sum, and x loses eight; without one nothing is subtracted.
struct Int8Int4Product : SegmentedProduct {
    __device__ __forceinline__ static int shift(const DirectArgs& args) { return args.bias.base[0] ? 8 : 0; }
    __device__ __forceinline__ static int activation(const DirectArgs& args, int64_t i) {
        return IntegerProduct<Int4Weight>::activation(args, i) - shift(args);
    }
};

struct Int4Product : SegmentedProduct {
    __device__ __forceinline__ static int shift(const DirectArgs&) { return 0; }
    __device__ __forceinline__ static int activation(const DirectArgs& args, int64_t i) {
        return int4_at(static_cast<const uint32_t*>(args.x), i);
    }
};

// Names without commas, for the compiler's command line.
using F16Product = FloatProduct<F16>;
using Bf16Product = FloatProduct<Bf16>;
using F32Product = FloatProduct<F32>;
using F16Int8Product = AntiquantProduct<F16, Int8Weight>;
using Bf16Int8Product = AntiquantProduct<Bf16, Int8Weight>;
using F16Int4Product = AntiquantProduct<F16, Int4Weight>;
using Bf16Int4Product = AntiquantProduct<Bf16, Int4Weight>;

}  // namespace moe_jit::cuda::direct
