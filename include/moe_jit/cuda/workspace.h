// Scratch memory of one call, carved from a single allocation.
#pragma once

#include <algorithm>
#include <cstdint>

#include "moe_jit/core/k_parts.h"
#include "moe_jit/cuda/gemm/experts.h"
#include "moe_jit/cuda/launch.h"

namespace moe_jit::cuda {

struct LayerShape {
    int64_t num_tokens, num_experts, num_local, top_k, hidden_size, intermediate_size;
    bool do_finalize;

    int64_t pairs() const { return num_tokens * top_k; }
    // A token reaches a local expert at most once.
    int64_t max_rows() const { return num_tokens * std::min(top_k, num_local); }
    int64_t experts_hit() const { return expected_experts(pairs(), num_experts, num_local); }
};

struct Workspace {
    int32_t *topk_ids, *row_to_pair, *expert_offsets, *tile_offsets, *counters, *route_scratch;
    uint8_t* intermediate;
    uint16_t* rows;    // only when do_finalize and K is not cut
    float* row_parts;  // only when K is cut
    int k_parts;
    int64_t num_counters;  // with the list
    ListedRow* list;       // behind the counters; nullptr: no list
    int64_t bytes;

    Workspace(const LayerShape& s, uint8_t* base) {
        bytes = 0;
        num_counters = expert_counters(s.max_rows(), static_cast<int>(s.num_local));
        const bool listed = experts_read_list() && fits_in_list(s.num_tokens, s.pairs());
        const int64_t list_at = (num_counters + 1) / 2 * 2;
        if (listed) num_counters = list_at + 2 * kListedRows;
        carve(base, topk_ids, s.pairs());
        carve(base, row_to_pair, s.pairs());
        carve(base, expert_offsets, s.num_local + 1);
        carve(base, tile_offsets, s.num_local + 1);
        carve(base, counters, num_counters);
        list = listed ? reinterpret_cast<ListedRow*>(counters + list_at) : nullptr;
        carve(base, route_scratch,
              static_cast<int64_t>(
                  route_scratch_ints(static_cast<int>(s.num_tokens), static_cast<int>(s.num_experts))));
        carve(base, intermediate, s.max_rows() * s.intermediate_size);
        const int64_t row_elements = s.max_rows() * s.hidden_size;
        k_parts = expert_k_parts(s.experts_hit(), s.hidden_size, s.intermediate_size);
        carve(base, rows, s.do_finalize && k_parts == 1 ? row_elements : 0);
        carve(base, row_parts, k_parts > 1 ? k_parts * row_elements : 0);
    }

  private:
    template <class T>
    void carve(uint8_t* base, T*& pointer, int64_t count) {
        constexpr int64_t kAlignment = 256;
        pointer = reinterpret_cast<T*>(base + bytes);
        bytes += (count * static_cast<int64_t>(sizeof(T)) + kAlignment - 1) / kAlignment * kAlignment;
    }
};

}  // namespace moe_jit::cuda
