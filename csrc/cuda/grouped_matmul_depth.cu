// A grouped product on tensor cores whose groups divide K: MOE_JIT_FORMAT and MOE_JIT_OUTPUT (types),
// MOE_JIT_TILE_TOKENS, MOE_JIT_MAX_GROUPS.
#include "moe_jit/cuda/gemm/depth_product.cuh"
#include "moe_jit/cuda/gemm/format_float16.cuh"
#include "moe_jit/cuda/gemm/product_output.cuh"

namespace moe_jit::cuda {
namespace {

using namespace gemm;

using ProductFormat = MOE_JIT_FORMAT;
using ProductTile = TileOf<MOE_JIT_TILE_TOKENS, ProductFormat, MOE_JIT_MAX_GROUPS>::type;

}  // namespace

cudaError_t launch_depth_product(const DepthProductArgs& args, cudaStream_t stream) {
    return DepthProduct<ProductTile, MOE_JIT_OUTPUT>::launch(args, stream);
}

}  // namespace moe_jit::cuda
