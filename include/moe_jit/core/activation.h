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
    return __fdividef(z, 1.0f + __expf(-z));
#else
    return z / (1.0f + std::exp(-z));
#endif
}

// z * Phi(z) through erfc, which keeps its relative accuracy in the negative tail.
MOE_JIT_HD MOE_JIT_INLINE float gelu(float z) { return z * (0.5f * erfcf(-0.70710678118654752f * z)); }

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
