// What the host tells a kernel: plain structs in global memory, little endian, the same as those of
// python/moe_jit/ascend/tiling.py.
#pragma once

#include <stdint.h>

namespace moe_jit::ascend {

// Memory layout of an expert's weight.
enum class WeightLayout : int32_t {
    kRows = 0,              // [k, n]
    kTransposed = 1,        // [n, k]
    kBlocked = 2,           // FRACTAL_NZ of [k, n]: [n / c0, k up to 16, c0], c0 = 32 bytes
    kBlockedTransposed = 3  // FRACTAL_NZ of [n, k]
};

struct GroupListTiling {
    int32_t num_groups;   // entries of the list; 0: no list, all rows belong to expert 0
    int32_t type;         // GroupListType
    int32_t num_experts;  // rows of the parameter tables
    int32_t only_group;   // handle this entry only and call it expert 0; -1: all
};

// Matrix product of groups of rows.
struct MatmulTiling {
    int32_t rows, k, n;
    int32_t weight_layout;                // WeightLayout
    int32_t base_m, base_n;               // output tile of a core
    int32_t l1_k, l0_k;                   // depth of a tile in L1 and in L0
    int32_t stages;                       // slots of the ring between cube and vector cores
    int32_t chunk_k;                      // depth of a converted weight tile
    int32_t segments;                     // parts of k with scales of their own
    int32_t zero_tail;                    // whether rows of no group are written (as zeros)
    int32_t act_type;                     // moe_jit::PointwiseType
    int32_t scale_is_bf16, bias_is_bf16;  // otherwise fp32 (bias: int32 with int8 operands)
    int32_t pieces;                       // int8 x int4: int4 rows of a row of x, 2 with bias, 3 without;
                                          // 0: the weights become int8
    GroupListTiling groups;
};

struct FinalizeTiling {
    MatmulTiling matmul;
    int32_t output_rows;
    int32_t shared_rows, shared_offset;  // rows of shared_input and the first one of the output
    int32_t shared_format;               // 0 fp32, 1 fp16, 2 bf16
    float shared_weight;
    int32_t row_index_is_int64;
    int32_t combine_columns;  // columns of the output that are accumulated at a time
    int32_t slab_columns;     // int8: columns that are summed while the next ones are multiplied
};

struct DequantSwigluQuantTiling {
    int32_t rows, half;           // x is [rows, 2 * half]
    int32_t batch_rows, columns;  // rows and columns (of half) in the local memory at a time
    int32_t bias_format;          // 0 fp32, 1 fp16, 2 bf16, 3 int32
    int32_t bias_rows;            // 1: shared by all groups
    int32_t quant_is_scalar;      // one quant_scale and quant_offset for a group
    int32_t activate_left, dynamic, divide_by_scale;
    int32_t swiglu_mode;  // moe_jit::GluMode
    float clamp_limit, glu_alpha, glu_bias;
    int32_t is_grouped, reserved;
    GroupListTiling groups;
};

static_assert(sizeof(GroupListTiling) == 16 && sizeof(MatmulTiling) == 80, "layout of tiling.py");
static_assert(sizeof(FinalizeTiling) == 112 && sizeof(DequantSwigluQuantTiling) == 80, "layout of tiling.py");

}  // namespace moe_jit::ascend
