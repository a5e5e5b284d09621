// What the translation units of a tensor-core grouped_matmul module call each other with.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "moe_jit/core/element.h"

namespace moe_jit::cuda {

// Parameters [experts, columns], or [experts, groups of k, columns]; null: not given.
struct ChannelTable {
    const void* data;
    Element element;
};

// Rows sorted by group times [experts, k, n] weights in the layout that the module is compiled for.
struct ProductArgs {
    const void* x;  // rows of x_pitch bytes, which start at multiples of 16 bytes
    int64_t x_pitch;
    int64_t rows;
    int64_t k, n;              // elements
    const void* weight;        // at a multiple of 16 bytes, as are experts and rows
    int64_t expert_bytes;      // from one place where weights of an expert may begin to the next
    int64_t expert_places;     // such places
    const int32_t* weight_at;  // [experts] the places that they do begin at; nullptr: 0, 1, ...
    int64_t depth_stored;      // blocked weights: k with padding
    ChannelTable bias, scale, offset, antiquant_scale, antiquant_offset;
    int segments;              // groups of k
    const float* token_scale;  // [rows]
    const int32_t* row_sums;   // [rows] of x, with an offset
    void* y;                   // [rows, n]
    const int64_t* y_shift;    // [experts] elements to each group's results from their place in y; nullptr: 0

    int num_groups;
    const int32_t* row_offsets;   // [num_groups + 1]
    const int32_t* tile_offsets;  // [num_groups + 1], for tiles of product_tile_tokens()
    const int32_t* expert_ids;    // [num_groups]; nullptr: group i has expert i
    int32_t* counters;            // [1], zero
    int num_sms;
    bool pdl;
};

// A [k, n] weight in pieces, one for each group.
struct DepthSlices {
    static constexpr int kMaxSlices = 128;
    const char* data[kMaxSlices];
    int32_t depth[kMaxSlices];  // elements of K
    int count;
};

// Groups of K: y[g] = x[:, of g] * weight[of g, :], where memory holds x as [k, group_tokens] and y as
// [num_groups * group_tokens, n]. The launch writes what is not const.
struct DepthProductArgs : ProductArgs {
    int group_tokens;
    const int64_t* group_list;
    int group_list_type;
    const DepthSlices* slices;       // weights of their own for each group; nullptr: rows of `weight`
    void *weight_maps, *token_maps;  // [num_groups] CUtensorMap
    int32_t* depths;                 // [num_groups] elements of K
    int32_t *row_ends, *tile_ends;   // row_offsets and tile_offsets
};

// Width of a token tile: a group has ceil(rows / width) of them.
int product_tile_tokens();
cudaError_t launch_product(const ProductArgs& args, cudaStream_t stream);

cudaError_t launch_depth_product(const DepthProductArgs& args, cudaStream_t stream);

// From a group list to the tiles of a product. Also zeroes what the product does not write: rows of no group.
struct GroupScheduleArgs {
    const int64_t* group_list;
    int group_list_type;
    int num_groups;
    int num_experts;
    int64_t num_rows;
    int tile_tokens;
    int32_t* row_offsets;
    int32_t* tile_offsets;
    int32_t* expert_ids;  // or nullptr
    int32_t* counters;
    void* y;
    int64_t row_bytes;
    int num_sms;
};

cudaError_t launch_group_schedule(const GroupScheduleArgs& args, cudaStream_t stream);

}  // namespace moe_jit::cuda
