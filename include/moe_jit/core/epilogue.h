// Pieces of a matrix product's epilogue. Each maps the fp32 value of an element to the next one and names
// elements by row (of the activations) and column (of the expert's weight); parameters belong to one expert.
// Every piece rounds once, so that the order in a chain defines the result. A null parameter makes a piece
// the identity.
#pragma once

#include <cstdint>

#include "moe_jit/core/arithmetic.h"
#include "moe_jit/core/pointwise.h"

namespace moe_jit::epilogue {

template <class Format>
struct ChannelScale {
    const typename Format::Storage* scale;  // [columns]
    MOE_JIT_HD MOE_JIT_INLINE float operator()(float value, int64_t, int64_t column) const {
        return scale ? fp32::mul(value, Format::to_float(scale[column])) : value;
    }
};

struct TokenScale {
    const float* scale;  // [rows]
    MOE_JIT_HD MOE_JIT_INLINE float operator()(float value, int64_t row, int64_t) const {
        return scale ? fp32::mul(value, scale[row]) : value;
    }
};

template <class Format>
struct ChannelBias {
    const typename Format::Storage* bias;  // [columns]
    MOE_JIT_HD MOE_JIT_INLINE float operator()(float value, int64_t, int64_t column) const {
        return bias ? fp32::add(value, Format::to_float(bias[column])) : value;
    }
};

// A bias that counts with the row's weight; a null weight is one.
struct WeighedBias {
    const float* bias;    // [columns]
    const float* weight;  // [rows]
    MOE_JIT_HD MOE_JIT_INLINE float operator()(float value, int64_t row, int64_t column) const {
        if (!bias) return value;
        return fp32::add(value, weight ? fp32::mul(bias[column], weight[row]) : bias[column]);
    }
};

// A constant added to every dequantised weight of a column adds its product with the row's sum.
struct WeightOffset {
    const float* offset;      // [columns]
    const int32_t* row_sums;  // [rows]
    MOE_JIT_HD MOE_JIT_INLINE float operator()(float value, int64_t row, int64_t column) const {
        return offset ? fp32::add(value, fp32::mul(static_cast<float>(row_sums[row]), offset[column]))
                      : value;
    }
};

struct Activate {
    PointwiseType type;
    MOE_JIT_HD MOE_JIT_INLINE float operator()(float value, int64_t, int64_t) const {
        return pointwise(type, value);
    }
};

MOE_JIT_HD MOE_JIT_INLINE float apply(float value, int64_t, int64_t) { return value; }

// The pieces one after another, the first one first.
template <class Piece, class... Rest>
MOE_JIT_HD MOE_JIT_INLINE float apply(float value, int64_t row, int64_t column, const Piece& piece,
                                      const Rest&... rest) {
    return apply(piece(value, row, column), row, column, rest...);
}

}  // namespace moe_jit::epilogue
