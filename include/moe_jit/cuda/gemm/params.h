// Host-visible parameters of the grouped GEMM kernel.
#pragma once

#include <cuda.h>

#include <cstdint>

#include "moe_jit/cuda/row_list.h"

namespace moe_jit::cuda::gemm {

// Division of indices below 2^31 by a constant: the high word of a product, shifted. 0: by one.
struct Divisor {
    uint32_t inverse;  // 2^(32 + shift) / divisor, rounded up
    int shift;         // 2^shift < divisor <= 2^(shift + 1)
};

constexpr Divisor divisor(int value) {
    if (value == 1) return {0, 0};
    int shift = 0;
    while (value > 2 << shift) ++shift;
    return {static_cast<uint32_t>(((uint64_t{1} << (32 + shift)) + value - 1) / value), shift};
}

// One grouped GEMM: out[row, :] = weights[expert(row)] x tokens[row, :].
struct PhaseParams {
    int row_tiles;           // weight-row tiles per expert
    int blocks_per_box;      // step of the weight map's row-block dimension per TMA box (RowsOfK)
    int k_bytes;             // bytes of K in a token row
    int token_pitch;         // bytes between token rows
    const uint8_t* tokens;   // token rows
    const int32_t* row_ids;  // expert-sorted row -> pair index; nullptr: token rows are expert-sorted already
    Divisor pairs_per_token;   // where row ids are pairs: pair index / pairs_per_token = token row
    int k_parts;               // parts of K per tile, of tiles that split it: 1, 2 or 4
    float inverse_parts;       // 1 / (row_tiles * k_parts)
    const int32_t* weight_at;  // the last coordinate of each expert in the weight map; nullptr: its number
};

constexpr int kAllStages = 1 << 30;

// Where the work is: prefix sums over the local experts, and counters that start at zero.
struct Schedule {
    const int32_t* row_offsets;   // [num_experts + 1] expert-sorted rows
    const int32_t* tile_offsets;  // [num_experts + 1] token tiles
    int num_experts;
    const int32_t* expert_ids;  // [num_experts] whose weights; nullptr: 0, 1, ...
    int32_t* next_tile;         // tiles claimed so far
    int32_t* ready;             // per token tile: warpgroups that have stored their part of the phase before
    const ListedRow* list;      // of few tokens: the work, instead of prefix sums; nullptr: none
    bool from_both_ends;        // a phase's tiles are claimed from its first and its last one in turn
    bool awaits_values;         // rows of a phase announce themselves, see row_list.h
    int ring_stages;            // in use, of tiles for few tokens
    int claimed_ahead;          // stages before the end of a tile at which a CTA claims its next one
};

template <int kPhases_>
struct KernelParams {
    static constexpr int kPhases = kPhases_;
    CUtensorMap weights[kPhases];
    CUtensorMap tokens[kPhases];  // only of tiles that gather by TMA
    PhaseParams phase[kPhases];
    Schedule schedule;
    int prefetched_stages;  // of the likely first tiles' weights, while predecessors run
};

}  // namespace moe_jit::cuda::gemm
