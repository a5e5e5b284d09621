#include "moe_jit/cuda/finalize.cuh"
#include "moe_jit/cuda/finalize_parts.cuh"

namespace moe_jit::cuda {

cudaError_t launch_finalize(const FinalizeArgs& args, cudaStream_t stream) {
    if (args.row_parts != nullptr) return finalize::launch_sum_of_parts(args, stream);
    return args.top_k <= 2 ? finalize::launch_weighted_sum<2, 2>(args, stream)
                           : finalize::launch_weighted_sum<8, 1>(args, stream);
}

}  // namespace moe_jit::cuda
