// Total order of floats as unsigned integers: -NaN < -inf < ... < -0.0 < +0.0 < ... < +inf < +NaN.
#pragma once

#include <cstdint>

#include "moe_jit/core/numeric.h"
#include "moe_jit/core/platform.h"

namespace moe_jit::routing {

// Never the image of a selectable value: marks padding and values already taken.
constexpr uint32_t kEmptyKey = 0;
constexpr uint32_t kPositiveNanKey = 0xffffffffu;

MOE_JIT_HD MOE_JIT_INLINE uint32_t order_key(float value) {
    const uint32_t bits = float_bits(value);
    const uint32_t image = bits ^ ((bits & 0x80000000u) ? 0xffffffffu : 0x80000000u);
    return image == kEmptyKey ? 1u : image;  // merges two of the NaNs with sign bit
}

// For computed values: the sign that arithmetic gives to a NaN differs between processors, so every NaN is
// positive.
MOE_JIT_HD MOE_JIT_INLINE uint32_t order_key_canonical_nan(float value) {
    return value != value ? kPositiveNanKey : order_key(value);
}

MOE_JIT_HD MOE_JIT_INLINE float order_key_value(uint32_t image) {
    return bits_float(image ^ ((image & 0x80000000u) ? 0x80000000u : 0xffffffffu));
}

}  // namespace moe_jit::routing
