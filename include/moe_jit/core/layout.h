// Where a logical weight row is stored.
#pragma once

#include <cstdint>

#include "moe_jit/core/platform.h"

namespace moe_jit {

enum class WeightLayout : int {
    kShuffled =
        0,        // FlashInfer: linear/gate rows interleaved when gated, then each block of 32 rows shuffled
    kUpGate = 1,  // plain rows, [up; gate] when gated
    kGateUp = 2,  // plain rows, [gate; up] when gated
};

// Row r of a block of 32 is stored at position 8 * (r % 4) + r / 4.
MOE_JIT_HD MOE_JIT_INLINE int64_t shuffled_row(int64_t row) {
    const int64_t in_block = row & 31;
    return (row - in_block) + 8 * (in_block & 3) + (in_block >> 2);
}

// gemm2, and gemm1 of an activation that is not gated.
MOE_JIT_HD MOE_JIT_INLINE int64_t stored_row(WeightLayout layout, int64_t row) {
    return layout == WeightLayout::kShuffled ? shuffled_row(row) : row;
}

// Gated gemm1: the linear (up) row of intermediate channel i.
MOE_JIT_HD MOE_JIT_INLINE int64_t stored_linear_row(WeightLayout layout, int64_t i,
                                                    int64_t intermediate_size) {
    if (layout == WeightLayout::kShuffled) return shuffled_row(2 * i);
    return layout == WeightLayout::kUpGate ? i : intermediate_size + i;
}

// Gated gemm1: the gate row of intermediate channel i.
MOE_JIT_HD MOE_JIT_INLINE int64_t stored_gate_row(WeightLayout layout, int64_t i, int64_t intermediate_size) {
    if (layout == WeightLayout::kShuffled) return shuffled_row(2 * i + 1);
    return layout == WeightLayout::kUpGate ? intermediate_size + i : i;
}

}  // namespace moe_jit
