// The arguments of "dequant_swiglu_quant", the same for CPU and CUDA modules.
#pragma once

#include "moe_jit/ffi/arguments.h"

namespace moe_jit::ffi {

// Without group_index there is one row of parameters; with it they have one row for each group.
struct DequantSwigluQuantCall {
    TensorView x;                           // [rows, 2H] int32, fp16 or bf16
    Optional<TensorView> weight_scale;      // [groups, 2H] fp32; only with int32 x
    Optional<TensorView> activation_scale;  // [rows] fp32; only with int32 x
    Optional<TensorView> bias;              // [groups or 1, 2H] int32, fp32, fp16 or bf16; only with int32 x
    Optional<TensorView> quant_scale;       // [groups, H or 1] fp32
    Optional<TensorView> quant_offset;      // as quant_scale
    Optional<TensorView> group_index;       // [groups] counts or [groups, 2] (index, count), int64
    TensorView y;                           // [rows, H] int8, written
    TensorView scale;                       // [rows] fp32, written; zeros when static
    bool activate_left;
    bool dynamic;
    int64_t swiglu_mode;  // moe_jit::GluMode
    double clamp_limit;
    double glu_alpha;
    double glu_bias;
};

inline DequantSwigluQuantCall read_dequant_swiglu_quant_call(const TVMFFIAny* args, int32_t count) {
    ArgumentReader next(args, count);
    DequantSwigluQuantCall call{next, next, next, next, next, next, next, next,
                                next, next, next, next, next, next, next};
    next.expect_end();
    return call;
}

}  // namespace moe_jit::ffi
