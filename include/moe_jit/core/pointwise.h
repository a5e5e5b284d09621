// Activations of a single value, by the numbers of npu_grouped_matmul's `act_type`, in fp32 with the same
// bits on every platform.
#pragma once

#include "moe_jit/core/exp.h"
#include "moe_jit/core/operator_modes.h"

namespace moe_jit {

namespace detail {

// x * sigmoid(z)
MOE_JIT_HD MOE_JIT_INLINE float times_sigmoid(float x, float z) {
    const float decay = portable_exp(-fp32::abs(z));  // at most 1
    const float numerator = z < 0.0f ? fp32::mul(x, decay) : x;
    return fp32::div(numerator, fp32::add(1.0f, decay));
}

}  // namespace detail

struct Relu {
    MOE_JIT_HD static MOE_JIT_INLINE float apply(float x) { return x < 0.0f ? 0.0f : x; }
};

struct GeluTanh {
    MOE_JIT_HD static MOE_JIT_INLINE float apply(float x) {
        const float cubic = fp32::mul(fp32::mul(fp32::mul(x, x), x), 0.044715f);
        return detail::times_sigmoid(x, fp32::mul(fp32::add(x, cubic), 1.5957691216057308f));
    }
};

struct FastGelu {
    MOE_JIT_HD static MOE_JIT_INLINE float apply(float x) {
        return detail::times_sigmoid(x, fp32::mul(x, 1.702f));
    }
};

struct Silu {
    MOE_JIT_HD static MOE_JIT_INLINE float apply(float x) { return detail::times_sigmoid(x, x); }
};

MOE_JIT_HD MOE_JIT_INLINE float pointwise(PointwiseType type, float x) {
    switch (type) {
        case PointwiseType::kRelu:
            return Relu::apply(x);
        case PointwiseType::kGeluTanh:
            return GeluTanh::apply(x);
        case PointwiseType::kFastGelu:
            return FastGelu::apply(x);
        case PointwiseType::kSilu:
            return Silu::apply(x);
        default:
            return x;
    }
}

}  // namespace moe_jit
