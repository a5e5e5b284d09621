// The arguments of "grouped_matmul", the same for CPU and CUDA modules.
#pragma once

#include <tvm/ffi/container/array.h>

#include "moe_jit/ffi/arguments.h"

namespace moe_jit::ffi {

using Tensors = tvm::ffi::Array<tvm::ffi::Tensor>;

// Numbers of the `group_type` parameter.
enum class GroupType : int { kNone = -1, kRows = 0, kDepth = 2 };

// Which operands a product has; they decide how it accumulates and what its epilogue is.
enum class ProductKind : int {
    kFloat = 0,      // both fp16, bf16 or fp32
    kAntiquant = 1,  // 16-bit activations, int8 or int4 weights that become 16-bit
    kInt8 = 2,       // int8 x int8
    kInt8Int4 = 3,   // int8 x int4
    kInt4 = 4,       // int4 x int4
};

// Lists have one element, or one for each group. A matrix [k, n] of a weight may be blocked, [n1, k1, 16,
// n0], and may be a transposed view; of int4 weights and activations, eight of the contiguous dimension make
// one int32. Parameters of a weight are contiguous and have one leading dimension, experts, if the weight is
// one tensor.
struct GroupedMatmulCall {
    Tensors x;                 // [rows, k]; contiguous rows unless group_type is kDepth
    Tensors weight;            // one [experts, k, n], or [k, n] each
    Optional<Tensors> bias;    // [n]
    Optional<Tensors> scale;   // [n] bf16 or fp32; int64 requantisation parameters; [G, n] int64 fp32 bits
    Optional<Tensors> offset;  // [n] fp32; kInt8Int4 only
    Optional<Tensors> antiquant_scale;     // [n] or [G, n]
    Optional<Tensors> antiquant_offset;    // [n] or [G, n]
    Optional<TensorView> per_token_scale;  // [rows] fp32
    Optional<TensorView> group_list;       // int64, as group_list_type says; None without groups
    Tensors y;                             // written completely; rows of no group are zero
    int64_t kind;                          // ProductKind
    int64_t group_type;                    // GroupType
    int64_t group_list_type;               // 0 cumulative, 1 counts, 2 (expert, count) pairs
    int64_t act_type;                      // moe_jit::PointwiseType
    bool packed_k;                         // int4 weights are packed along k (transposed views) instead of n
};

inline GroupedMatmulCall read_grouped_matmul_call(const TVMFFIAny* args, int32_t count) {
    ArgumentReader next(args, count);
    GroupedMatmulCall call{next, next, next, next, next, next, next, next,
                           next, next, next, next, next, next, next};
    next.expect_end();
    return call;
}

}  // namespace moe_jit::ffi
