// tvm-ffi entry points of the CUDA module: unpack tensors, carve scratch memory, launch route -> experts ->
// finalize on the environment's stream. Python has validated every argument.
#include <moe_jit/cuda/workspace.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/ffi/extra/cuda/device_guard.h>
#include <tvm/ffi/function.h>

namespace moe_jit::cuda {
namespace {

using tvm::ffi::Optional;
using tvm::ffi::TensorView;

template <class T>
T* data(const TensorView& tensor) {
    return static_cast<T*>(tensor.data_ptr());
}

template <class T>
T* data(const Optional<TensorView>& tensor) {
    return tensor.has_value() ? data<T>(tensor.value()) : nullptr;
}

bool is_bf16(const Optional<TensorView>& tensor) {
    return tensor.has_value() && tensor.value().dtype().code == kDLBfloat;
}

void check(cudaError_t error, const char* stage) {
    if (error != cudaSuccess) {
        TVM_FFI_THROW(RuntimeError) << "launching " << stage << " failed: " << cudaGetErrorString(error);
    }
}

void check_compiled_for(const char* what, int64_t compiled, int64_t called) {
    if (compiled != called) {
        TVM_FFI_THROW(InternalError) << "module compiled for " << what << ' ' << compiled << ", called with " << called;
    }
}

int multiprocessors(int device) {
    int count = 0;
    check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "the device query");
    return count;
}

// Fills the parts of the launch arguments that live in scratch memory.
void use_workspace(const Workspace& ws, RouteArgs& route, ExpertsArgs& experts) {
    route.topk_ids = ws.topk_ids;
    route.row_to_pair = ws.row_to_pair;
    route.expert_offsets = ws.expert_offsets;
    route.tile_offsets = ws.tile_offsets;
    route.counters = ws.counters;
    route.num_counters = static_cast<int>(ws.num_counters);
    route.block_counts = ws.route_scratch;
    experts.row_to_pair = ws.row_to_pair;
    experts.expert_offsets = ws.expert_offsets;
    experts.tile_offsets = ws.tile_offsets;
    experts.counters = ws.counters;
    experts.intermediate = ws.intermediate;
}

FinalizeArgs finalize_args(const RouteArgs& route, const ExpertsArgs& experts, uint16_t* out) {
    FinalizeArgs args{};
    args.rows = experts.rows;
    args.pair_to_row = route.pair_to_row;
    args.weights = experts.row_weights ? nullptr : route.topk_weights;
    args.out = out;
    args.num_tokens = route.num_tokens;
    args.top_k = route.top_k;
    args.hidden_size = experts.hidden_size;
    args.pdl = route.pdl;
    return args;
}

void launch_layer(const LayerShape& shape, DLDevice device, RouteArgs& route, ExpertsArgs& experts, uint16_t* out) {
    tvm::ffi::CUDADeviceGuard guard(device.device_id);
    const auto stream = static_cast<cudaStream_t>(TVMFFIEnvGetStream(device.device_type, device.device_id));
    const int64_t bytes = Workspace(shape, nullptr).bytes;
    const auto memory =
        tvm::ffi::Tensor::FromEnvAlloc(TVMFFIEnvTensorAlloc, {bytes}, DLDataType{kDLUInt, 8, 1}, device);
    const Workspace ws(shape, static_cast<uint8_t*>(memory.data_ptr()));
    use_workspace(ws, route, experts);
    if (out) experts.rows = ws.rows;
    experts.num_sms = multiprocessors(device.device_id);
    check(launch_route(route, stream), "routing");
    check(launch_experts(experts, stream), "the expert GEMMs");
    if (out) check(launch_finalize(finalize_args(route, experts, out), stream), "finalize");
}

void fp8_moe(Optional<TensorView> logits, Optional<TensorView> bias, Optional<TensorView> topk_ids,
             Optional<TensorView> topk_weights, TensorView hidden_states, TensorView gemm1_weights,
             TensorView linear_scale, TensorView gate_scale, TensorView gemm2_weights, TensorView output_scale,
             Optional<TensorView> output, Optional<TensorView> gemm2_output, TensorView expert_weights,
             TensorView pair_to_row, Optional<TensorView> replay, int num_experts, int top_k, int n_group,
             int topk_group, int intermediate_size, int local_offset, int num_local, double routed_scaling_factor,
             bool norm_topk_prob, bool scale_input, int weight_layout, bool enable_pdl, int routing_method,
             int activation_type) {
    check_compiled_for("routing method", compiled_routing_method(), routing_method);
    check_compiled_for("activation type", compiled_activation_type(), activation_type);

    RouteArgs route{};
    route.logits = data<const void>(logits);
    route.logits_bf16 = is_bf16(logits);
    route.bias = data<const void>(bias);
    route.bias_bf16 = is_bf16(bias);
    route.ids_in = data<const int32_t>(topk_ids);
    route.weights_in = data<const uint16_t>(topk_weights);
    route.num_tokens = static_cast<int>(hidden_states.size(0));
    route.num_experts = num_experts;
    route.top_k = top_k;
    route.n_group = n_group;
    route.topk_group = topk_group;
    route.scaling_factor = static_cast<float>(routed_scaling_factor);
    route.norm_topk_prob = norm_topk_prob;
    route.local_offset = local_offset;
    route.num_local = num_local;
    route.tile_tokens = expert_tile_tokens();
    route.replay = data<int16_t>(replay);
    route.topk_weights = data<uint16_t>(expert_weights);
    route.pair_to_row = data<int32_t>(pair_to_row);
    route.pdl = enable_pdl;

    ExpertsArgs experts{};
    experts.hidden_states = data<const uint8_t>(hidden_states);
    experts.gemm1_weights = data<const uint8_t>(gemm1_weights);
    experts.gemm2_weights = data<const uint8_t>(gemm2_weights);
    experts.linear_scale = data<const float>(linear_scale);
    experts.gate_scale = data<const float>(gate_scale);
    experts.output_scale = data<const float>(output_scale);
    experts.layout = static_cast<WeightLayout>(weight_layout);
    experts.hidden_size = static_cast<int>(hidden_states.size(1));
    experts.intermediate_size = intermediate_size;
    experts.num_local = num_local;
    experts.top_k = top_k;
    experts.row_weights = scale_input ? route.topk_weights : nullptr;
    experts.rows = data<uint16_t>(gemm2_output);
    experts.pdl = enable_pdl;

    const LayerShape shape{route.num_tokens,    num_experts,       num_local,         top_k,
                           experts.hidden_size, intermediate_size, output.has_value()};
    launch_layer(shape, hidden_states.device(), route, experts, data<uint16_t>(output));
}

int64_t workspace_size(int64_t num_tokens, int64_t num_experts, int64_t num_local, int64_t top_k, int64_t hidden_size,
                       int64_t intermediate_size, bool do_finalize) {
    return Workspace({num_tokens, num_experts, num_local, top_k, hidden_size, intermediate_size, do_finalize}, nullptr)
        .bytes;
}

}  // namespace

TVM_FFI_DLL_EXPORT_TYPED_FUNC(fp8_moe, fp8_moe);
TVM_FFI_DLL_EXPORT_TYPED_FUNC(workspace_size, workspace_size);

}  // namespace moe_jit::cuda
