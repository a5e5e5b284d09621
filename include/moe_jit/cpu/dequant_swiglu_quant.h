// Dequantisation, gated activation and quantisation of rows on the CPU.
#pragma once

#include <cstdint>
#include <vector>

#include "moe_jit/core/glu.h"
#include "moe_jit/core/row_quantizer.h"

namespace moe_jit::cpu {

// The parameters that apply to one row; null where absent.
struct RowParameters {
    const float* weight_scale;  // [2H]
    const int32_t* int_bias;    // [2H]
    const float* float_bias;    // [2H]
    const float* quant_scale;   // [H] or [1]
    const float* quant_offset;  // as quant_scale
    bool quant_is_scalar;
};

// ((x + int_bias) * weight_scale) * activation_scale + float_bias
inline void dequantise_row(const int32_t* x, int64_t width, const RowParameters& p,
                           const float* activation_scale, float* out) {
    for (int64_t i = 0; i < width; ++i) {
        out[i] =
            static_cast<float>(p.int_bias ? wrapping_add(x[i], p.int_bias[i]) : x[i]) * p.weight_scale[i];
    }
    for (int64_t i = 0; activation_scale && i < width; ++i) out[i] *= *activation_scale;
    for (int64_t i = 0; p.float_bias && i < width; ++i) out[i] += p.float_bias[i];
}

inline void activate_row(const Glu& glu, bool activate_left, const float* in, int64_t half, float* out) {
    if (glu.mode == GluMode::kClampedInterleaved) {
        for (int64_t i = 0; i < half; ++i) out[i] = glu.apply(in[2 * i], in[2 * i + 1]);
        return;
    }
    const float* activated = activate_left ? in : in + half;
    const float* linear = activate_left ? in + half : in;
    for (int64_t i = 0; i < half; ++i) out[i] = glu.apply(activated[i], linear[i]);
}

// v / scale + offset; a scalar scale multiplies by its reciprocal instead.
inline void quantise_row_static(const float* v, int64_t count, const RowParameters& p, int8_t* y) {
    const float reciprocal = p.quant_is_scalar && p.quant_scale ? 1.0f / *p.quant_scale : 1.0f;
    for (int64_t i = 0; i < count; ++i) {
        const float scaled =
            p.quant_is_scalar || !p.quant_scale ? v[i] * reciprocal : v[i] / p.quant_scale[i];
        const float offset = p.quant_offset ? p.quant_offset[p.quant_is_scalar ? 0 : i] : 0.0f;
        y[i] = round_to_int8(scaled + offset);
    }
}

// Returns the scale. `v` is multiplied by `smooth`, [count] or [1], if that is given.
template <class Store>
float quantise_row(QuantRecipe recipe, float largest, float* v, int64_t count, const float* smooth,
                   bool smooth_is_scalar, Store store) {
    float amax = 0.0f;
    for (int64_t i = 0; i < count; ++i) {
        if (smooth) v[i] *= smooth[smooth_is_scalar ? 0 : i];
        const float magnitude = fp32::abs(v[i]);
        amax = magnitude > amax ? magnitude : amax;
    }
    const RowQuantizer quantizer = RowQuantizer::of(recipe, amax, largest);
    for (int64_t i = 0; i < count; ++i) store(i, quantizer.apply(v[i]));
    return quantizer.scale;
}

}  // namespace moe_jit::cpu
