// Lists of one tensor for each expert, made into what a kernel takes that expects stacked tensors.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace moe_jit::cuda {

constexpr int kMaxListedExperts = 128;

struct ListedTensors {
    const char* data[kMaxListedExperts];
    int count;
};

// The rows of `bytes` (even) that a list points to, one after the other.
cudaError_t launch_stack(const ListedTensors& list, int64_t bytes, void* out, cudaStream_t stream);

// A list's memory as rows that begin `step` bytes apart, from the lowest address on; tensors overlap in it.
struct ExpertSpan {
    const char* begin;
    int64_t step;
    int64_t count;
};
ExpertSpan span_of(const ListedTensors& list);

// The rows of `span` at which the list's tensors begin.
cudaError_t launch_locate(const ListedTensors& list, const ExpertSpan& span, int32_t* rows,
                          cudaStream_t stream);

}  // namespace moe_jit::cuda
