// Top-k of one token by one warp. Expert e belongs to lane e % 32.
#pragma once

#include <cstdint>
#include <type_traits>

#include "moe_jit/core/numeric.h"
#include "moe_jit/cuda/launch.h"
#include "moe_jit/cuda/route/group_limit.cuh"
#include "moe_jit/routing/policies.h"

namespace moe_jit::cuda::route {

template <class Policy>
MOE_JIT_HD MOE_JIT_INLINE int num_groups(const RouteArgs& args) {
    if constexpr (Policy::kFromLogits) return Policy::kHasGroups && args.n_group > 1 ? args.n_group : 0;
    return 0;
}

// Result of one token; lane r < top_k holds rank r.
struct Choice {
    int expert;       // global id, -1 = ignored
    uint16_t weight;  // bf16
};

__device__ __forceinline__ float load_float(const void* data, bool bf16, size_t index) {
    return bf16 ? bf16_to_float(static_cast<const uint16_t*>(data)[index])
                : static_cast<const float*>(data)[index];
}

// One batch of independent loads; lanes past `count` get `fill`.
template <int kKeys>
__device__ __forceinline__ void load_strided(const void* data, bool bf16, size_t first, int count, int lane,
                                             float fill, float (&values)[kKeys]) {
    if (bf16) {
        const uint16_t* source = static_cast<const uint16_t*>(data) + first;
#pragma unroll
        for (int j = 0; j < kKeys; ++j) {
            const int e = lane + 32 * j;
            values[j] = e < count ? bf16_to_float(source[e]) : fill;
        }
    } else {
        const float* source = static_cast<const float*>(data) + first;
#pragma unroll
        for (int j = 0; j < kKeys; ++j) {
            const int e = lane + 32 * j;
            values[j] = e < count ? source[e] : fill;
        }
    }
}

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
    return value;
}

// `logits` of absent experts are -inf.
template <int kKeys>
__device__ __forceinline__ routing::RowStats row_stats(const float (&logits)[kKeys], int count, int lane) {
    float max = logits[0];
#pragma unroll
    for (int j = 1; j < kKeys; ++j) max = fmaxf(max, logits[j]);
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        max = fmaxf(max, __shfl_xor_sync(kAllLanes, max, offset));
    }
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < kKeys; ++j) sum += lane + 32 * j < count ? expf(logits[j] - max) : 0.0f;
    return {max, warp_sum(sum)};
}

// Leaves only the lane's winner of a strict ">" scan from -inf (see routing::detail::LaneScanScore).
template <int kKeys>
__device__ __forceinline__ void scan_lane(const float (&scores)[kKeys], uint32_t (&keys)[kKeys]) {
    float best = scores[0];
    int winner = 0;
#pragma unroll
    for (int j = 1; j < kKeys; ++j) {
        const bool wins = scores[j] > best;
        best = wins ? scores[j] : best;
        winner = wins ? j : winner;
    }
#pragma unroll
    for (int j = 0; j < kKeys; ++j) keys[j] = j == winner ? keys[j] : routing::kEmptyKey;
}

// The keys of one token, in shared memory, with the best remaining one of each lane. Taking the largest costs
// a few warp-wide steps whatever kKeys is: the lane that loses its best gets the next one from all lanes
// together.
template <int kKeys>
class SharedCandidates {
  public:
    __device__ SharedCandidates(const uint32_t* key_slots, const uint32_t (&keys)[kKeys], int lane)
        : key_slots_(key_slots), lane_(lane), best_(keys[0]) {
#pragma unroll
        for (int j = 1; j < kKeys; ++j) {
            best_j_ = keys[j] > best_ ? j : best_j_;
            best_ = max(best_, keys[j]);
        }
    }

    // Returns the expert with the largest key, ties to the lowest expert, to all lanes.
    __device__ int take_largest() {
        const uint32_t top = __reduce_max_sync(kAllLanes, best_);
        const unsigned holders = __ballot_sync(kAllLanes, best_ == top);
        int owner = __ffs(holders) - 1;
        if ((holders & (holders - 1)) != 0) {
            const unsigned expert = best_ == top ? lane_ + 32 * best_j_ : 0xffffffffu;
            owner = static_cast<int>(__reduce_min_sync(kAllLanes, expert) % 32);
        }
        const int taken_j = __shfl_sync(kAllLanes, best_j_, owner);
        if (lane_ == owner) taken_ |= Mask{1} << best_j_;
        const Mask taken = __shfl_sync(kAllLanes, taken_, owner);
        replace_best(owner, taken);
        return owner + 32 * taken_j;
    }

  private:
    using Mask = std::conditional_t<(kKeys > 32), unsigned long long, unsigned>;

    __device__ void replace_best(int owner, Mask taken) {
        constexpr int kPasses = (kKeys + 31) / 32;
        uint32_t key[kPasses];
        uint32_t next = routing::kEmptyKey;
#pragma unroll
        for (int i = 0; i < kPasses; ++i) {
            const int j = lane_ + 32 * i;
            const bool free = j < kKeys && ((taken >> j) & 1) == 0;
            key[i] = free ? key_slots_[key_slot(owner + 32 * j)] : routing::kEmptyKey;
            next = max(next, key[i]);
        }
        next = __reduce_max_sync(kAllLanes, next);
        int next_j = 0;
#pragma unroll
        for (int i = kPasses - 1; i >= 0; --i) {
            const unsigned holders = __ballot_sync(kAllLanes, key[i] == next);
            next_j = holders != 0 ? 32 * i + __ffs(holders) - 1 : next_j;
        }
        best_ = lane_ == owner ? next : best_;
        best_j_ = lane_ == owner ? next_j : best_j_;
    }

    const uint32_t* key_slots_;
    int lane_;
    uint32_t best_;
    int best_j_ = 0;
    Mask taken_ = 0;  // of this lane's experts
};

// The same from registers: shorter for few keys and ranks.
template <int kKeys>
class RegisterCandidates {
  public:
    __device__ RegisterCandidates(const uint32_t*, const uint32_t (&keys)[kKeys], int lane) : lane_(lane) {
#pragma unroll
        for (int j = 0; j < kKeys; ++j) keys_[j] = keys[j];
    }

    __device__ int take_largest() {
        uint32_t best = keys_[0];
#pragma unroll
        for (int j = 1; j < kKeys; ++j) best = max(best, keys_[j]);
        const uint32_t top = __reduce_max_sync(kAllLanes, best);
        unsigned lowest = 0xffffffffu;
#pragma unroll
        for (int j = kKeys - 1; j >= 0; --j) lowest = keys_[j] == top ? lane_ + 32 * j : lowest;
        const unsigned expert = __reduce_min_sync(kAllLanes, lowest);
#pragma unroll
        for (int j = 0; j < kKeys; ++j) {
            keys_[j] = lane_ + 32 * j == expert ? routing::kEmptyKey : keys_[j];
        }
        return static_cast<int>(expert);
    }

  private:
    unsigned lane_;
    uint32_t keys_[kKeys];
};

template <class Policy, int kKeys>
__device__ __forceinline__ routing::RowStats load_keys(const RouteArgs& args, int token, int lane,
                                                       uint32_t (&keys)[kKeys]) {
    const int count = args.num_experts;
    float scores[kKeys];
    float bias[kKeys] = {};
    load_strided(args.logits, args.logits_bf16, static_cast<size_t>(token) * count, count, lane,
                 bits_float(0xff800000u), scores);
    if (Policy::kUsesBias && args.bias != nullptr) {
        load_strided(args.bias, args.bias_bf16, 0, count, lane, 0.0f, bias);
    }
    routing::RowStats stats;
    if constexpr (Policy::kNeedsRowStats) stats = row_stats(scores, count, lane);
#pragma unroll
    for (int j = 0; j < kKeys; ++j) {
        scores[j] = Policy::score(scores[j], stats);
        keys[j] =
            lane + 32 * j < count ? routing::selection_key<Policy>(scores[j], bias[j]) : routing::kEmptyKey;
    }
    if constexpr (Policy::kLaneScan) scan_lane(scores, keys);
    return stats;
}

template <class Policy>
__device__ __forceinline__ uint16_t selected_weight(const RouteArgs& args, int token, int lane, int expert,
                                                    routing::RowStats stats) {
    const bool selected = lane < args.top_k;
    const size_t index = static_cast<size_t>(token) * args.num_experts + (selected ? expert : 0);
    const float score = Policy::score(load_float(args.logits, args.logits_bf16, index), stats);
    const float top_score = __shfl_sync(kAllLanes, score, 0);
    const float weight = selected ? Policy::weight(score, top_score) : 0.0f;
    const float sum = warp_sum(weight);
    return float_to_bf16(Policy::normalize(weight, sum, {args.scaling_factor, args.norm_topk_prob}));
}

struct Selection {
    int expert;  // of rank `lane`
    routing::RowStats stats;
};

// `scratch`: scratch_words<kMaxExperts>(n_group) words of this warp. Keys of up to kInRegisters experts stay
// in registers.
template <class Policy, int kMaxExperts, int kInRegisters>
__device__ __forceinline__ Selection select_experts(const RouteArgs& args, int token, int lane,
                                                    uint32_t* scratch) {
    constexpr int kKeys = kMaxExperts / 32;
    constexpr bool kShared = kMaxExperts > kInRegisters;
    using Candidates = std::conditional_t<kShared, SharedCandidates<kKeys>, RegisterCandidates<kKeys>>;
    uint32_t keys[kKeys];
    const routing::RowStats stats = load_keys<Policy>(args, token, lane, keys);
    bool in_scratch = kShared;
    if constexpr (Policy::kHasGroups) in_scratch |= args.n_group > 1;
    if (in_scratch) {
        __syncwarp();  // the previous token's reads
        store_keys(keys, lane, scratch);
        __syncwarp();
    }
    if constexpr (Policy::kHasGroups) {
        if (args.n_group > 1) {
            limit_to_groups(args.num_experts, args.n_group, args.topk_group, lane, scratch,
                            scratch + key_slot(kMaxExperts), keys);
        }
    }
    Candidates candidates(scratch, keys, lane);
    int expert = -1;
#pragma unroll 1
    for (int rank = 0; rank < args.top_k; ++rank) {
        const int taken = candidates.take_largest();
        expert = lane == rank ? taken : expert;
    }
    return {expert, stats};
}

// Many warps of an SM choose: instructions count, not their latency.
constexpr int kChosenInRegisters = 128;

template <class Policy, int kMaxExperts>
__device__ __forceinline__ Choice choose_experts(const RouteArgs& args, int token, int lane,
                                                 uint32_t* scratch) {
    const Selection chosen =
        select_experts<Policy, kMaxExperts, kChosenInRegisters>(args, token, lane, scratch);
    return {chosen.expert, selected_weight<Policy>(args, token, lane, chosen.expert, chosen.stats)};
}

// Ids outside [0, num_experts) and repeats of an earlier rank are ignored.
__device__ __forceinline__ Choice read_choice(const RouteArgs& args, int token, int lane) {
    const bool present = lane < args.top_k;
    const size_t pair = static_cast<size_t>(token) * args.top_k + (present ? lane : 0);
    const int expert = args.ids_in[pair];
    const bool valid = present && expert >= 0 && expert < args.num_experts;
    const unsigned same = __match_any_sync(kAllLanes, valid ? expert : -1 - lane);
    const bool repeated = (same & ((1u << lane) - 1u)) != 0;
    return {valid && !repeated ? expert : -1, args.weights_in[pair]};
}

}  // namespace moe_jit::cuda::route
