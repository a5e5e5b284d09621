// Group-limited selection of one token by one warp, for any number of groups of at least two experts.
#pragma once

#include <cstdint>

#include "moe_jit/core/platform.h"
#include "moe_jit/routing/grouping.h"

namespace moe_jit::cuda::route {

constexpr unsigned kAllLanes = 0xffffffffu;

// Where an expert's key lies in shared memory. The padding (odd, so that the experts of one lane are in
// different banks) also separates the lanes that read groups of 32.
MOE_JIT_HD MOE_JIT_INLINE constexpr int key_slot(int expert) { return expert + (expert >> 5) * 5; }

// Shared memory of one warp: keys, then group keys.
template <int kMaxExperts>
MOE_JIT_HD MOE_JIT_INLINE constexpr int scratch_words(int n_group) {
    return key_slot(kMaxExperts) + n_group;
}

// keys[j] is that of expert lane + 32 * j.
template <int kKeys>
__device__ __forceinline__ void store_keys(const uint32_t (&keys)[kKeys], int lane, uint32_t* key_slots) {
#pragma unroll
    for (int j = 0; j < kKeys; ++j) key_slots[key_slot(lane + 32 * j)] = keys[j];
}

// expert / group_size without a division: exact for expert < 2048 and 2 <= group_size <= 1024.
struct GroupOf {
    unsigned reciprocal;
    __device__ explicit GroupOf(int group_size) : reciprocal(((1u << 22) + group_size - 1) / group_size) {}
    __device__ int operator()(int expert) const { return static_cast<int>((expert * reciprocal) >> 22); }
};

// Keys of all groups; each group is reduced by a power of two of neighbouring lanes.
__device__ __forceinline__ void reduce_groups(const uint32_t* keys, int group_size, int n_group, int lane,
                                              uint32_t* group_keys) {
    const int lanes_per_group = n_group >= 32 ? 1 : 1 << (31 - __clz(32 / n_group));
    const int groups_per_pass = 32 / lanes_per_group;
    const int lane_in_group = lane % lanes_per_group;
    for (int first = 0; first < n_group; first += groups_per_pass) {
        const int group = first + lane / lanes_per_group;
        routing::LargestTwo best;
        if (group < n_group) {
            for (int i = lane_in_group; i < group_size; i += lanes_per_group) {
                best.add(keys[key_slot(group * group_size + i)]);
            }
        }
        for (int offset = lanes_per_group / 2; offset > 0; offset /= 2) {
            routing::LargestTwo other;
            other.first = __shfl_xor_sync(kAllLanes, best.first, offset);
            other.second = __shfl_xor_sync(kAllLanes, best.second, offset);
            best.merge(other);
        }
        if (group < n_group && lane_in_group == 0) group_keys[group] = best.group_key();
    }
}

// Bit i of lane l: whether group l + 32 * i is among the topk_group best.
__device__ __forceinline__ uint32_t kept_groups(const uint32_t* group_keys, int n_group, int topk_group,
                                                int lane) {
    uint32_t kept = 0;
    for (int group = lane; group < n_group; group += 32) {
        const uint32_t key = group_keys[group];
        int better = 0;
        for (int other = 0; other < n_group; ++other) {
            better += routing::ranks_before(group_keys[other], other, key, group);
        }
        kept |= static_cast<uint32_t>(better < topk_group) << (group / 32);
    }
    return kept;
}

// Empties the keys, in registers and in shared memory, of all groups but the topk_group best.
template <int kKeys>
__device__ __forceinline__ void limit_to_groups(int num_experts, int n_group, int topk_group, int lane,
                                                uint32_t* key_slots, uint32_t* group_keys,
                                                uint32_t (&keys)[kKeys]) {
    const int group_size = num_experts / n_group;
    reduce_groups(key_slots, group_size, n_group, lane, group_keys);
    __syncwarp();
    const uint32_t kept = kept_groups(group_keys, n_group, topk_group, lane);
    const GroupOf group_of(group_size);
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
        const int group = group_of(lane + 32 * j);
        const uint32_t bits = __shfl_sync(kAllLanes, kept, group & 31);
        keys[j] = (bits >> (group >> 5)) & 1u ? keys[j] : routing::kEmptyKey;
    }
    store_keys(keys, lane, key_slots);
    __syncwarp();
}

}  // namespace moe_jit::cuda::route
