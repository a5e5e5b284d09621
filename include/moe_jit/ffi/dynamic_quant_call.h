// The arguments of "dynamic_quant", the same for CPU and CUDA modules.
#pragma once

#include "moe_jit/ffi/arguments.h"

namespace moe_jit::ffi {

struct DynamicQuantCall {
    TensorView x;                        // [rows, width] fp16, bf16 or fp32
    Optional<TensorView> smooth_scales;  // [groups or 1, width], dtype of x or fp32
    Optional<TensorView> group_index;    // [groups] int32, cumulative
    TensorView y;      // [rows, width] int8, or [rows, width / 8] int32 of packed int4; written
    TensorView scale;  // [rows] fp32, written
};

inline DynamicQuantCall read_dynamic_quant_call(const TVMFFIAny* args, int32_t count) {
    ArgumentReader next(args, count);
    DynamicQuantCall call{next, next, next, next, next};
    next.expect_end();
    return call;
}

}  // namespace moe_jit::ffi
