// The arguments of the FP8 operation's entry point, the same for CPU and CUDA modules.
#pragma once

#include "moe_jit/ffi/arguments.h"

namespace moe_jit::ffi {

// T tokens, E experts, k = top_k, H = hidden_size, I = intermediate_size. Members are in argument order.
struct Fp8MoeCall {
    Optional<TensorView> routing_logits;  // [T, E] fp32 or bf16; None when pre-routed
    Optional<TensorView> routing_bias;    // [E] fp32 or bf16
    Optional<TensorView> topk_ids;        // pre-routed: [T, k] int32, global ids
    Optional<TensorView> topk_weights;    // pre-routed: [T, k] bf16
    TensorView hidden_states;             // [T, H] e4m3
    TensorView gemm1_weights;             // [>= local_num_experts, 2I or I, H] e4m3
    TensorView output1_scales_scalar;     // [local_num_experts] fp32
    TensorView output1_scales_gate_scalar;
    TensorView gemm2_weights;                 // [>= local_num_experts, H, I] e4m3
    TensorView output2_scales_scalar;         // [local_num_experts] fp32
    Optional<TensorView> output;              // [T, H] bf16; None: gemm2_output is wanted instead
    Optional<TensorView> gemm2_output;        // [T * k, H] bf16
    TensorView expert_weights;                // [T, k] bf16, written
    TensorView expanded_idx_to_permuted_idx;  // [T * k] int32, written
    Optional<TensorView> routing_replay_out;  // [>= T, k] int16, written
    int64_t num_experts;
    int64_t top_k;
    int64_t n_group;     // 0 = none
    int64_t topk_group;  // 0 = none
    int64_t intermediate_size;
    int64_t local_expert_offset;
    int64_t local_num_experts;
    double routed_scaling_factor;
    bool norm_topk_prob;
    bool use_routing_scales_on_input;
    int64_t weight_layout;  // moe_jit::WeightLayout
    bool enable_pdl;
    int64_t routing_method;   // moe_jit::routing::Method; ignored when pre-routed
    int64_t activation_type;  // moe_jit::ActivationType

    int64_t num_tokens() const { return hidden_states.size(0); }
    int64_t hidden_size() const { return hidden_states.size(1); }
};

inline Fp8MoeCall read_fp8_moe_call(const TVMFFIAny* args, int32_t count) {
    ArgumentReader next(args, count);
    Fp8MoeCall call{next, next, next, next, next, next, next, next, next, next, next, next, next, next, next,
                    next, next, next, next, next, next, next, next, next, next, next, next, next, next};
    next.expect_end();
    return call;
}

}  // namespace moe_jit::ffi

// Exports `function`, which takes a const Fp8MoeCall&, as the module's "fp8_moe". Use outside any namespace.
#define MOE_JIT_EXPORT_FP8_MOE(function) MOE_JIT_EXPORT(fp8_moe, ::moe_jit::ffi::read_fp8_moe_call, function)
