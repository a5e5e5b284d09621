// Activations of single values: moe_jit/core/pointwise.h for vectors, with the same order of operations.
#pragma once

#include "moe_jit/ascend/vector/transfer.h"
#include "moe_jit/core/operator_modes.h"

namespace moe_jit::ascend {

namespace detail {

// x * sigmoid(z) = x * exp(min(z, 0)) / (1 + exp(-|z|)). `z` and `scratch` are lost.
__aicore__ inline void times_sigmoid(const LocalTensor<float>& x, const LocalTensor<float>& z,
                                     const LocalTensor<float>& scratch, int32_t count) {
    Mins(scratch, z, 0.0f, count);
    vector_barrier();
    Abs(z, z, count);
    vector_barrier();
    Exp(scratch, scratch, count);
    Muls(z, z, -1.0f, count);
    vector_barrier();
    Mul(x, x, scratch, count);
    Exp(z, z, count);
    vector_barrier();
    Adds(z, z, 1.0f, count);
    vector_barrier();
    Div(x, x, z, count);
    vector_barrier();
}

}  // namespace detail

// In place; `first` and `second` are as large as `x`.
__aicore__ inline void pointwise(PointwiseType type, const LocalTensor<float>& x,
                                 const LocalTensor<float>& first, const LocalTensor<float>& second,
                                 int32_t count) {
    switch (type) {
        case PointwiseType::kRelu:
            Relu(x, x, count);
            return vector_barrier();
        case PointwiseType::kGeluTanh:
            Mul(first, x, x, count);
            vector_barrier();
            Mul(first, first, x, count);
            vector_barrier();
            Muls(first, first, 0.044715f, count);
            vector_barrier();
            Add(first, x, first, count);
            vector_barrier();
            Muls(first, first, 1.5957691216057308f, count);
            break;
        case PointwiseType::kFastGelu:
            Muls(first, x, 1.702f, count);
            break;
        case PointwiseType::kSilu:
            Muls(first, x, 1.0f, count);
            break;
        default:
            return;
    }
    vector_barrier();
    detail::times_sigmoid(x, first, second, count);
}

}  // namespace moe_jit::ascend
