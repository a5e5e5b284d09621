// A group list on the device.
#pragma once

#include <cstdint>

namespace moe_jit::cuda {

// Numbers of the `group_list_type` parameter.
enum class GroupListType : int { kCumulative = 0, kCounts = 1, kSparse = 2 };

// `values` as moe_jit::ffi::GroupedMatmulCall says; nullptr: one group of all rows.
struct GroupList {
    const int64_t* values;
    int num_groups;
    int type;  // GroupListType
    int64_t num_rows;
    int num_experts;
};

}  // namespace moe_jit::cuda
