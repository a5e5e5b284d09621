// What the CUDA translation units of dequant_swiglu_quant call each other with.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "moe_jit/core/element.h"
#include "moe_jit/core/glu.h"
#include "moe_jit/core/row_quantizer.h"

namespace moe_jit::cuda {

// Tables of parameters have a row for each group. Null: not given.
struct DequantSwigluQuantArgs {
    const void* x;  // [rows, 2 * half]
    Element x_element;
    const float* weight_scale;      // [groups, 2 * half]
    const float* activation_scale;  // [rows]
    const void* bias;               // [groups or 1, 2 * half]
    Element bias_element;
    bool bias_is_shared;
    const float* quant_scale;   // [groups, half or 1]
    const float* quant_offset;  // as quant_scale
    bool quant_is_scalar;
    const int64_t* group_index;  // [groups], or [groups, 2] if groups_are_pairs
    int num_groups;
    bool groups_are_pairs;
    int8_t* y;     // [rows, half]
    float* scale;  // [rows]
    int64_t rows;
    int half;
    bool activate_left;
    bool dynamic;
    Glu glu;
    QuantRecipe recipe;
    int num_sms;
};

cudaError_t launch_dequant_swiglu_quant(const DequantSwigluQuantArgs& args, cudaStream_t stream);

}  // namespace moe_jit::cuda
