// A row of x and its parameters, as the operands of the gated activation and as exact results.
#pragma once

#include "moe_jit/core/half.h"
#include "moe_jit/cuda/dequant_swiglu_quant.h"
#include "moe_jit/cuda/pack.cuh"

namespace moe_jit::cuda::swiglu {

// Integers, with and without a bias, which costs registers.
template <bool kWithBias>
struct Integers {
    using Storage = int32_t;
    static constexpr bool kHasBias = kWithBias;
};

// Weight scales of N results' operands; kept while the group stays the same. Only integers have them.
template <class X, int N>
struct Scales {};

template <bool kHasBias, int N>
struct Scales<Integers<kHasBias>, N> {
    Pack<float, N> low, high;
};

template <class X, GluMode kMode>
class Row {
  public:
    using Storage = typename X::Storage;
    static constexpr bool kIntegers = sizeof(Storage) == 4;
    static constexpr bool kAlternating = kMode == GluMode::kClampedInterleaved;

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

    // `x` is the row, wherever it is, and `scale` its activation scale.
    __device__ __forceinline__ void use(const Storage* x, float scale) {
        low_ = x + (kAlternating ? 0 : activated_);
        high_ = x + (kAlternating ? 0 : linear_);
        row_scale_ = scale;
    }

    __device__ __forceinline__ float scale_of(int64_t row) const {
        return kIntegers && args_.activation_scale ? args_.activation_scale[row] : 1.0f;
    }

    template <int N>
    __device__ __forceinline__ Scales<X, N> scales(int i) const {
        Scales<X, N> scales;
        if constexpr (kIntegers) {
            scales.low = load_pack<N>(args_.weight_scale + columns_ + low_column(i));
            scales.high = load_pack<N>(args_.weight_scale + columns_ + high_column<N>(i));
        }
        return scales;
    }

    // The operands of results i to i + N - 1.
    template <int N>
    __device__ __forceinline__ void operands(int i, const Scales<X, N>& scales, float (&activated)[N],
                                             float (&linear)[N]) const {
        float low[N], high[N];
        if constexpr (kIntegers) {
            dequantise(low_ + low_offset(i), low_column(i), scales.low, low);
            dequantise(high_ + high_offset<N>(i), high_column<N>(i), scales.high, high);
        } else {
            load_floats<X>(low_ + low_offset(i), low);
            load_floats<X>(high_ + high_offset<N>(i), high);
        }
#pragma unroll
        for (int j = 0; j < N; ++j) {
            activated[j] = low[j];
            linear[j] = high[j];
            if constexpr (kAlternating && N > 1) {
                activated[j] = j < N / 2 ? low[2 * j] : high[2 * j - N];
                linear[j] = j < N / 2 ? low[2 * j + 1] : high[2 * j - N + 1];
            }
        }
    }

    // The same as words of two 16-bit operands.
    template <int N>
    __device__ __forceinline__ Pack<uint32_t, N / 2> activated_words(int i) const {
        return load_pack<N / 2>(reinterpret_cast<const uint32_t*>(low_ + i));
    }
    template <int N>
    __device__ __forceinline__ Pack<uint32_t, N / 2> linear_words(int i) const {
        return load_pack<N / 2>(reinterpret_cast<const uint32_t*>(high_ + i));
    }

    // Result i before quantisation.
    __device__ __forceinline__ float exact(int i) const {
        float activated[1], linear[1];
        operands(i, scales<1>(i), activated, linear);
        const float value = glu_.apply(activated[0], linear[0]);
        const float* factors = smoothing();
        return factors ? fp32::mul(value, factors[args_.quant_is_scalar ? 0 : i]) : value;
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
        const int64_t at = quant_ + (args_.quant_is_scalar ? 0 : i);
        float scaled = value;
        if (args_.quant_scale) {
            const float scale = args_.quant_scale[at];
            scaled =
                args_.quant_is_scalar ? fp32::mul(value, fp32::div(1.0f, scale)) : fp32::div(value, scale);
        }
        return round_to_int8(args_.quant_offset ? fp32::add(scaled, args_.quant_offset[at]) : scaled);
    }

  private:
    // Columns of x that hold N results' operands: in both halves, or alternating.
    __device__ __forceinline__ int low_column(int i) const {
        return low_offset(i) + (kAlternating ? 0 : activated_);
    }
    template <int N>
    __device__ __forceinline__ int high_column(int i) const {
        return high_offset<N>(i) + (kAlternating ? 0 : linear_);
    }

    // The same from low_ and high_.
    __device__ static __forceinline__ int low_offset(int i) { return kAlternating ? 2 * i : i; }
    template <int N>
    __device__ static __forceinline__ int high_offset(int i) {
        return kAlternating ? 2 * i + N : i;
    }

    // ((x + integer bias) * weight_scale) * activation_scale + float bias
    template <int N>
    __device__ __forceinline__ void dequantise(const Storage* source, int column, const Pack<float, N>& scale,
                                               float (&out)[N]) const {
        const int64_t bias_at = column + (args_.bias_is_shared ? 0 : columns_);
        auto x = load_pack<N>(source);
        if (X::kHasBias && args_.bias_element == Element::kI32) {
            const auto bias = load_pack<N>(static_cast<const int32_t*>(args_.bias) + bias_at);
#pragma unroll
            for (int i = 0; i < N; ++i) x.value[i] = wrapping_add(x.value[i], bias.value[i]);
        }
#pragma unroll
        for (int i = 0; i < N; ++i) {
            out[i] = fp32::mul(fp32::mul(static_cast<float>(x.value[i]), scale.value[i]), row_scale_);
        }
        if (X::kHasBias && args_.bias_element != Element::kI32) {
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
    const Storage *low_ = nullptr, *high_ = nullptr;  // where the row's halves begin, or the row
    float row_scale_ = 1.0f;
};

}  // namespace moe_jit::cuda::swiglu
