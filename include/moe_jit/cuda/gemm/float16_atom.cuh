// Warpgroup MMAs of fp16 and bf16 operands, and their arithmetic on packed pairs.
#pragma once

#include <cute/arch/mma_sm90_gmma.hpp>
#include <cute/arch/mma_sm90_gmma_ext.hpp>

#include "moe_jit/core/half.h"
#include "moe_jit/core/numeric.h"

namespace moe_jit::cuda::gemm {

using cute::SM90::GMMA::Major;

// Shared: weights [64, 16] in shared memory, of major mode kMajor, and tokens of kTokenMajor; Registers: in
// registers.
template <class Element, int kTokens>
struct Float16Atom;

#define MOE_JIT_FLOAT16_ATOM(N)                                                                 \
    template <>                                                                                 \
    struct Float16Atom<F16, N> {                                                                \
        template <Major kMajor, Major kTokenMajor>                                              \
        using Shared = cute::SM90::GMMA::MMA_64x##N##x16_F32F16F16_SS<kMajor, kTokenMajor>;     \
        using Registers = cute::SM90::GMMA::MMA_64x##N##x16_F32F16F16_RS<Major::K, Major::K>;   \
    };                                                                                          \
    template <>                                                                                 \
    struct Float16Atom<Bf16, N> {                                                               \
        template <Major kMajor, Major kTokenMajor>                                              \
        using Shared = cute::SM90::GMMA::MMA_64x##N##x16_F32BF16BF16_SS<kMajor, kTokenMajor>;   \
        using Registers = cute::SM90::GMMA::MMA_64x##N##x16_F32BF16BF16_RS<Major::K, Major::K>; \
    }
MOE_JIT_FLOAT16_ATOM(8);
MOE_JIT_FLOAT16_ATOM(16);
MOE_JIT_FLOAT16_ATOM(32);
MOE_JIT_FLOAT16_ATOM(64);
MOE_JIT_FLOAT16_ATOM(80);
MOE_JIT_FLOAT16_ATOM(96);
MOE_JIT_FLOAT16_ATOM(112);
MOE_JIT_FLOAT16_ATOM(128);
MOE_JIT_FLOAT16_ATOM(144);
MOE_JIT_FLOAT16_ATOM(160);
#undef MOE_JIT_FLOAT16_ATOM

// Two elements in a register. Every operation rounds once: ".rn" forbids contraction.
template <class Element>
struct Pair;

#define MOE_JIT_PAIR(Element, type)                                                          \
    template <>                                                                              \
    struct Pair<Element> {                                                                   \
        __device__ __forceinline__ static uint32_t add(uint32_t a, uint32_t b) {             \
            uint32_t d;                                                                      \
            asm("add.rn." type " %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));                   \
            return d;                                                                        \
        }                                                                                    \
        __device__ __forceinline__ static uint32_t sub(uint32_t a, uint32_t b) {             \
            uint32_t d;                                                                      \
            asm("sub.rn." type " %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));                   \
            return d;                                                                        \
        }                                                                                    \
        __device__ __forceinline__ static uint32_t mul(uint32_t a, uint32_t b) {             \
            uint32_t d;                                                                      \
            asm("mul.rn." type " %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));                   \
            return d;                                                                        \
        }                                                                                    \
        __device__ __forceinline__ static uint32_t fma(uint32_t a, uint32_t b, uint32_t c) { \
            uint32_t d;                                                                      \
            asm("fma.rn." type " %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));       \
            return d;                                                                        \
        }                                                                                    \
    }
MOE_JIT_PAIR(F16, "f16x2");
MOE_JIT_PAIR(Bf16, "bf16x2");
#undef MOE_JIT_PAIR

// The same element twice.
__device__ __forceinline__ uint32_t twice(uint32_t element) { return __byte_perm(element, 0, 0x1010); }

}  // namespace moe_jit::cuda::gemm
