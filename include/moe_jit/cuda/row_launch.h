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

// CTAs that run at once.
template <class Args>
cudaError_t count_resident(void (*kernel)(Args), const Args& args, int threads, int64_t shared_bytes,
                           int64_t& resident) {
    cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                             static_cast<int>(shared_bytes));
    int per_sm = 0;
    if (error == cudaSuccess) {
        error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_sm, kernel, threads, shared_bytes);
    }
    resident = std::max(1, per_sm) * static_cast<int64_t>(args.num_sms);
    return error;
}

// As many CTAs as run at once, or one for each row. A CTA has slots in shared memory for its rows, up to
// `most_slots` of `slot_bytes`: the fewer it needs, the more CTAs run at once. Args has rows and num_sms.
template <class Args>
cudaError_t launch_rows(void (*kernel)(Args), const Args& args, int threads, int64_t slot_bytes,
                        int most_slots, cudaStream_t stream) {
    int64_t resident = 0;
    int slots = std::min(1, most_slots);
    for (;; ++slots) {
        const cudaError_t error = count_resident(kernel, args, threads, slots * slot_bytes, resident);
        if (error != cudaSuccess) return error;
        if (slots >= most_slots || args.rows <= slots * resident) break;
    }
    return launch(kernel, static_cast<unsigned>(std::min(args.rows, resident)), threads, slots * slot_bytes,
                  stream, true, args);
}

}  // namespace moe_jit::cuda
