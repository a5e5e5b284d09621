// What the CUDA translation units of dynamic_quant call each other with.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "moe_jit/core/element.h"

namespace moe_jit::cuda {

// Null: not given.
struct DynamicQuantArgs {
    const void* x;  // [rows, width]
    Element x_element;
    const void* smooth;  // [groups or 1, width]
    Element smooth_element;
    const int32_t* group_ends;  // [groups], cumulative
    int num_groups;
    void* y;  // [rows, width] int8, or [rows, width / 8] words of int4
    bool int4;
    float* scale;  // [rows]
    int64_t rows;
    int width;
    int num_sms;
};

cudaError_t launch_dynamic_quant(const DynamicQuantArgs& args, cudaStream_t stream);

}  // namespace moe_jit::cuda
