// Sums of weighed fp32 rows by destination, in ascending order of the rows.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "moe_jit/core/element.h"
#include "moe_jit/cuda/group_list.h"

namespace moe_jit::cuda {

// y[t] = shared[t] + term(r1) + term(r2) + ..., with r1 < r2 < ... the rows of groups whose index is t, and
//   term(r) = rows[r] * (logit[r] * token_scale[r]) + bias[group of r] * logit[r],
// every operation rounded. Null parameters are left out. Rows with an index outside [0, out_rows) are not
// read; what the others hold may be lost.
struct OrderedSumArgs {
    const float* rows;      // [groups.num_rows, n]
    const void* row_index;  // [groups.num_rows]
    Element index_element;  // kI32 or kI64
    GroupList groups;
    int n;                     // multiple of 4
    bool discards;             // rows that have been read, see row_cache.h
    const float* token_scale;  // [groups.num_rows]
    const float* logit;        // [groups.num_rows]
    const uint16_t* bias;      // [groups, n] bf16
    const void* shared;        // [shared_rows, n]
    Element shared_element;
    float shared_weight;
    int64_t shared_begin, shared_rows;  // the rows of y that it counts in
    float* y;                           // [out_rows, n]
    int64_t out_rows;
    int32_t* index;  // ordered_sum_index_ints(...) ints, or null if that is 0
};

// Scratch memory; 0 where rows are few enough to be looked for.
int64_t ordered_sum_index_ints(int64_t num_rows, int64_t out_rows);

cudaError_t launch_ordered_sum(const OrderedSumArgs& args, cudaStream_t stream);

}  // namespace moe_jit::cuda
