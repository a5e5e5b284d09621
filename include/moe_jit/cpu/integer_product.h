// Grouped products of int8 and int4 operands on the CPU, exact within a segment of the reduction dimension.
#pragma once

#include <cstdint>
#include <vector>

#include "moe_jit/core/int4.h"
#include "moe_jit/cpu/operands.h"
#include "moe_jit/cpu/parameters.h"

namespace moe_jit::cpu {

// Columns of int8 or int4 weights; convert(weight, k, column) gives the value to multiply with.
template <class Value, class Convert>
void decode_integer_columns(const WeightView& view, bool int4, const Depth& depth, int64_t first, int count,
                            Value* out, const Convert& convert) {
    if (int4) {
        const auto* words = static_cast<const uint32_t*>(view.data);
        decode_columns(view, depth, first, count, out, [&](int64_t offset, int64_t k, int64_t n) {
            return convert(int4_at(words, offset), k, n);
        });
    } else {
        const auto* bytes = static_cast<const int8_t*>(view.data);
        decode_columns(view, depth, first, count, out, [&](int64_t offset, int64_t k, int64_t n) {
            return convert(int32_t{bytes[offset]}, k, n);
        });
    }
}

// load(row, k) reads an activation; weigh_of and emit are those of grouped_gemm.
template <class Total, class Load, class WeighOf, class Emit>
void integer_product(const std::vector<GroupRows>& groups, int64_t num_rows, int64_t num_columns,
                     const Depth& depth, const WeightTable& weights, const Load& load,
                     const WeighOf& weigh_of, const Emit& emit) {
    const Rows<int16_t> rows = decode_rows<int16_t>(num_rows, depth, load);
    grouped_gemm<IntegerDomain, Total>(
        groups, num_columns, depth, rows.pointers,
        [&](int64_t expert, int64_t first, int count, int16_t* out) {
            decode_integer_columns(
                weights.view(expert), weights.is_int4(), depth, first, count, out,
                [](int32_t weight, int64_t, int64_t) { return static_cast<int16_t>(weight); });
        },
        weigh_of, emit);
}

// Reads int8 rows, minus `shift`.
struct Int8Loader {
    const std::vector<const char*>& rows;
    int shift = 0;

    int16_t operator()(int64_t row, int64_t k) const {
        return static_cast<int16_t>(reinterpret_cast<const int8_t*>(rows[row])[k] - shift);
    }
};

// Against int4 weights the bias is meant to hold eight times the weights' sum, and x loses eight; without a
// bias nothing is subtracted.
inline int int4_weight_shift(const FloatTable& bias) { return bias.empty() ? 0 : 8; }

inline std::vector<int32_t> int8_row_sums(const std::vector<const char*>& rows, int64_t k) {
    std::vector<int32_t> sums;
    for (const char* row : rows) {
        int32_t sum = 0;
        for (int64_t i = 0; i < k; ++i) sum += static_cast<int8_t>(row[i]);
        sums.push_back(sum);
    }
    return sums;
}

// Weighs the dot product of each segment with its scale, [segments, columns] for each expert.
struct SegmentScale {
    const FloatTable& scale;
    int64_t num_columns;

    auto operator()(int64_t expert) const {
        return [row = scale.row(expert), n = num_columns](int64_t column, int64_t segment, int32_t dot) {
            return fp32::mul(static_cast<float>(dot), row[segment * n + column]);
        };
    }
};

}  // namespace moe_jit::cpu
