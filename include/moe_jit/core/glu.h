// Gated activations of npu_dequant_swiglu_quant, in its order of fp32 operations.
#pragma once

#include "moe_jit/core/exp.h"
#include "moe_jit/core/operator_modes.h"

namespace moe_jit {

// a / (1 + exp(-factor * a))
struct SigmoidProduct {
    MOE_JIT_HD MOE_JIT_INLINE float operator()(float a, float factor) const {
        return fp32::div(a, fp32::add(1.0f, portable_exp(fp32::mul(-factor, a))));
    }
};

struct Glu {
    GluMode mode;
    float limit;
    float alpha;
    float bias;

    // `activated` goes through the sigmoid, `linear` multiplies it.
    MOE_JIT_HD MOE_JIT_INLINE float apply(float activated, float linear) const {
        return apply(activated, linear, SigmoidProduct{});
    }

    // With `product` in the place of SigmoidProduct.
    template <class Product>
    MOE_JIT_HD MOE_JIT_INLINE float apply(float activated, float linear, Product&& product) const {
        if (mode == GluMode::kSwiglu) return fp32::mul(product(activated, 1.0f), linear);
        const float clamped = linear != linear ? linear : fp32::clamp(linear, -limit, limit);
        if (mode == GluMode::kClampedSilu) {
            return fp32::mul(at_most(product(activated, 1.0f), limit), clamped);
        }
        return fp32::mul(product(at_most(activated, limit), alpha), fp32::add(clamped, bias));
    }

  private:
    MOE_JIT_HD static MOE_JIT_INLINE float at_most(float value, float bound) {
        return value > bound ? bound : value;
    }
};

}  // namespace moe_jit
