// The arguments of "ordered_sum", a CUDA module.
#pragma once

#include "moe_jit/ffi/arguments.h"

namespace moe_jit::ffi {

// The end of npu_grouped_matmul_finalize_routing: products are weighed and added to their rows of y.
struct OrderedSumCall {
    TensorView rows;                       // [m, n] fp32, products of the rows that belong to groups; lost
    TensorView row_index;                  // [m] int32 or int64; rows outside the output contribute nothing
    TensorView group_list;                 // [experts] int64
    Optional<TensorView> per_token_scale;  // [m] fp32
    Optional<TensorView> logit;            // [m] fp32
    Optional<TensorView> bias;             // [experts, n] bf16, counts with logit
    Optional<TensorView> shared_input;     // [rows, n] bf16, fp16 or fp32
    TensorView y;                          // [output rows, n] fp32, written completely
    double shared_input_weight;
    int64_t shared_input_offset;
    int64_t group_list_type;  // 0 cumulative, 1 counts
};

inline OrderedSumCall read_ordered_sum_call(const TVMFFIAny* args, int32_t count) {
    ArgumentReader next(args, count);
    OrderedSumCall call{next, next, next, next, next, next, next, next, next, next, next};
    next.expect_end();
    return call;
}

}  // namespace moe_jit::ffi
