#include <algorithm>

#include "moe_jit/cuda/expert_lists.h"
#include "moe_jit/cuda/pdl.cuh"

namespace moe_jit::cuda {
namespace {

constexpr int kThreads = 256;

template <class Word>
__device__ void copy(const char* from, char* to, int64_t bytes) {
    for (int64_t i = threadIdx.x; i < bytes / static_cast<int64_t>(sizeof(Word)); i += kThreads) {
        reinterpret_cast<Word*>(to)[i] = reinterpret_cast<const Word*>(from)[i];
    }
}

// A block for each expert.
__global__ void __launch_bounds__(kThreads)
    stack(const __grid_constant__ ListedTensors list, int64_t bytes, char* out) {
    let_dependents_start();
    wait_for_predecessors();
    const char* from = list.data[blockIdx.x];
    char* to = out + blockIdx.x * bytes;
    if ((reinterpret_cast<uintptr_t>(from) | bytes) % 16 == 0) {
        copy<uint4>(from, to, bytes);
    } else {
        copy<uint16_t>(from, to, bytes);
    }
}

__global__ void __launch_bounds__(kMaxListedExperts)
    locate(const __grid_constant__ ListedTensors list, const char* begin, int64_t step, int32_t* rows) {
    let_dependents_start();
    wait_for_predecessors();
    const int e = threadIdx.x;
    if (e < list.count) rows[e] = static_cast<int32_t>((list.data[e] - begin) / step);
}

// A block for each row.
__global__ void __launch_bounds__(kThreads)
    stack_rows(const __grid_constant__ ListedRows list, int64_t row_bytes, char* out) {
    let_dependents_start();
    wait_for_predecessors();
    const int64_t row = blockIdx.x;
    int tensor = 0;  // the first one that ends behind the row
    for (int step = kMaxListedExperts / 2; step > 0; step /= 2) {
        if (tensor + step <= list.count - 1 && list.end[tensor + step - 1] <= row) tensor += step;
    }
    const int64_t first = tensor > 0 ? list.end[tensor - 1] : 0;
    copy<uint4>(list.data[tensor] + (row - first) * list.pitch[tensor], out + row * row_bytes, row_bytes);
}

__global__ void __launch_bounds__(kMaxListedExperts)
    list_groups(const __grid_constant__ HostGroups groups, int64_t* rows, int64_t* shift) {
    let_dependents_start();
    wait_for_predecessors();
    const int g = threadIdx.x;
    if (g >= groups.count) return;
    if (rows) rows[g] = groups.rows[g];
    if (shift) shift[g] = groups.shift[g];
}

}  // namespace

cudaError_t launch_stack_rows(const ListedRows& list, int64_t row_bytes, void* out, cudaStream_t stream) {
    const auto rows = static_cast<unsigned>(list.end[list.count - 1]);
    return launch(stack_rows, dim3(rows), dim3(kThreads), 0, stream, true, list, row_bytes,
                  static_cast<char*>(out));
}

cudaError_t launch_list_groups(const HostGroups& groups, int64_t* rows, int64_t* shift, cudaStream_t stream) {
    return launch(list_groups, dim3(1), dim3(kMaxListedExperts), 0, stream, true, groups, rows, shift);
}

cudaError_t launch_stack(const ListedTensors& list, int64_t bytes, void* out, cudaStream_t stream) {
    return launch(stack, dim3(list.count), dim3(kThreads), 0, stream, true, list, bytes,
                  static_cast<char*>(out));
}

ExpertSpan span_of(const ListedTensors& list) {
    const auto [first, last] = std::minmax_element(list.data, list.data + list.count);
    int64_t offsets = 0;
    for (int e = 0; e < list.count; ++e) offsets |= list.data[e] - *first;
    constexpr int64_t kSmallestStep = 16;
    const int64_t step = offsets == 0 ? kSmallestStep : offsets & -offsets;
    return {*first, step, (*last - *first) / step + 1};
}

cudaError_t launch_locate(const ListedTensors& list, const ExpertSpan& span, int32_t* rows,
                          cudaStream_t stream) {
    return launch(locate, dim3(1), dim3(kMaxListedExperts), 0, stream, true, list, span.begin, span.step,
                  rows);
}

}  // namespace moe_jit::cuda
