// Top-k routing on the CPU.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "moe_jit/core/numeric.h"
#include "moe_jit/cpu/group_list.h"
#include "moe_jit/routing/grouping.h"
#include "moe_jit/routing/policies.h"

namespace moe_jit::cpu {

// A float tensor stored as fp32 or bf16; `data` may be null.
struct FloatView {
    const void* data = nullptr;
    bool bf16 = false;

    float operator[](int64_t i) const {
        return bf16 ? bf16_to_float(static_cast<const uint16_t*>(data)[i])
                    : static_cast<const float*>(data)[i];
    }
};

struct RouteArgs {
    FloatView logits;                      // [num_tokens, num_experts]; null when pre-routed
    FloatView bias;                        // [num_experts] or null (zeros)
    const int32_t* ids_in = nullptr;       // pre-routed: [num_tokens, top_k]
    const uint16_t* weights_in = nullptr;  // pre-routed: [num_tokens, top_k] bf16
    int64_t num_tokens;
    int num_experts;
    int top_k;
    int n_group;
    int topk_group;
    routing::WeightRule rule;
    int32_t* ids;       // out [num_tokens, top_k]: global ids, -1 = ignored
    uint16_t* weights;  // out [num_tokens, top_k] bf16
};

namespace detail {

// Sorts descending by key, then ascending by index.
inline uint64_t ranked(uint32_t key, int index) {
    return (uint64_t{key} << 32) | (0xffffffffu - static_cast<uint32_t>(index));
}
inline int ranked_index(uint64_t entry) {
    return static_cast<int>(0xffffffffu - static_cast<uint32_t>(entry));
}

inline void take_largest(std::vector<uint64_t>& entries, int count) {
    std::partial_sort(entries.begin(), entries.begin() + count, entries.end(), std::greater<uint64_t>());
}

inline routing::RowStats row_stats(const FloatView& logits, int64_t first, int count) {
    routing::RowStats stats{logits[first], 0.0f};
    for (int e = 1; e < count; ++e) stats.max = std::fmax(stats.max, logits[first + e]);
    for (int e = 0; e < count; ++e) stats.sum += std::exp(logits[first + e] - stats.max);
    return stats;
}

// Leaves only the winner of each lane (see routing::detail::LaneScanScore).
template <class Score>
void scan_lanes(std::vector<uint32_t>& keys, Score score) {
    const int count = static_cast<int>(keys.size());
    for (int lane = 0; lane < std::min(routing::kScanLanes, count); ++lane) {
        int best = lane;
        for (int e = lane + routing::kScanLanes; e < count; e += routing::kScanLanes) {
            keys[score(e) > score(best) ? std::exchange(best, e) : e] = routing::kEmptyKey;
        }
    }
}

// Experts outside the topk_group best groups cannot be selected.
inline void limit_to_groups(std::vector<uint32_t>& keys, int n_group, int topk_group) {
    const int group_size = static_cast<int>(keys.size()) / n_group;
    std::vector<uint64_t> groups(n_group);
    for (int g = 0; g < n_group; ++g) {
        routing::LargestTwo best;
        for (int i = 0; i < group_size; ++i) best.add(keys[g * group_size + i]);
        groups[g] = ranked(best.group_key(), g);
    }
    take_largest(groups, topk_group);
    for (int rank = topk_group; rank < n_group; ++rank) {
        const int g = ranked_index(groups[rank]);
        std::fill_n(keys.begin() + g * group_size, group_size, routing::kEmptyKey);
    }
}

template <class Policy>
void route_token(const RouteArgs& args, int64_t token) {
    const int64_t first = token * args.num_experts;
    routing::RowStats stats;
    if constexpr (Policy::kNeedsRowStats) stats = row_stats(args.logits, first, args.num_experts);
    const auto score = [&](int expert) { return Policy::score(args.logits[first + expert], stats); };

    std::vector<uint32_t> keys(args.num_experts);
    for (int e = 0; e < args.num_experts; ++e) {
        const float bias = Policy::kUsesBias && args.bias.data ? args.bias[e] : 0.0f;
        keys[e] = routing::selection_key<Policy>(score(e), bias);
    }
    if constexpr (Policy::kLaneScan) scan_lanes(keys, score);
    if constexpr (Policy::kHasGroups) {
        if (args.n_group > 1) limit_to_groups(keys, args.n_group, args.topk_group);
    }
    std::vector<uint64_t> order(args.num_experts);
    for (int e = 0; e < args.num_experts; ++e) order[e] = ranked(keys[e], e);
    take_largest(order, args.top_k);

    const float top_score = score(ranked_index(order[0]));
    std::vector<float> weights(args.top_k);
    float sum = 0.0f;
    for (int rank = 0; rank < args.top_k; ++rank) {
        const int expert = ranked_index(order[rank]);
        args.ids[token * args.top_k + rank] = expert;
        weights[rank] = Policy::weight(score(expert), top_score);
        sum += weights[rank];
    }
    for (int rank = 0; rank < args.top_k; ++rank) {
        args.weights[token * args.top_k + rank] =
            float_to_bf16(Policy::normalize(weights[rank], sum, args.rule));
    }
}

inline void copy_token(const RouteArgs& args, int64_t token) {
    const int64_t first = token * args.top_k;
    for (int rank = 0; rank < args.top_k; ++rank) {
        const int32_t id = args.ids_in[first + rank];
        const bool repeated =
            std::find(args.ids_in + first, args.ids_in + first + rank, id) != args.ids_in + first + rank;
        args.ids[first + rank] = id < 0 || id >= args.num_experts || repeated ? -1 : id;
        args.weights[first + rank] = args.weights_in[first + rank];
    }
}

}  // namespace detail

template <class Policy>
void route(const RouteArgs& args) {
#pragma omp parallel for schedule(static)
    for (int64_t token = 0; token < args.num_tokens; ++token) {
        if constexpr (Policy::kFromLogits) {
            detail::route_token<Policy>(args, token);
        } else {
            detail::copy_token(args, token);
        }
    }
}

// Rows are the (token, rank) pairs with a local expert, sorted by expert, then by pair.
struct RowIndex {
    std::vector<int64_t> expert_offsets;  // [num_local + 1]
    std::vector<int64_t> row_to_pair;

    int num_local() const { return static_cast<int>(expert_offsets.size()) - 1; }
    int64_t num_rows() const { return static_cast<int64_t>(row_to_pair.size()); }

    std::vector<GroupRows> groups() const {
        std::vector<GroupRows> groups;
        for (int e = 0; e < num_local(); ++e) {
            if (expert_offsets[e + 1] > expert_offsets[e]) {
                groups.push_back({e, expert_offsets[e], expert_offsets[e + 1]});
            }
        }
        return groups;
    }
};

// Also writes pair_to_row[num_pairs], -1 where the expert is not local.
inline RowIndex index_rows(const int32_t* ids, int64_t num_pairs, int local_offset, int num_local,
                           int32_t* pair_to_row) {
    const auto local = [&](int64_t pair) {
        const int64_t expert = int64_t{ids[pair]} - local_offset;
        return ids[pair] >= 0 && expert >= 0 && expert < num_local ? expert : -1;
    };
    RowIndex index;
    index.expert_offsets.assign(num_local + 1, 0);
    for (int64_t pair = 0; pair < num_pairs; ++pair) {
        if (local(pair) >= 0) ++index.expert_offsets[local(pair) + 1];
    }
    for (int e = 0; e < num_local; ++e) index.expert_offsets[e + 1] += index.expert_offsets[e];
    index.row_to_pair.resize(index.expert_offsets.back());
    std::vector<int64_t> next(index.expert_offsets.begin(), index.expert_offsets.end() - 1);
    for (int64_t pair = 0; pair < num_pairs; ++pair) {
        pair_to_row[pair] = -1;
        if (local(pair) < 0) continue;
        const int64_t row = next[local(pair)]++;
        pair_to_row[pair] = static_cast<int32_t>(row);
        index.row_to_pair[row] = pair;
    }
    return index;
}

}  // namespace moe_jit::cpu
