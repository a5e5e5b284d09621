// Sums of rows by destination.
#include <algorithm>

#include "moe_jit/cuda/ordered_sum.cuh"

namespace moe_jit::cuda {
namespace {

using namespace ordered_sum;

unsigned blocks_for(int64_t count, int per_block) {
    return static_cast<unsigned>((count + per_block - 1) / per_block);
}

cudaError_t launch_index(const OrderedSumArgs& args, cudaStream_t stream) {
    if (args.index == nullptr) return cudaSuccess;
    const cudaError_t error =
        launch(clear_counts, blocks_for(args.out_rows, kThreads), kThreads, 0, stream, true, args);
    if (error != cudaSuccess) return error;
    return launch(list_rows, blocks_for(args.groups.num_rows, kThreads), kThreads, 0, stream, true, args);
}

}  // namespace

int64_t ordered_sum_index_ints(int64_t num_rows, int64_t out_rows) {
    return num_rows <= kSearched ? 0 : out_rows * (1 + kListed);
}

cudaError_t launch_ordered_sum(const OrderedSumArgs& args, cudaStream_t stream) {
    if (const cudaError_t error = launch_index(args, stream); error != cudaSuccess) return error;
    // Enough CTAs to fill the GPU; then a CTA that knows its rows had better sum more columns.
    constexpr int64_t kEnough = 4096;
    const int parts = static_cast<int>(blocks_for(args.n, kThreads * kColumns));
    const auto blocks_per_row =
        static_cast<int>(std::clamp<int64_t>(kEnough / args.out_rows, std::min(parts, 2), parts));
    const auto blocks = static_cast<unsigned>(args.out_rows * blocks_per_row);
    return launch(args.bias ? sum_rows<true> : sum_rows<false>, blocks, kThreads, 0, stream, true, args,
                  blocks_per_row);
}

}  // namespace moe_jit::cuda
