// Activations between the two GEMMs.
//
// With u and g the fp32 accumulators of the linear and the gate rows, SC and SG the expert's
// output1_scales_scalar and output1_scales_gate_scalar, apply() gives the value that is then rounded to e4m3:
//   gated       SC * u * act(SG * g)
//   non-linear  SC * act(SG * u)
//   identity    SC * u
#pragma once

#include <cmath>

#include "moe_jit/core/platform.h"

namespace moe_jit {

enum class ActivationType : int { kGelu = 0, kSwiglu = 3, kGeglu = 4, kRelu2 = 6, kIdentity = 7 };

namespace detail {

MOE_JIT_HD MOE_JIT_INLINE float silu(float z) {
#if MOE_JIT_DEVICE_PASS
    // Two units in the last place each; without the range checks of __expf and __fdividef.
    float power, reciprocal;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(-1.44269504f * z));
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(1.0f + power));
    return z * reciprocal;
#else
    return z / (1.0f + std::exp(-z));
#endif
}

#if MOE_JIT_DEVICE_PASS
// Half of erfc(x) for x >= 0, within 2e-5 relative up to 8 (formula of Numerical Recipes, 6.2). erfcf() is
// more exact than e4m3 can tell, and needs more registers than a full tile leaves.
MOE_JIT_HD MOE_JIT_INLINE float half_erfc(float x) {
    const float t = __fdividef(1.0f, fmaf(0.5f, x, 1.0f));
    float p = 0.17087277f;
    p = fmaf(p, t, -0.82215223f);
    p = fmaf(p, t, 1.48851587f);
    p = fmaf(p, t, -1.13520398f);
    p = fmaf(p, t, 0.27886807f);
    p = fmaf(p, t, -0.18628806f);
    p = fmaf(p, t, 0.09678418f);
    p = fmaf(p, t, 0.37409196f);
    p = fmaf(p, t, 1.00002368f);
    p = fmaf(p, t, -1.26551223f);
    return 0.5f * t * __expf(fmaf(-x, x, p));
}
#endif

// z * Phi(z) through erfc, which keeps its relative accuracy in the negative tail.
MOE_JIT_HD MOE_JIT_INLINE float gelu(float z) {
#if MOE_JIT_DEVICE_PASS
    const float tail = half_erfc(0.70710678118654752f * fabsf(z));
    return z * (z < 0.0f ? tail : 1.0f - tail);
#else
    return z * (0.5f * erfcf(-0.70710678118654752f * z));
#endif
}

}  // namespace detail

struct Swiglu {
    static constexpr ActivationType kType = ActivationType::kSwiglu;
    static constexpr bool kGated = true;
    MOE_JIT_HD static MOE_JIT_INLINE float apply(float linear, float gate, float sc, float sg) {
        return sc * linear * detail::silu(sg * gate);
    }
};

struct Geglu {
    static constexpr ActivationType kType = ActivationType::kGeglu;
    static constexpr bool kGated = true;
    MOE_JIT_HD static MOE_JIT_INLINE float apply(float linear, float gate, float sc, float sg) {
        return sc * linear * detail::gelu(sg * gate);
    }
};

struct Relu2 {
    static constexpr ActivationType kType = ActivationType::kRelu2;
    static constexpr bool kGated = false;
    MOE_JIT_HD static MOE_JIT_INLINE float apply(float linear, float /*gate*/, float sc, float sg) {
        const float z = sg * linear;
        const float positive = z < 0.0f ? 0.0f : z;  // NaN stays NaN
        return sc * (positive * positive);
    }
};

struct Gelu {
    static constexpr ActivationType kType = ActivationType::kGelu;
    static constexpr bool kGated = false;
    MOE_JIT_HD static MOE_JIT_INLINE float apply(float linear, float /*gate*/, float sc, float sg) {
        return sc * detail::gelu(sg * linear);
    }
};

struct Identity {
    static constexpr ActivationType kType = ActivationType::kIdentity;
    static constexpr bool kGated = false;
    MOE_JIT_HD static MOE_JIT_INLINE float apply(float linear, float /*gate*/, float sc, float /*sg*/) {
        return sc * linear;
    }
};

}  // namespace moe_jit
