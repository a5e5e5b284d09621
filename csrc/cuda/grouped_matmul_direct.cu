// Grouped product on CUDA cores for one combination of operands: MOE_JIT_PRODUCT, a type of
// moe_jit/cuda/direct/products.cuh.
#include "moe_jit/cuda/direct/kernel.cuh"
#include "moe_jit/cuda/direct/ranges.cuh"

namespace moe_jit::cuda {

cudaError_t launch_ranges(const int64_t* list, int num_groups, int group_list_type, int64_t total,
                          int num_experts, GroupRange* ranges, cudaStream_t stream) {
    const GroupList groups{list, num_groups, group_list_type, total, num_experts};
    direct::write_ranges<<<1, direct::kRangeThreads, 0, stream>>>(groups, ranges);
    return cudaGetLastError();
}

cudaError_t launch_direct(const DirectArgs& args, cudaStream_t stream) {
    return direct::launch<direct::MOE_JIT_PRODUCT>(args, stream);
}

}  // namespace moe_jit::cuda
