// Signed 4-bit numbers, two's complement, eight to a 32-bit word: element i is in bits 4i to 4i+3.
#pragma once

#include <cstdint>

#include "moe_jit/core/platform.h"

namespace moe_jit {

// Element i of a word.
MOE_JIT_HD MOE_JIT_INLINE int32_t int4_in(uint32_t word, int i) {
    return static_cast<int32_t>(word << (28 - 4 * i)) >> 28;
}

// Element i of packed memory.
MOE_JIT_HD MOE_JIT_INLINE int32_t int4_at(const uint32_t* words, int64_t i) {
    return int4_in(words[i >> 3], static_cast<int>(i & 7));
}

// The bits of `value` as element i of a word.
MOE_JIT_HD MOE_JIT_INLINE uint32_t int4_bits(int32_t value, int i) {
    return (static_cast<uint32_t>(value) & 15u) << (4 * i);
}

}  // namespace moe_jit
