// The arguments of "grouped_matmul_finalize_routing", the same for CPU and CUDA modules.
#pragma once

#include "moe_jit/ffi/grouped_matmul_call.h"

namespace moe_jit::ffi {

// The weight and its parameters are those of GroupedMatmulCall: one tensor, ProductKind kInt8 or kInt8Int4.
struct GroupedMatmulFinalizeRoutingCall {
    TensorView x;                          // [m, k] int8
    Tensors weight;                        // one [experts, k, n], perhaps transposed or blocked
    TensorView group_list;                 // [experts] int64
    Tensors scale;                         // [experts, n] fp32 or bf16; int4 weights: [experts, G, n] int64
    Optional<Tensors> bias;                // [experts, n] bf16; int4 weights: fp32
    Optional<Tensors> offset;              // [experts, 1, n] fp32; int4 weights only
    Optional<TensorView> per_token_scale;  // [m] fp32
    Optional<TensorView> shared_input;     // [rows, n] bf16, fp16 or fp32
    Optional<TensorView> logit;            // [m] fp32
    TensorView row_index;                  // [m] int32 or int64; rows outside the output contribute nothing
    TensorView y;                          // [output rows, n] fp32, written completely
    double shared_input_weight;
    int64_t shared_input_offset;
    int64_t kind;             // ProductKind
    int64_t group_list_type;  // 0 cumulative, 1 counts
    bool packed_k;            // as in GroupedMatmulCall
};

inline GroupedMatmulFinalizeRoutingCall read_grouped_matmul_finalize_routing_call(const TVMFFIAny* args,
                                                                                  int32_t count) {
    ArgumentReader next(args, count);
    GroupedMatmulFinalizeRoutingCall call{next, next, next, next, next, next, next, next,
                                          next, next, next, next, next, next, next, next};
    next.expect_end();
    return call;
}

}  // namespace moe_jit::ffi
