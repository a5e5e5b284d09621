// Launching kernels whose CTAs share the rows of a matrix evenly.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include "moe_jit/cuda/pdl.cuh"

namespace moe_jit::cuda {

inline bool are_aligned(std::initializer_list<const void*> pointers) {
    return std::all_of(pointers.begin(), pointers.end(),
                       [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; });
}

// Whole warps for `width` elements, of which a thread takes `per_thread`.
inline int threads_for(int width, int per_thread) {
    return (width + 32 * per_thread - 1) / (32 * per_thread) * 32;
}

// As many CTAs as run at once, or one for each row. Args has rows and num_sms.
template <class Args>
cudaError_t launch_rows(void (*kernel)(Args), const Args& args, int threads, int64_t shared_bytes,
                        cudaStream_t stream) {
    cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             static_cast<int>(shared_bytes));
    int per_sm = 0;
    if (error == cudaSuccess) {
        error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, kernel, threads, shared_bytes);
    }
    if (error != cudaSuccess) return error;
    const int64_t resident = std::max(1, per_sm) * static_cast<int64_t>(args.num_sms);
    return launch(kernel, static_cast<unsigned>(std::min(args.rows, resident)), threads, shared_bytes, stream,
                  true, args);
}

}  // namespace moe_jit::cuda
