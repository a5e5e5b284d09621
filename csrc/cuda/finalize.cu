#include "moe_jit/cuda/finalize.cuh"

namespace moe_jit::cuda {

cudaError_t launch_finalize(const FinalizeArgs& args, cudaStream_t stream) {
    using namespace finalize;
    const int row_vectors = args.hidden_size / kVectorElements;
    const int blocks_per_token = (row_vectors + kThreads - 1) / kThreads;
    const unsigned num_blocks = static_cast<unsigned>(args.num_tokens) * blocks_per_token;
    return launch(weighted_sum, num_blocks, kThreads, 0, stream, args.pdl, args, blocks_per_token);
}

}  // namespace moe_jit::cuda
