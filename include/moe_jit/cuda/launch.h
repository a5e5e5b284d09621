// What the CUDA translation units of one module call each other with. Plain structs: no CUTLASS, no tvm-ffi.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "moe_jit/cuda/row_list.h"

namespace moe_jit::cuda {

// Top-k routing and the index lists of the grouped GEMMs. "Row" numbers the (token, rank) pairs whose expert
// is local, sorted by expert, then by pair. bf16 values are raw bits.
struct RouteArgs {
    // From logits [num_tokens, num_experts]; bias [num_experts] or nullptr (zeros).
    const void* logits;
    bool logits_bf16;
    const void* bias;
    bool bias_bf16;
    // Pre-routed (logits == nullptr): [num_tokens, top_k]. Ids outside [0, num_experts) and repeats within a
    // token are ignored.
    const int32_t* ids_in;
    const uint16_t* weights_in;

    int num_tokens;
    int num_experts;
    int top_k;
    int n_group;
    int topk_group;
    float scaling_factor;
    bool norm_topk_prob;
    int local_offset;
    int num_local;
    int tile_tokens;  // token tile width that tile_offsets counts in

    int16_t* replay;          // [num_tokens, top_k] global ids, or nullptr
    int32_t* topk_ids;        // [num_tokens, top_k] global ids, -1 = ignored
    uint16_t* topk_weights;   // [num_tokens, top_k] bf16
    int32_t* pair_to_row;     // [num_tokens * top_k], -1 = expert not local
    int32_t* row_to_pair;     // [num_tokens * top_k], only the live rows are written
    int32_t* expert_offsets;  // [num_local + 1] prefix of rows
    int32_t* tile_offsets;    // [num_local + 1] prefix of ceil(rows / tile_tokens)
    int32_t* counters;        // [num_counters], zeroed
    int num_counters;
    uint4* awaited;         // GEMM1's rows if GEMM2 waits for their values, else nullptr
    int64_t awaited_bytes;  // multiple of 16
    ListedRow* list;        // [kListedRows], zeroed, then written, of few tokens; nullptr: no list
    int32_t* block_counts;  // scratch of route_scratch_ints(...) ints
    bool pdl;
};

int compiled_routing_method();
size_t route_scratch_ints(int num_tokens, int num_experts);
cudaError_t launch_route(const RouteArgs& args, cudaStream_t stream);

// out[t, :] = bf16(sum over ranks, in order, of weight * row); pairs with row -1 contribute nothing. A row in
// parts is their sum in fp32, rounded to bf16.
struct FinalizeArgs {
    const uint16_t* rows;    // [*, hidden_size] bf16
    const float* row_parts;  // [k_parts, max_rows, hidden_size]: rows before rounding; nullptr: rows
    int k_parts;
    bool discards;       // rows that have been read, see row_cache.h; not parts
    bool routing_ended;  // before this kernel starts: indices and weights are there before the rows
    int64_t max_rows;
    const int32_t* pair_to_row;  // [num_tokens * top_k]; nullptr, only of rows in parts: pair p has row p
    const uint16_t* weights;     // [num_tokens, top_k] bf16; nullptr: plain sum
    uint16_t* out;               // [num_tokens, hidden_size] bf16
    int num_tokens;
    int top_k;
    int hidden_size;  // multiple of 16
    bool pdl;
};

cudaError_t launch_finalize(const FinalizeArgs& args, cudaStream_t stream);

}  // namespace moe_jit::cuda
