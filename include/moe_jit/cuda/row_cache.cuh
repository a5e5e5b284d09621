// Drops lines from the L2 cache, see row_cache.h.
#pragma once

#include "moe_jit/cuda/row_cache.h"

namespace moe_jit::cuda {

// `used` was computed from all that the warp has read of the line: this waits for it. NaN keeps the line.
__device__ __forceinline__ void discard_line(const void* line, float used) {
    if (used == used) asm volatile("discard.global.L2 [%0], %1;" ::"l"(line), "n"(kLineBytes) : "memory");
}

}  // namespace moe_jit::cuda
