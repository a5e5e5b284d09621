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

// Rows of several tensors, of which tensor i ends before row end[i] of all.
struct ListedRows {
    const char* data[kMaxListedExperts];
    int64_t pitch[kMaxListedExperts];  // bytes
    int64_t end[kMaxListedExperts];
    int count;
};

// The rows, at least one, one after the other, of row_bytes, a multiple of 16 as are addresses and pitches.
cudaError_t launch_stack_rows(const ListedRows& list, int64_t row_bytes, void* out, cudaStream_t stream);

// Groups whose sizes the host knows; shift is how many elements behind its place in one tensor a group's
// result begins.
struct HostGroups {
    int64_t rows[kMaxListedExperts];
    int64_t shift[kMaxListedExperts];
    int count;
};

// Copies them to the device; nullptr: not.
cudaError_t launch_list_groups(const HostGroups& groups, int64_t* rows, int64_t* shift, cudaStream_t stream);

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
