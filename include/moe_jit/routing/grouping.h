// Group-limited selection: a group's score is the sum of its two largest selection values; the topk_group
// best groups (ties to the lower index) stay, experts of the others cannot be selected.
#pragma once

#include <cstdint>

#include "moe_jit/core/platform.h"
#include "moe_jit/routing/order_key.h"

namespace moe_jit::routing {

struct LargestTwo {
    uint32_t first = kEmptyKey;
    uint32_t second = kEmptyKey;

    MOE_JIT_HD MOE_JIT_INLINE void add(uint32_t key) {
        const uint32_t lower = key < first ? key : first;
        first = key < first ? first : key;
        second = lower < second ? second : lower;
    }

    MOE_JIT_HD MOE_JIT_INLINE void merge(LargestTwo other) {
        add(other.first);
        add(other.second);
    }

    // Order key of the group's score; needs at least two members.
    MOE_JIT_HD MOE_JIT_INLINE uint32_t group_key() const {
        return order_key_canonical_nan(order_key_value(first) + order_key_value(second));
    }
};

// Whether group `a` ranks before group `b`.
MOE_JIT_HD MOE_JIT_INLINE bool ranks_before(uint32_t key_a, int a, uint32_t key_b, int b) {
    return key_a > key_b || (key_a == key_b && a < b);
}

}  // namespace moe_jit::routing
