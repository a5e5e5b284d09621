// Arguments of the grouped product on CUDA cores: the form of npu_grouped_matmul for fp32, and for sizes and
// layouts that tensor-core tiles do not take.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "moe_jit/core/element.h"
#include "moe_jit/core/pointwise.h"

namespace moe_jit::cuda {

constexpr int kMaxTensors = 128;

// A run of consecutive rows; `expert` selects weights and parameters, kNoExpert marks rows of no group.
// first_tile counts row tiles of the ranges before this one.
struct GroupRange {
    static constexpr int kNoExpert = -1;
    int expert;
    int begin;
    int end;
    int first_tile;
};

// Behind the groups come the rows of no group, and an end mark.
constexpr int kExtraRanges = 2;

// One address for each expert: a list of tensors, or one tensor with a stride in bytes. Null: not given.
struct ExpertTable {
    const char* base[kMaxTensors];
    int64_t stride;
    bool stacked;
};

// Offsets count elements. Blocks have 2^shift elements; plain layouts are one block.
struct StoredMatrix {
    int64_t stride_k, stride_n;
    int64_t stride_block_k, stride_block_n;
    int shift_k, shift_n;
};

struct DirectArgs {
    const void* x;
    int64_t x_stride_row, x_stride_k;  // elements
    int rows;
    int k;  // of one row of x
    int n;
    StoredMatrix matrix;
    ExpertTable weight, bias, scale, offset, antiquant_scale, antiquant_offset;
    Element bias_element, scale_element, y_element;
    const float* token_scale;  // [rows]
    int segments;              // parts of k with their own scales
    PointwiseType act_type;
    void* y;  // [rows, n], or [groups, rows, n] where k is divided

    // Where the groups are: num_ranges decoded ones on the device, or the single range `only`.
    GroupRange* ranges;
    int num_ranges;
    GroupRange only;
    bool split_k;     // groups divide k instead of rows
    int first_range;  // split_k: the first group of this launch, which has grid_groups of them
    int grid_groups;
    bool weight_is_slice;  // split_k: a weight starts with its group's first k
    int slice_depth;       // split_k: and has so many
};

// Rows of a tile.
constexpr int kDirectTileRows = 64;

// Decodes a group list into num_groups + kExtraRanges ranges, which divide [0, total).
cudaError_t launch_ranges(const int64_t* list, int num_groups, int group_list_type, int64_t total,
                          int num_experts, GroupRange* ranges, cudaStream_t stream);

cudaError_t launch_direct(const DirectArgs& args, cudaStream_t stream);

}  // namespace moe_jit::cuda
