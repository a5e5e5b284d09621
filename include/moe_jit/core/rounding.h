// Rounding rules of quantised operators. All take fp32; NaN becomes zero where the result is an integer.
#pragma once

#include <cstdint>

#include "moe_jit/core/arithmetic.h"
#include "moe_jit/core/numeric.h"

namespace moe_jit {

// Clamps a whole number to [low, high].
MOE_JIT_HD MOE_JIT_INLINE int32_t saturate(float whole, int32_t low, int32_t high) {
    if (whole != whole) return 0;
    return static_cast<int32_t>(fp32::clamp(whole, static_cast<float>(low), static_cast<float>(high)));
}

// Nearest integer, ties to even, in [-128, 127].
MOE_JIT_HD MOE_JIT_INLINE int8_t round_to_int8(float value) {
    return static_cast<int8_t>(saturate(fp32::rint(value), -128, 127));
}

// Nearest integer, ties to even, in [-8, 7].
MOE_JIT_HD MOE_JIT_INLINE int32_t round_to_int4(float value) { return saturate(fp32::rint(value), -8, 7); }

// fp32 with the low 13 bits of the mantissa dropped: the scale format of Ascend's matrix unit.
MOE_JIT_HD MOE_JIT_INLINE float fp19(float value) { return bits_float(float_bits(value) & 0xffffe000u); }

// Wraps around, as accumulators do.
MOE_JIT_HD MOE_JIT_INLINE int32_t wrapping_add(int32_t a, int32_t b) {
    return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}

// A packed requantisation parameter, see npu_trans_quant_param: bits 13-31 an fp19 multiplier, bits 37-45 a
// signed offset, bit 46 set for an int8 result and clear for uint8.
struct RequantParameter {
    float scale;
    int32_t offset;
    bool is_signed;

    MOE_JIT_HD static MOE_JIT_INLINE RequantParameter unpack(uint64_t bits) {
        const int32_t field = static_cast<int32_t>(bits >> 37) & 0x1ff;
        return {fp19(bits_float(static_cast<uint32_t>(bits))), field - ((field & 0x100) << 1),
                (bits >> 46 & 1u) != 0};
    }

    MOE_JIT_HD MOE_JIT_INLINE uint8_t apply(int32_t accumulator) const {
        return quantise(fp32::mul(static_cast<float>(accumulator), scale));
    }

    // Nine bits before the offset, eight after it.
    MOE_JIT_HD MOE_JIT_INLINE uint8_t quantise(float product) const {
        const int32_t value = saturate(fp32::rint(product), -256, 255) + offset;
        const int32_t low = is_signed ? -128 : 0, high = is_signed ? 127 : 255;
        return static_cast<uint8_t>(value < low ? low : value > high ? high : value);
    }
};

}  // namespace moe_jit
