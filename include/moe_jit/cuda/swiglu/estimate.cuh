// Cheap values with an error bound, so that exact ones are computed only where they decide the result.
#pragma once

#include <cstdint>

#include "moe_jit/core/arithmetic.h"
#include "moe_jit/core/half.h"
#include "moe_jit/cuda/pack.cuh"

namespace moe_jit::cuda::swiglu {

constexpr float kLog2E = 1.44269504f;
// Relative deviation of an estimate, after quantisation, from the exact value. Roundings of 2^-24 on both
// ways add up to 21 and ex2.approx (2^-22) and portable_exp (2^-23) are among them; the exponent's roundings
// count with its size.
constexpr float kDeviation = 0x1p-19f;
constexpr float kDeviationPerExponent = 0x1p-22f;
// Within these no intermediate that matters becomes subnormal or infinite.
constexpr float kLargestExponent = 100.0f;
constexpr float kLargestSquares = 0x1p80f;  // sum of squares of a thread's operands
constexpr float kSmallestMaximum = 0x1p-30f, kLargestMaximum = 0x1p30f;
// Two deviations at the largest exponent.
constexpr float kNearMaximum = 1.0f - 0x1p-14f;

__device__ __forceinline__ float approximate_exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float approximate_reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// In the place of SigmoidProduct. Keeps the largest exponent of 2 that it meets, if it is asked to.
template <bool kKeepsExponent>
struct EstimatedProduct {
    float exponent = 0.0f;

    __device__ __forceinline__ float operator()(float a, float factor) {
        const float x = a * (-kLog2E * factor);
        if (kKeepsExponent) exponent = fmaxf(exponent, x);
        return a * approximate_reciprocal(1.0f + approximate_exp2(x));
    }
};

// Of both halves of two words; NaN if one is.
__device__ __forceinline__ uint32_t smaller(Bf16, uint32_t a, uint32_t b) {
    asm("min.NaN.bf16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
    return a;
}
__device__ __forceinline__ uint32_t smaller(F16, uint32_t a, uint32_t b) {
    asm("min.NaN.f16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
    return a;
}

// The same for magnitudes; signs are meaningless.
__device__ __forceinline__ uint32_t larger_magnitude(Bf16, uint32_t a, uint32_t b) {
    asm("max.NaN.xorsign.abs.bf16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
    return a;
}
__device__ __forceinline__ uint32_t larger_magnitude(F16, uint32_t a, uint32_t b) {
    asm("max.NaN.xorsign.abs.f16x2 %0, %0, %1;" : "+r"(a) : "r"(b));
    return a;
}

// What a thread must know of its operands, from words of two: cheaper than from each.
template <class Format>
class PairedOperands {
  public:
    __device__ __forceinline__ void add(uint32_t activated, uint32_t linear) {
        smallest_ = smaller(Format{}, smallest_, activated);
        largest_ = larger_magnitude(Format{}, largest_, linear);
    }

    // The largest exponent of 2 in the sigmoid.
    __device__ __forceinline__ float exponent() const {
        return -kLog2E * fminf(low(smallest_), high_half(Format{}, smallest_));
    }

    // At least the square of the largest magnitude.
    __device__ __forceinline__ float squares() const {
        const float a = low(largest_), b = high_half(Format{}, largest_);
        return fmaf(a, a, b * b);
    }

  private:
    __device__ __forceinline__ static float low(uint32_t word) {
        return Format::to_float(static_cast<uint16_t>(word));
    }

    uint32_t smallest_ = 0, largest_ = 0;
};

// The deviation of a thread's estimates; infinite if they are worth nothing.
__device__ __forceinline__ float deviation(float exponent, float squares) {
    const bool known = exponent <= kLargestExponent && squares <= kLargestSquares;
    return known ? fmaf(exponent, kDeviationPerExponent, kDeviation) : __int_as_float(0x7f800000);
}

// The integer next to the estimate of a quantised value, value * factor.
struct RoundedEstimate {
    float shifted;   // the integer is in the low byte
    float distance;  // from the estimate
    float integer;

    __device__ __forceinline__ RoundedEstimate(float value, float factor) {
        constexpr float kIntegers = 0x1.8p23f;  // its sum with a small number has no fraction
        shifted = fmaf(value, factor, kIntegers);
        integer = shifted - kIntegers;
        distance = fmaf(value, factor, -integer);
    }

    __device__ __forceinline__ uint32_t bits() const { return __float_as_uint(shifted); }

    // The exact value may round to another integer. Also true of NaN.
    __device__ __forceinline__ bool uncertain(float deviation) const {
        return !(fmaf(fabsf(integer), deviation, fabsf(distance)) < 0.5f - deviation);
    }
};

}  // namespace moe_jit::cuda::swiglu
