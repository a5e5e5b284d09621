// Routing for one method and one bound on the number of experts:
// MOE_JIT_ROUTING (policy of moe_jit::routing), MOE_JIT_MAX_EXPERTS (32, 64, ..., 2048).
#include "moe_jit/cuda/route/kernels.cuh"

namespace moe_jit::cuda {

using RoutingPolicy = routing::MOE_JIT_ROUTING;

int compiled_routing_method() { return static_cast<int>(RoutingPolicy::kMethod); }

size_t route_scratch_ints(int num_tokens, int num_experts) {
    return static_cast<size_t>(route::num_token_blocks(num_tokens)) * route::count_words(num_experts);
}

cudaError_t launch_route(const RouteArgs& args, cudaStream_t stream) {
    return route::launch_route<RoutingPolicy, MOE_JIT_MAX_EXPERTS>(args, stream);
}

}  // namespace moe_jit::cuda
