// A grouped product on tensor cores whose groups divide K: MOE_JIT_FORMAT and MOE_JIT_OUTPUT (types),
// MOE_JIT_TILE_TOKENS, MOE_JIT_MAX_GROUPS.
#include "moe_jit/cuda/gemm/depth_product.cuh"
#include "moe_jit/cuda/gemm/format_float16.cuh"
#include "moe_jit/cuda/gemm/product_output.cuh"

namespace moe_jit::cuda {
namespace {

using namespace gemm;

using ProductFormat = MOE_JIT_FORMAT;
template <int kTokens>
struct DepthTile : TileOf<kTokens, ProductFormat, MOE_JIT_MAX_GROUPS> {};
template <>
struct DepthTile<256> {
    using type = Tile<ProductFormat, MOE_JIT_MAX_GROUPS, 2, 2, 1, 32, 64, 96, 128>;
};
template <>
struct DepthTile<192> {
    using type = Tile<ProductFormat, MOE_JIT_MAX_GROUPS, 2, 2, 1, 64, 96, 128, 160, 192>;
};
template <>
struct DepthTile<257> {
    using type = Tile<ProductFormat, MOE_JIT_MAX_GROUPS, 1, 2, 1, 64, 128, 192, 256>;
};
using ProductTile = DepthTile<MOE_JIT_TILE_TOKENS>::type;

}  // namespace

cudaError_t launch_depth_product(const DepthProductArgs& args, cudaStream_t stream) {
    return DepthProduct<ProductTile, MOE_JIT_OUTPUT>::launch(args, stream);
}

}  // namespace moe_jit::cuda
