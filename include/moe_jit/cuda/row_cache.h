// Rows in scratch memory that one kernel writes and the next reads once: those that the L2 cache can hold are
// stored so that they leave it last, and dropped from it when they have been read, instead of being written
// to memory.
#pragma once

#include <cstdint>

namespace moe_jit::cuda {

constexpr int kLineBytes = 128;  // of the L2 cache

// Whether many of the rows are in the cache when they are read.
inline bool stay_in_cache(int64_t bytes, int64_t cache_bytes) { return bytes <= cache_bytes * 3 / 2; }

// Whether they are whole lines, which can be dropped.
inline bool are_whole_lines(const void* rows, int64_t row_bytes) {
    return reinterpret_cast<uintptr_t>(rows) % kLineBytes == 0 && row_bytes % kLineBytes == 0;
}

}  // namespace moe_jit::cuda
