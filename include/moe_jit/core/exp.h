// exp in fp32 with the same bits on every platform, within one unit in the last place.
#pragma once

#include <cstdint>

#include "moe_jit/core/arithmetic.h"
#include "moe_jit/core/numeric.h"

namespace moe_jit {

namespace detail {

// 2^n for n in [-126, 127].
MOE_JIT_HD MOE_JIT_INLINE float power_of_two(int32_t n) {
    return bits_float(static_cast<uint32_t>(n + 127) << 23);
}

}  // namespace detail

// exp(x) = 2^n * exp(r) with |r| <= ln(2)/2, and a minimax polynomial for exp(r).
MOE_JIT_HD MOE_JIT_INLINE float portable_exp(float x) {
    const float bounded = x != x ? x : fp32::clamp(x, -104.0f, 89.0f);  // rounds to 0 below, infinity above
    const float n = fp32::rint(fp32::mul(bounded, 1.44269504f));
    const float high = fp32::fma(n, -0.693359375f, bounded);  // exact: the constant has nine bits
    const float r = fp32::fma(n, 2.12194440e-4f, high);
    float p = 0x1.9f085cp-13f;
    p = fp32::fma(p, r, 0x1.6d8d54p-10f);
    p = fp32::fma(p, r, 0x1.111272p-7f);
    p = fp32::fma(p, r, 0x1.55548ep-5f);
    p = fp32::fma(p, r, 0x1.555554p-3f);
    p = fp32::fma(p, r, 0.5f);
    const float tail = fp32::fma(fp32::mul(r, r), p, r);
    if (x != x) return x;
    const int32_t exponent = static_cast<int32_t>(n);
    const int32_t half = exponent / 2;
    const float scaled = fp32::mul(fp32::add(1.0f, tail), detail::power_of_two(half));
    return fp32::mul(scaled, detail::power_of_two(exponent - half));
}

}  // namespace moe_jit
