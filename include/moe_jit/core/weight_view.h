// Where element (k, n) of an expert's weight is stored, for every layout of the operators with torch_npu's
// signatures: row-major, transposed, and blocked (FRACTAL_NZ).
#pragma once

#include <cstdint>

#include "moe_jit/core/platform.h"

namespace moe_jit {

// Offsets and strides count elements; eight int4 elements make a 32-bit word. Plain layouts are one block.
struct WeightView {
    const void* data;
    int64_t stride_k, stride_n;              // within a block
    int64_t block_k, block_n;                // size of a block
    int64_t stride_block_k, stride_block_n;  // between blocks

    // Element (k, n) is at k_offset(k) + n_offset(n).
    MOE_JIT_HD MOE_JIT_INLINE int64_t k_offset(int64_t k) const {
        return (k / block_k) * stride_block_k + (k % block_k) * stride_k;
    }
    MOE_JIT_HD MOE_JIT_INLINE int64_t n_offset(int64_t n) const {
        return (n / block_n) * stride_block_n + (n % block_n) * stride_n;
    }
};

}  // namespace moe_jit
