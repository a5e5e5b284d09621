// How many parts of K a tile is cut into when there are few tiles: CTAs should get equal shares of the bytes.
#pragma once

#include <algorithm>
#include <cstdint>

namespace moe_jit {

constexpr int kMaxKParts = 4;
// Four parts for each of 132 SMs.
constexpr int64_t kWantedParts = 528;
// Shorter parts cost more than they balance.
constexpr int64_t kLeastStages = 8;

// 1, 2 or 4.
constexpr int k_parts(int64_t tiles, int64_t stages) {
    int parts = 1;
    while (parts < kMaxKParts && tiles * parts < kWantedParts && stages >= 2 * parts * kLeastStages)
        parts *= 2;
    return parts;
}

// Experts that get rows under uniform routing, rounded up; at most all.
constexpr int64_t expected_experts(int64_t pairs, int64_t num_experts, int64_t num_local) {
    return std::min(num_local, (pairs * num_local + num_experts - 1) / num_experts);
}

// GEMM2 at one token: Llama4-Maverick, whose tiles have 128 rows and 128 of K per stage; Mixtral, Qwen3-235B
// and DeepSeek-V3 with 64 rows and 256 of K.
static_assert(k_parts(40, 64) == 4 && k_parts(128, 56) == 4 && k_parts(512, 6) == 1 && k_parts(896, 8) == 1);

}  // namespace moe_jit
