// Instantiates the expert GEMMs for one activation and one token tile:
// MOE_JIT_ACTIVATION (functor of moe_jit), MOE_JIT_MAX_LOCAL_EXPERTS, MOE_JIT_TILE_TOKENS.
#include "moe_jit/cuda/gemm/experts.cuh"

namespace moe_jit::cuda {

// Two sets of accumulators do not fit beside a compute-bound tile.
constexpr bool kPromote = MOE_JIT_TILE_TOKENS <= 128;
using ExpertTile =
    gemm::TileOf<MOE_JIT_TILE_TOKENS, gemm::Fp8E4M3<kPromote>, MOE_JIT_MAX_LOCAL_EXPERTS>::type;

int compiled_activation_type() { return static_cast<int>(MOE_JIT_ACTIVATION::kType); }

int expert_tile_tokens() { return ExpertTile::kTokens; }

int64_t expert_counters(int64_t max_rows, int num_local) {
    return 1 + max_rows / ExpertTile::kTokens + num_local;
}

cudaError_t launch_experts(const ExpertsArgs& args, cudaStream_t stream) {
    return gemm::Experts<ExpertTile, MOE_JIT_ACTIVATION>::launch(args, stream);
}

}  // namespace moe_jit::cuda
