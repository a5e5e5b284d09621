// IEEE half precision as raw bits in uint16_t.
#pragma once

#include <cstdint>

#include "moe_jit/core/numeric.h"

namespace moe_jit {

MOE_JIT_HD MOE_JIT_INLINE float half_to_float(uint16_t bits) {
#if MOE_JIT_DEVICE_PASS
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
#else
    const uint32_t sign = (bits & 0x8000u) << 16;
    const uint32_t magnitude = bits & 0x7fffu;
    if (magnitude >= 0x7c00u) return bits_float(sign | 0x7f800000u | (magnitude << 13));
    if (magnitude < 0x400u) {  // subnormal: a multiple of 2^-24
        return bits_float(sign | float_bits(static_cast<float>(magnitude) * 0x1p-24f));
    }
    return bits_float(sign | ((magnitude << 13) + (112u << 23)));
#endif
}

// To nearest even; values beyond 65504 become infinite, NaN becomes 0x7fff.
MOE_JIT_HD MOE_JIT_INLINE uint16_t float_to_half(float value) {
#if MOE_JIT_DEVICE_PASS
    uint16_t bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
#else
    const uint32_t bits = float_bits(value);
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint32_t sign = (bits >> 16) & 0x8000u;
    if (magnitude > 0x7f800000u) return 0x7fff;
    uint32_t code;
    if (magnitude < 0x38800000u) {  // below 2^-14: multiples of 2^-24, the unit in the last place of 0.5
        code = float_bits(bits_float(magnitude) + 0.5f) - 0x3f000000u;
    } else {
        code = ((magnitude + 0xfffu + ((magnitude >> 13) & 1u)) >> 13) - (112u << 10);
    }
    return static_cast<uint16_t>(sign | (code > 0x7c00u ? 0x7c00u : code));
#endif
}

// `low` goes to the low half of the result, i.e. to the lower address.
MOE_JIT_HD MOE_JIT_INLINE uint32_t floats_to_half2(float low, float high) {
#if MOE_JIT_DEVICE_PASS
    uint32_t bits;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
#else
    return uint32_t{float_to_half(low)} | (uint32_t{float_to_half(high)} << 16);
#endif
}

struct F16 {
    using Storage = uint16_t;
    MOE_JIT_HD static MOE_JIT_INLINE float to_float(Storage code) { return half_to_float(code); }
    MOE_JIT_HD static MOE_JIT_INLINE Storage from_float(float value) { return float_to_half(value); }
    MOE_JIT_HD static MOE_JIT_INLINE uint32_t from_floats(float low, float high) {
        return floats_to_half2(low, high);
    }
};

struct F32 {
    using Storage = float;
    MOE_JIT_HD static MOE_JIT_INLINE float to_float(Storage value) { return value; }
    MOE_JIT_HD static MOE_JIT_INLINE Storage from_float(float value) { return value; }
};

}  // namespace moe_jit
