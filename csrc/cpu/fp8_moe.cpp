// CPU module: one build serves every routing method, activation, dtype and layout.
#include <memory>
#include <vector>

#include "moe_jit/core/activation.h"
#include "moe_jit/cpu/experts.h"
#include "moe_jit/cpu/route.h"
#include "moe_jit/ffi/fp8_moe_call.h"

namespace moe_jit::cpu {
namespace {

using ffi::data;

void route_by_method(routing::Method method, const RouteArgs& args) {
    using routing::Method;
    switch (method) {
        case Method::kPreRouted:
            return route<routing::PreRouted>(args);
        case Method::kDefault:
            return route<routing::Default>(args);
        case Method::kRenormalize:
            return route<routing::Renormalize>(args);
        case Method::kDeepSeekV3:
            return route<routing::DeepSeekV3>(args);
        case Method::kLlama4:
            return route<routing::Llama4>(args);
        case Method::kRenormalizeNaive:
            return route<routing::RenormalizeNaive>(args);
        case Method::kTopK:
            return route<routing::TopK>(args);
        case Method::kSigmoidRenorm:
            return route<routing::SigmoidRenorm>(args);
        case Method::kMiniMax2:
            return route<routing::MiniMax2>(args);
        case Method::kSigmoid:
            return route<routing::Sigmoid>(args);
        case Method::kTopKSigmoid:
            return route<routing::TopKSigmoid>(args);
    }
    TVM_FFI_THROW(ValueError) << "routing_method: unknown number " << static_cast<int>(method);
}

FloatBuffer gemm1_by_activation(ActivationType activation, const ExpertsArgs& args, const RowIndex& index) {
    switch (activation) {
        case ActivationType::kGelu:
            return gemm1<Gelu>(args, index);
        case ActivationType::kSwiglu:
            return gemm1<Swiglu>(args, index);
        case ActivationType::kGeglu:
            return gemm1<Geglu>(args, index);
        case ActivationType::kRelu2:
            return gemm1<Relu2>(args, index);
        case ActivationType::kIdentity:
            return gemm1<Identity>(args, index);
    }
    TVM_FFI_THROW(ValueError) << "activation_type: unknown number " << static_cast<int>(activation);
}

RouteArgs route_args(const ffi::Fp8MoeCall& call, int32_t* ids) {
    RouteArgs args{};
    args.logits = {data<const void>(call.routing_logits), ffi::is_bf16(call.routing_logits)};
    args.bias = {data<const void>(call.routing_bias), ffi::is_bf16(call.routing_bias)};
    args.ids_in = data<const int32_t>(call.topk_ids);
    args.weights_in = data<const uint16_t>(call.topk_weights);
    args.num_tokens = call.num_tokens();
    args.num_experts = static_cast<int>(call.num_experts);
    args.top_k = static_cast<int>(call.top_k);
    args.n_group = static_cast<int>(call.n_group);
    args.topk_group = static_cast<int>(call.topk_group);
    args.rule = {static_cast<float>(call.routed_scaling_factor), call.norm_topk_prob};
    args.ids = ids;
    args.weights = data<uint16_t>(call.expert_weights);
    return args;
}

ExpertsArgs experts_args(const ffi::Fp8MoeCall& call) {
    ExpertsArgs args{};
    args.hidden_states = data<const uint8_t>(call.hidden_states);
    args.gemm1_weights = data<const uint8_t>(call.gemm1_weights);
    args.gemm2_weights = data<const uint8_t>(call.gemm2_weights);
    args.output1_scales = data<const float>(call.output1_scales_scalar);
    args.output1_scales_gate = data<const float>(call.output1_scales_gate_scalar);
    args.output2_scales = data<const float>(call.output2_scales_scalar);
    args.weights = data<const uint16_t>(call.expert_weights);
    args.num_tokens = call.num_tokens();
    args.top_k = static_cast<int>(call.top_k);
    args.hidden_size = call.hidden_size();
    args.intermediate_size = call.intermediate_size;
    args.layout = static_cast<WeightLayout>(call.weight_layout);
    args.scale_input = call.use_routing_scales_on_input;
    return args;
}

void fp8_moe(const ffi::Fp8MoeCall& call) {
    const int64_t num_pairs = call.num_tokens() * call.top_k;
    std::vector<int32_t> ids(num_pairs);
    const auto method = call.routing_logits.has_value() ? static_cast<routing::Method>(call.routing_method)
                                                        : routing::Method::kPreRouted;
    route_by_method(method, route_args(call, ids.data()));
    if (int16_t* replay = data<int16_t>(call.routing_replay_out)) std::copy(ids.begin(), ids.end(), replay);

    int32_t* pair_to_row = data<int32_t>(call.expanded_idx_to_permuted_idx);
    const RowIndex index = index_rows(ids.data(), num_pairs, static_cast<int>(call.local_expert_offset),
                                      static_cast<int>(call.local_num_experts), pair_to_row);
    const ExpertsArgs args = experts_args(call);
    const FloatBuffer intermediate =
        gemm1_by_activation(static_cast<ActivationType>(call.activation_type), args, index);
    if (uint16_t* rows = data<uint16_t>(call.gemm2_output)) {
        gemm2(args, index, intermediate.get(), rows);
        std::fill(rows + index.num_rows() * args.hidden_size, rows + num_pairs * args.hidden_size,
                  uint16_t{0});
    } else {
        const std::unique_ptr<uint16_t[]> scratch(new uint16_t[index.num_rows() * args.hidden_size + 1]);
        gemm2(args, index, intermediate.get(), scratch.get());
        finalize(args, pair_to_row, scratch.get(), data<uint16_t>(call.output));
    }
}

}  // namespace
}  // namespace moe_jit::cpu

MOE_JIT_EXPORT_FP8_MOE(moe_jit::cpu::fp8_moe)
