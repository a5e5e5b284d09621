#include "moe_jit/cuda/finalize.cuh"

namespace moe_jit::cuda {

cudaError_t launch_finalize(const FinalizeArgs& args, cudaStream_t stream) {
    return args.top_k <= 2 ? finalize::launch_weighted_sum<2, 2>(args, stream)
                           : finalize::launch_weighted_sum<8, 1>(args, stream);
}

}  // namespace moe_jit::cuda
