// Number formats as raw bits: bfloat16 in uint16_t, e4m3 (OCP "e4m3fn": no infinities, one NaN magnitude) in
// uint8_t. Every narrowing conversion rounds to nearest even. Conversion to e4m3 saturates at +-448 and keeps
// NaN (0x7f).
#pragma once

#include <cstdint>
#include <cstring>

#include "moe_jit/core/platform.h"

namespace moe_jit {

MOE_JIT_HD MOE_JIT_INLINE uint32_t float_bits(float value) {
#if MOE_JIT_DEVICE_PASS
    return __float_as_uint(value);
#else
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return bits;
#endif
}

MOE_JIT_HD MOE_JIT_INLINE float bits_float(uint32_t bits) {
#if MOE_JIT_DEVICE_PASS
    return __uint_as_float(bits);
#else
    float value;
    std::memcpy(&value, &bits, sizeof(value));
    return value;
#endif
}

MOE_JIT_HD MOE_JIT_INLINE float bf16_to_float(uint16_t bits) { return bits_float(uint32_t{bits} << 16); }

// NaN becomes 0x7fff, as the hardware conversion gives.
MOE_JIT_HD MOE_JIT_INLINE uint16_t float_to_bf16(float value) {
#if MOE_JIT_DEVICE_PASS
    uint16_t bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
#else
    const uint32_t bits = float_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
#endif
}

// `low` goes to the low half of the result, i.e. to the lower address.
MOE_JIT_HD MOE_JIT_INLINE uint32_t floats_to_bf16x2(float low, float high) {
#if MOE_JIT_DEVICE_PASS
    uint32_t bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
#else
    return uint32_t{float_to_bf16(low)} | (uint32_t{float_to_bf16(high)} << 16);
#endif
}

// `low` goes to the low byte of the result, i.e. to the lower address.
MOE_JIT_HD MOE_JIT_INLINE uint16_t floats_to_e4m3x2(float low, float high);

MOE_JIT_HD MOE_JIT_INLINE uint8_t float_to_e4m3(float value) {
#if MOE_JIT_DEVICE_PASS
    return static_cast<uint8_t>(floats_to_e4m3x2(value, 0.0f));
#else
    const uint32_t bits = float_bits(value);
    const uint32_t magnitude = bits & 0x7fffffffu;
    const uint32_t sign = (bits >> 24) & 0x80u;
    if (magnitude > 0x7f800000u) return 0x7f;
    uint32_t code;
    if (magnitude < 0x3c800000u) {  // below 2^-6: e4m3 subnormals, multiples of 2^-9, the ulp of 2^14
        const float magic = 16384.0f;
        code = float_bits(bits_float(magnitude) + magic) - float_bits(magic);
    } else {
        code = ((magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20) - (120u << 3);
    }
    return static_cast<uint8_t>(sign | (code > 0x7eu ? 0x7eu : code));
#endif
}

MOE_JIT_HD MOE_JIT_INLINE uint16_t floats_to_e4m3x2(float low, float high) {
#if MOE_JIT_DEVICE_PASS
    uint16_t bits;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(bits) : "f"(high), "f"(low));
    return bits;
#else
    return static_cast<uint16_t>(float_to_e4m3(low) | (float_to_e4m3(high) << 8));
#endif
}

// Without branches so that loops over rows vectorise; no subnormal float is ever an operand, so that
// flush-to-zero modes cannot change the result.
MOE_JIT_HD MOE_JIT_INLINE float e4m3_to_float(uint8_t code) {
    const uint32_t magnitude = code & 0x7fu;
    const uint32_t if_subnormal = 0u - ((magnitude - 8u) >> 31);
    const uint32_t if_nan = 0u - ((magnitude + 1u) >> 7);
    const uint32_t rebiased = (magnitude << 20) + (120u << 23) + (if_subnormal & (1u << 23));
    const float value = bits_float(rebiased) - bits_float(if_subnormal & 0x3c800000u);  // 2^-6
    return bits_float(float_bits(value) | (if_nan & 0x7fffffffu) | ((uint32_t{code} & 0x80u) << 24));
}

// Format traits.
struct E4m3 {
    using Storage = uint8_t;
    MOE_JIT_HD static MOE_JIT_INLINE float to_float(Storage code) { return e4m3_to_float(code); }
    MOE_JIT_HD static MOE_JIT_INLINE Storage from_float(float value) { return float_to_e4m3(value); }
};

struct Bf16 {
    using Storage = uint16_t;
    MOE_JIT_HD static MOE_JIT_INLINE float to_float(Storage code) { return bf16_to_float(code); }
    MOE_JIT_HD static MOE_JIT_INLINE Storage from_float(float value) { return float_to_bf16(value); }
    MOE_JIT_HD static MOE_JIT_INLINE uint32_t from_floats(float low, float high) {
        return floats_to_bf16x2(low, high);
    }
};

}  // namespace moe_jit
