// CPU module: one build serves every routing method, activation, dtype and layout.
#include <tvm/ffi/tvm_ffi.h>

#include <memory>
#include <vector>

#include "moe_jit/core/activation.h"
#include "moe_jit/cpu/experts.h"
#include "moe_jit/cpu/route.h"

namespace moe_jit::cpu {
namespace {

using tvm::ffi::Optional;
using tvm::ffi::TensorView;

template <class T>
T* data(const TensorView& tensor) {
    return reinterpret_cast<T*>(static_cast<char*>(tensor.data_ptr()) + tensor.byte_offset());
}

template <class T>
T* data_or_null(const Optional<TensorView>& tensor) {
    return tensor.has_value() ? data<T>(tensor.value()) : nullptr;
}

FloatView float_view(const Optional<TensorView>& tensor) {
    if (!tensor.has_value()) return {};
    return {data<void>(tensor.value()), tensor.value().dtype().code == kDLBfloat};
}

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

void fp8_moe(Optional<TensorView> routing_logits, Optional<TensorView> routing_bias,
             Optional<TensorView> topk_ids, Optional<TensorView> topk_weights, TensorView hidden_states,
             TensorView gemm1_weights, TensorView output1_scales_scalar,
             TensorView output1_scales_gate_scalar, TensorView gemm2_weights,
             TensorView output2_scales_scalar, Optional<TensorView> output, Optional<TensorView> gemm2_output,
             TensorView expert_weights, TensorView expanded_idx_to_permuted_idx,
             Optional<TensorView> routing_replay_out, int64_t num_experts, int64_t top_k, int64_t n_group,
             int64_t topk_group, int64_t intermediate_size, int64_t local_expert_offset,
             int64_t local_num_experts, double routed_scaling_factor, bool norm_topk_prob,
             bool use_routing_scales_on_input, int64_t weight_layout, bool /*enable_pdl*/,
             int64_t routing_method, int64_t activation_type) {
    const int64_t num_tokens = hidden_states.size(0), hidden_size = hidden_states.size(1);
    const int64_t num_pairs = num_tokens * top_k;
    std::vector<int32_t> ids(num_pairs);
    int32_t* pair_to_row = data<int32_t>(expanded_idx_to_permuted_idx);
    uint16_t* weights = data<uint16_t>(expert_weights);

    RouteArgs route_args{};
    route_args.logits = float_view(routing_logits);
    route_args.bias = float_view(routing_bias);
    route_args.ids_in = data_or_null<int32_t>(topk_ids);
    route_args.weights_in = data_or_null<uint16_t>(topk_weights);
    route_args.num_tokens = num_tokens;
    route_args.num_experts = static_cast<int>(num_experts);
    route_args.top_k = static_cast<int>(top_k);
    route_args.n_group = static_cast<int>(n_group);
    route_args.topk_group = static_cast<int>(topk_group);
    route_args.rule = {static_cast<float>(routed_scaling_factor), norm_topk_prob};
    route_args.ids = ids.data();
    route_args.weights = weights;
    const bool pre_routed = !routing_logits.has_value();
    route_by_method(pre_routed ? routing::Method::kPreRouted : static_cast<routing::Method>(routing_method),
                    route_args);
    if (int16_t* replay = data_or_null<int16_t>(routing_replay_out)) {
        std::copy(ids.begin(), ids.end(), replay);
    }
    const RowIndex index = index_rows(ids.data(), num_pairs, static_cast<int>(local_expert_offset),
                                      static_cast<int>(local_num_experts), pair_to_row);

    ExpertsArgs args{};
    args.hidden_states = data<uint8_t>(hidden_states);
    args.gemm1_weights = data<uint8_t>(gemm1_weights);
    args.gemm2_weights = data<uint8_t>(gemm2_weights);
    args.output1_scales = data<float>(output1_scales_scalar);
    args.output1_scales_gate = data<float>(output1_scales_gate_scalar);
    args.output2_scales = data<float>(output2_scales_scalar);
    args.weights = weights;
    args.num_tokens = num_tokens;
    args.top_k = static_cast<int>(top_k);
    args.hidden_size = hidden_size;
    args.intermediate_size = intermediate_size;
    args.layout = static_cast<WeightLayout>(weight_layout);
    args.scale_input = use_routing_scales_on_input;

    const FloatBuffer intermediate =
        gemm1_by_activation(static_cast<ActivationType>(activation_type), args, index);
    if (gemm2_output.has_value()) {
        uint16_t* rows = data<uint16_t>(gemm2_output.value());
        gemm2(args, index, intermediate.get(), rows);
        std::fill(rows + index.num_rows() * hidden_size, rows + num_pairs * hidden_size, uint16_t{0});
    } else {
        const std::unique_ptr<uint16_t[]> rows(new uint16_t[index.num_rows() * hidden_size + 1]);
        gemm2(args, index, intermediate.get(), rows.get());
        finalize(args, pair_to_row, rows.get(), data<uint16_t>(output.value()));
    }
}

}  // namespace
}  // namespace moe_jit::cpu

TVM_FFI_DLL_EXPORT_TYPED_FUNC(fp8_moe, moe_jit::cpu::fp8_moe);
