// A row of x and its parameters, as the operands of the gated activation and as exact results.
#pragma once

#include "moe_jit/core/half.h"
#include "moe_jit/cuda/dequant_swiglu_quant.h"
#include "moe_jit/cuda/pack.cuh"

namespace moe_jit::cuda::swiglu {

struct I32 {
    using Storage = int32_t;
};

template <class X, GluMode kMode>
class Row {
  public:
    using Storage = typename X::Storage;
    static constexpr bool kIntegers = sizeof(Storage) == 4;

    __device__ explicit Row(const DequantSwigluQuantArgs& args)
        : args_(args),
          glu_{kMode, args.glu.limit, args.glu.alpha, args.glu.bias},
          activated_(args.activate_left ? 0 : args.half),
          linear_(args.activate_left ? args.half : 0) {
        use_parameters(0);
    }

    __device__ __forceinline__ void use_parameters(int64_t group) {
        columns_ = group * 2 * args_.half;
        quant_ = group * (args_.quant_is_scalar ? 1 : args_.half);
    }

    // `x` is the row, wherever it is.
    __device__ __forceinline__ void use(const Storage* x, int64_t row) {
        x_ = x;
        if constexpr (kIntegers) row_scale_ = args_.activation_scale ? args_.activation_scale[row] : 1.0f;
    }

    // The operands of results i to i + N - 1.
    template <int N>
    __device__ __forceinline__ void operands(int i, float (&activated)[N], float (&linear)[N]) const {
        if constexpr (kMode != GluMode::kClampedInterleaved) {
            read(activated_ + i, activated);
            read(linear_ + i, linear);
        } else if constexpr (N == 1) {
            read(2 * i, activated);
            read(2 * i + 1, linear);
        } else {
            float low[N], high[N];
            read(2 * i, low);
            read(2 * i + N, high);
#pragma unroll
            for (int j = 0; j < N; ++j) {
                activated[j] = j < N / 2 ? low[2 * j] : high[2 * j - N];
                linear[j] = j < N / 2 ? low[2 * j + 1] : high[2 * j - N + 1];
            }
        }
    }

    // Result i before quantisation.
    __device__ __forceinline__ float exact(int i) const {
        float activated[1], linear[1];
        operands(i, activated, linear);
        return smoothed(glu_.apply(activated[0], linear[0]), i);
    }

    template <class Product>
    __device__ __forceinline__ float apply(float activated, float linear, Product& product) const {
        return glu_.apply(activated, linear, product);
    }

    // Only in dynamic mode, where the scale precedes the quantisation.
    __device__ __forceinline__ const float* smoothing() const {
        return args_.dynamic && args_.quant_scale ? args_.quant_scale + quant_ : nullptr;
    }

    __device__ __forceinline__ int8_t quantise_static(int i) const {
        const float value = exact(i);
        const int at = args_.quant_is_scalar ? 0 : i;
        float scaled = value;
        if (args_.quant_scale) {
            const float scale = args_.quant_scale[quant_ + at];
            scaled =
                args_.quant_is_scalar ? fp32::mul(value, fp32::div(1.0f, scale)) : fp32::div(value, scale);
        }
        return round_to_int8(args_.quant_offset ? fp32::add(scaled, args_.quant_offset[quant_ + at])
                                                : scaled);
    }

  private:
    __device__ __forceinline__ float smoothed(float value, int i) const {
        const float* factors = smoothing();
        return factors ? fp32::mul(value, factors[args_.quant_is_scalar ? 0 : i]) : value;
    }

    template <int N>
    __device__ __forceinline__ void read(int column, float (&out)[N]) const {
        if constexpr (kIntegers) {
            dequantise(load_pack<N>(x_ + column), column, out);
        } else {
            load_floats<X>(x_ + column, out);
        }
    }

    // ((x + integer bias) * weight_scale) * activation_scale + float bias
    template <int N>
    __device__ __forceinline__ void dequantise(Pack<int32_t, N> x, int column, float (&out)[N]) const {
        const int64_t at = columns_ + column, bias_at = args_.bias_is_shared ? column : at;
        if (args_.bias && args_.bias_element == Element::kI32) {
            const auto bias = load_pack<N>(static_cast<const int32_t*>(args_.bias) + bias_at);
#pragma unroll
            for (int i = 0; i < N; ++i) x.value[i] = wrapping_add(x.value[i], bias.value[i]);
        }
        const auto scale = load_pack<N>(args_.weight_scale + at);
#pragma unroll
        for (int i = 0; i < N; ++i) {
            out[i] = fp32::mul(fp32::mul(static_cast<float>(x.value[i]), scale.value[i]), row_scale_);
        }
        if (args_.bias && args_.bias_element != Element::kI32) {
            float bias[N];
            load_parameters(args_.bias, args_.bias_element, bias_at, bias);
#pragma unroll
            for (int i = 0; i < N; ++i) out[i] = fp32::add(out[i], bias[i]);
        }
    }

    const DequantSwigluQuantArgs& args_;
    Glu glu_;
    int activated_, linear_;  // columns of x where the halves begin
    int64_t columns_, quant_;
    const Storage* x_ = nullptr;
    float row_scale_ = 1.0f;
};

}  // namespace moe_jit::cuda::swiglu
