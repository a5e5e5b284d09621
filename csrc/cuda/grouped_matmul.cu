// A grouped product on tensor cores for one combination of operands, weight layout, output and token tile:
// MOE_JIT_FORMAT and MOE_JIT_OUTPUT (types), MOE_JIT_POINTWISE (number of the activation),
// MOE_JIT_TILE_TOKENS, MOE_JIT_MAX_GROUPS.
#include "moe_jit/cuda/gemm/format_antiquant.cuh"
#include "moe_jit/cuda/gemm/format_float16.cuh"
#include "moe_jit/cuda/gemm/format_int8.cuh"
#include "moe_jit/cuda/gemm/format_int8_int4.cuh"
#include "moe_jit/cuda/gemm/product.cuh"
#include "moe_jit/cuda/gemm/product_output.cuh"

namespace moe_jit::cuda {

namespace {

using namespace gemm;

constexpr auto kActivation = static_cast<PointwiseType>(MOE_JIT_POINTWISE);
template <class Format>
using Scaled = ScaledOutput<Format, kActivation, false>;
template <class Format>
using ScaledBiased = ScaledOutput<Format, kActivation, true>;

using ProductFormat = MOE_JIT_FORMAT;
using ProductOutput = MOE_JIT_OUTPUT;
using ProductTile = TileOf<MOE_JIT_TILE_TOKENS, ProductFormat, MOE_JIT_MAX_GROUPS>::type;

}  // namespace

int product_tile_tokens() { return ProductTile::kTokens; }

cudaError_t launch_product(const ProductArgs& args, cudaStream_t stream) {
    return Product<ProductTile, ProductOutput>::launch(args, stream);
}

}  // namespace moe_jit::cuda
