// A group list on the device.
#pragma once

#include <cstdint>

namespace moe_jit::cuda {

// `values` as moe_jit::ffi::GroupedMatmulCall says; nullptr: one group of all rows.
struct GroupList {
    const int64_t* values;
    int num_groups;
    int type;  // GroupListType
    int64_t num_rows;
    int num_experts;
};

}  // namespace moe_jit::cuda
