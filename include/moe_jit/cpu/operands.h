// Activations and weights of a grouped product as the dot products take them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "moe_jit/core/weight_view.h"
#include "moe_jit/cpu/grouped_gemm.h"

namespace moe_jit::cpu {

// Decoded activation rows.
template <class Value>
struct Rows {
    Buffer<Value> values;
    std::vector<const Value*> pointers;
};

// load(row, k) reads one element.
template <class Value, class Load>
Rows<Value> decode_rows(int64_t num_rows, const Depth& depth, const Load& load) {
    Rows<Value> rows{make_buffer<Value>(num_rows * depth.decoded_size()),
                     std::vector<const Value*>(num_rows)};
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < num_rows; ++row) {
        Value* out = rows.values.get() + row * depth.decoded_size();
        rows.pointers[row] = out;
        for (int64_t segment = 0; segment < depth.segments; ++segment, out += depth.stride()) {
            for (int64_t i = 0; i < depth.length; ++i) out[i] = load(row, segment * depth.length + i);
            std::fill(out + depth.length, out + depth.stride(), Value{});
        }
    }
    return rows;
}

// Weight columns first, first + 1, ..., one after the other. load(offset, k, column) reads one element.
template <class Value, class Load>
void decode_columns(const WeightView& view, const Depth& depth, int64_t first, int count, Value* out,
                    const Load& load) {
    const int64_t size = depth.decoded_size();
    if (depth.length != depth.stride()) std::fill(out, out + count * size, Value{});
    int64_t offsets[detail::kColumnBlock];
    for (int c = 0; c < count; ++c) offsets[c] = view.n_offset(first + c);
    for (int64_t segment = 0; segment < depth.segments; ++segment) {
        for (int64_t i = 0; i < depth.length; ++i) {
            const int64_t k = segment * depth.length + i;
            const int64_t base = view.k_offset(k);
            Value* target = out + segment * depth.stride() + i;
            for (int c = 0; c < count; ++c) target[c * size] = load(base + offsets[c], k, first + c);
        }
    }
}

}  // namespace moe_jit::cpu
