// An integer weight as a 16-bit floating-point number: (weight + offset) * scale.
#pragma once

#include "moe_jit/core/arithmetic.h"
#include "moe_jit/core/half.h"
#include "moe_jit/core/numeric.h"

namespace moe_jit {

// bf16: fp32 operations, one rounding at the end.
template <class Format>
struct Antiquant {
    MOE_JIT_HD static MOE_JIT_INLINE typename Format::Storage apply(float weight, float offset, float scale) {
        return Format::from_float(fp32::mul(fp32::add(weight, offset), scale));
    }
};

// fp16: both operations round to fp16. (Rounding their fp32 result again gives the same.)
template <>
struct Antiquant<F16> {
    MOE_JIT_HD static MOE_JIT_INLINE uint16_t apply(float weight, float offset, float scale) {
        const float sum = half_to_float(float_to_half(fp32::add(weight, offset)));
        return float_to_half(fp32::mul(sum, scale));
    }
};

}  // namespace moe_jit
