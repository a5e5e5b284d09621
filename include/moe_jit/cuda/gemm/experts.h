// Launch interface of the expert GEMMs: GEMM1 + activation + requantisation and GEMM2 in one launch.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "moe_jit/core/layout.h"
#include "moe_jit/cuda/row_list.h"

namespace moe_jit::cuda {

struct ExpertsArgs {
    const uint8_t* hidden_states;  // [tokens, hidden_size] e4m3
    const uint8_t* gemm1_weights;  // [num_local, intermediate_size or twice that, hidden_size] e4m3
    const uint8_t* gemm2_weights;  // [num_local, hidden_size, intermediate_size] e4m3
    const float* linear_scale;     // [num_local]
    const float* gate_scale;       // [num_local]
    const float* output_scale;     // [num_local]
    WeightLayout layout;
    int num_tokens, hidden_size, intermediate_size, num_local, top_k;
    int64_t num_experts_hit;  // expected
    int64_t max_rows;         // upper bound of the expert-sorted rows
    bool from_both_ends;      // tiles are claimed from the first and the last expert in turn
    int prefetched_stages;    // weights that come before routing; only where nearly all experts have rows

    const int32_t* row_to_pair;     // [rows]
    const int32_t* expert_offsets;  // [num_local + 1]
    const int32_t* tile_offsets;    // [num_local + 1], for tiles of expert_tile_tokens()
    int32_t* counters;              // [expert_counters()], zero
    const ListedRow* list;          // see row_list.h; nullptr: the offsets above are complete
    bool awaits_values;             // intermediate holds kUnwritten once routing has ended
    const uint16_t* row_weights;    // bf16 per pair, multiplied into GEMM1's accumulators; nullptr: none

    uint8_t* intermediate;  // [rows, intermediate_size] e4m3
    uint16_t* rows;         // [rows, hidden_size] bf16
    float* row_parts;       // [k_parts, max_rows, hidden_size], instead of rows; nullptr: K is not cut
    int k_parts;
    bool rows_stay;  // in the L2 cache until they are read, see row_cache.h
    int num_sms;
    bool pdl;
};

int compiled_activation_type();
// Width of a token tile: expert e has ceil(rows of e / width) of them.
int expert_tile_tokens();
// Parts of K of GEMM2's tiles; 1: whole tiles.
int expert_k_parts(int64_t num_experts_hit, int64_t hidden_size, int64_t intermediate_size);
// Whether the kernel takes its work from a list, where the tokens fit in one.
bool experts_read_list();
// Counters that must be zero before the launch, given an upper bound of the number of rows.
int64_t expert_counters(int64_t max_rows, int num_local);
cudaError_t launch_experts(const ExpertsArgs& args, cudaStream_t stream);

}  // namespace moe_jit::cuda
