// int8 and int4 weights in 16-bit pairs, and their dequantisation with an offset and a scale.
#pragma once

#include "moe_jit/core/arithmetic.h"
#include "moe_jit/cuda/gemm/float16_atom.cuh"

namespace moe_jit::cuda::gemm {

// (r & kMask) ^ kFlip in one instruction, which the compiler makes two because it has one immediate operand.
template <uint32_t kMask, uint32_t kFlip>
__device__ __forceinline__ uint32_t and_xor(uint32_t r) {
    uint32_t d;
    asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(d) : "r"(r), "n"(kMask), "n"(kFlip));
    return d;
}

// Integers in the mantissa of a large float become 16-bit floats by one exact subtraction.
template <class Element, int kBits>
struct Unpack;

// A transposing matrix load gives a thread two k of 16 bits of neighbouring columns each: columns() are the
// pairs of k. A plain one gives it four int8 of a column: depths() are the first two and the last two; or
// eight int4: columns() are those of a distance of four.
template <>
struct Unpack<F16, 4> {
    __device__ __forceinline__ static void columns(uint32_t r, uint32_t (&out)[4]) {
        const uint32_t upper = r >> 8;
        out[0] = low(r);
        out[1] = high(r);
        out[2] = low(upper);
        out[3] = high(upper);
    }

  private:
    // 1024 + (w + 8)
    __device__ __forceinline__ static uint32_t low(uint32_t r) {
        return Pair<F16>::sub(and_xor<0x000f000fu, 0x64086408u>(r), 0x64086408u);
    }
    // 1024 + 16 * (w + 8), times 1/16, minus 72
    __device__ __forceinline__ static uint32_t high(uint32_t r) {
        return Pair<F16>::fma(and_xor<0x00f000f0u, 0x64806480u>(r), 0x2c002c00u, 0xd480d480u);
    }
};

template <>
struct Unpack<Bf16, 4> {
    __device__ __forceinline__ static void columns(uint32_t r, uint32_t (&out)[4]) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            // 128 + (w + 8)
            out[i] = Pair<Bf16>::sub(and_xor<0x000f000fu, 0x43084308u>(r >> 4 * i), 0x43084308u);
        }
    }

    // w / 64 in fewer instructions: up to eight bits from the lowest on are an integer, times 2^-133, of a
    // subnormal or of the smallest normal numbers.
    __device__ __forceinline__ static void small_columns(uint32_t r, uint32_t (&out)[4]) {
        const uint32_t upper = r >> 8;
        out[0] = low(r);
        out[1] = high(r);
        out[2] = low(upper);
        out[3] = high(upper);
    }

  private:
    // (w + 8) * 2^-133, times 2^127, minus 8 / 64
    __device__ __forceinline__ static uint32_t low(uint32_t r) {
        return Pair<Bf16>::fma(and_xor<0x000f000fu, 0x00080008u>(r), 0x7f007f00u, 0xbe00be00u);
    }
    // 16 * (w + 8) * 2^-133, times 2^123, minus 8 / 64
    __device__ __forceinline__ static uint32_t high(uint32_t r) {
        return Pair<Bf16>::fma(and_xor<0x00f000f0u, 0x00800080u>(r), 0x7d007d00u, 0xbe00be00u);
    }
};

template <>
struct Unpack<F16, 8> {
    __device__ __forceinline__ static void columns(uint32_t r, uint32_t (&out)[2]) {
        pairs(r, 0x4240, 0x4341, out);
    }
    __device__ __forceinline__ static void depths(uint32_t r, uint32_t (&out)[2]) {
        pairs(r, 0x4140, 0x4342, out);
    }

  private:
    // 1024 + (w + 128), minus 1152
    __device__ __forceinline__ static void pairs(uint32_t r, int first, int second, uint32_t (&out)[2]) {
        const uint32_t biased = r ^ 0x80808080u;
        out[0] = Pair<F16>::sub(__byte_perm(biased, 0x64u, first), 0x64806480u);
        out[1] = Pair<F16>::sub(__byte_perm(biased, 0x64u, second), 0x64806480u);
    }
};

template <>
struct Unpack<Bf16, 8> {
    __device__ __forceinline__ static void columns(uint32_t r, uint32_t (&out)[2]) {
        pairs(r, 0x4240, 0x4341, out);
    }
    __device__ __forceinline__ static void depths(uint32_t r, uint32_t (&out)[2]) {
        pairs(r, 0x4140, 0x4342, out);
    }

  private:
    // Seven bits have room in the mantissa: (128 + the lower bits) - (128, or 256 where the sign bit is set).
    __device__ __forceinline__ static void pairs(uint32_t r, int first, int second, uint32_t (&out)[2]) {
        out[0] = split(__byte_perm(r, 0x43u, first));
        out[1] = split(__byte_perm(r, 0x43u, second));
    }
    __device__ __forceinline__ static uint32_t split(uint32_t pair) {
        return Pair<Bf16>::sub(pair & 0xff7fff7fu, pair & 0xff80ff80u);
    }
};

// (w + offset) * scale of two elements of one column; operands hold the parameter twice.
template <class Element>
__device__ __forceinline__ uint32_t dequantise(uint32_t pair, uint32_t scale, uint32_t offset);

template <>
__device__ __forceinline__ uint32_t dequantise<F16>(uint32_t pair, uint32_t scale, uint32_t offset) {
    return Pair<F16>::mul(Pair<F16>::add(pair, offset), scale);
}

template <>
__device__ __forceinline__ uint32_t dequantise<Bf16>(uint32_t pair, uint32_t scale, uint32_t offset) {
    const float s = bits_float(scale << 16), o = bits_float(offset << 16);
    const float low = fp32::mul(fp32::add(bits_float(pair << 16), o), s);
    const float high = fp32::mul(fp32::add(bits_float(pair & 0xffff0000u), o), s);
    return floats_to_bf16x2(low, high);
}

}  // namespace moe_jit::cuda::gemm
