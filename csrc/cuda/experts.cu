// Instantiates the expert GEMMs for one activation and one token tile:
// MOE_JIT_ACTIVATION (functor of moe_jit), MOE_JIT_MAX_LOCAL_EXPERTS, MOE_JIT_TILE_TOKENS.
#include "moe_jit/core/k_parts.h"
#include "moe_jit/cuda/gemm/experts.cuh"

namespace moe_jit::cuda {

// Two sets of accumulators do not fit beside a compute-bound tile.
constexpr bool kPromote = MOE_JIT_TILE_TOKENS <= 128;
using WholeTile = gemm::TileOf<MOE_JIT_TILE_TOKENS, gemm::Fp8E4M3<kPromote>, MOE_JIT_MAX_LOCAL_EXPERTS>::type;
using ExpertTile = std::conditional_t<WholeTile::kTokens <= 16, gemm::FewTokens<WholeTile>, WholeTile>;

int compiled_activation_type() { return static_cast<int>(MOE_JIT_ACTIVATION::kType); }

int expert_tile_tokens() { return ExpertTile::kTokens; }

bool experts_read_list() { return ExpertTile::kFewTokens; }

int64_t expert_counters(int64_t max_rows, int num_local) {
    return 1 + max_rows / ExpertTile::kTokens + std::min<int64_t>(max_rows, num_local);
}

int expert_k_parts(int64_t num_experts_hit, int64_t hidden_size, int64_t intermediate_size) {
    if constexpr (ExpertTile::kFewTokens) {
        constexpr int kStageK = ExpertTile::kBlocks * gemm::kBlockBytes;
        const int64_t row_tiles = (hidden_size + ExpertTile::kRows - 1) / ExpertTile::kRows;
        return k_parts(num_experts_hit * row_tiles, (intermediate_size + kStageK - 1) / kStageK);
    }
    return 1;
}

cudaError_t launch_experts(const ExpertsArgs& args, cudaStream_t stream) {
    return gemm::Experts<ExpertTile, MOE_JIT_ACTIVATION>::launch(args, stream);
}

}  // namespace moe_jit::cuda
