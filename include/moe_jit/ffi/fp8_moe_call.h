// The arguments of a module's one entry point, the same for CPU and CUDA modules.
//
// They are unpacked by position instead of through TVM_FFI_DLL_EXPORT_TYPED_FUNC: for this many parameters
// that macro takes the compiler more than three seconds.
#pragma once

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/function.h>

#include <cstdint>

namespace moe_jit::ffi {

using tvm::ffi::Optional;
using tvm::ffi::TensorView;

class ArgumentReader {
  public:
    ArgumentReader(const TVMFFIAny* args, int32_t count)
        : next_(reinterpret_cast<const tvm::ffi::AnyView*>(args)), end_(next_ + count) {}

    template <class T>
    operator T() {  // NOLINT(google-explicit-constructor)
        return read<T>();
    }

    void expect_end() const {
        if (next_ != end_) TVM_FFI_THROW(TypeError) << (end_ - next_) << " arguments too many";
    }

  private:
    template <class T>
    __attribute__((noinline)) T read() {
        if (next_ == end_) TVM_FFI_THROW(TypeError) << "too few arguments";
        return (next_++)->cast<T>();
    }

    const tvm::ffi::AnyView* next_;
    const tvm::ffi::AnyView* end_;
};

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

template <class T>
T* data(const TensorView& tensor) {
    return reinterpret_cast<T*>(static_cast<char*>(tensor.data_ptr()) + tensor.byte_offset());
}

template <class T>
T* data(const Optional<TensorView>& tensor) {
    return tensor.has_value() ? data<T>(tensor.value()) : nullptr;
}

inline bool is_bf16(const Optional<TensorView>& tensor) {
    return tensor.has_value() && tensor.value().dtype().code == kDLBfloat;
}

}  // namespace moe_jit::ffi

// Exports `function`, which takes a const Fp8MoeCall&, as the module's "fp8_moe". Use outside any namespace.
#define MOE_JIT_EXPORT_FP8_MOE(function)                                                             \
    extern "C" TVM_FFI_DLL_EXPORT int __tvm_ffi_fp8_moe(void*, const TVMFFIAny* args, int32_t count, \
                                                        TVMFFIAny* result) {                         \
        TVM_FFI_SAFE_CALL_BEGIN();                                                                   \
        function(::moe_jit::ffi::read_fp8_moe_call(args, count));                                    \
        *reinterpret_cast<::tvm::ffi::Any*>(result) = nullptr;                                       \
        TVM_FFI_SAFE_CALL_END();                                                                     \
    }
