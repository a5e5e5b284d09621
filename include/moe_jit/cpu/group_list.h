// Group lists on the CPU: which rows belong to which group.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "moe_jit/core/operator_modes.h"

namespace moe_jit::cpu {

// A run of consecutive rows; `expert` selects weights and parameters.
struct GroupRows {
    int64_t expert;
    int64_t begin;
    int64_t end;

    int64_t count() const { return end - begin; }
};

// Groups with rows, in row order. Counts that are negative or that exceed num_rows are cut. kSparse: `list`
// holds num_groups pairs (expert, count), and ends at the first that is empty or names no expert.
inline std::vector<GroupRows> decode_groups(const int64_t* list, int64_t num_groups, GroupListType type,
                                            int64_t num_rows, int64_t num_experts) {
    std::vector<GroupRows> groups;
    int64_t begin = 0;
    for (int64_t g = 0; g < num_groups; ++g) {
        int64_t expert = g, end = 0;
        switch (type) {
            case GroupListType::kCumulative:
                end = list[g];
                break;
            case GroupListType::kCounts:
                end = begin + std::min(std::max<int64_t>(list[g], 0), num_rows);
                break;
            case GroupListType::kSparse:
                expert = list[2 * g];
                if (list[2 * g + 1] <= 0 || expert < 0 || expert >= num_experts) return groups;
                end = begin + std::min(list[2 * g + 1], num_rows);
                break;
        }
        end = std::min(std::max(end, begin), num_rows);
        if (end > begin) groups.push_back({expert, begin, end});
        begin = end;
    }
    return groups;
}

}  // namespace moe_jit::cpu
