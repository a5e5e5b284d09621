// Tiles of rows combined with a value for each column or for each row. Rows are `pitch` elements apart, a
// multiple of a block; at most 255 rows.
#pragma once

#include "moe_jit/ascend/vector/transfer.h"

namespace moe_jit::ascend {

constexpr int32_t kFractalColumns = 16;
constexpr int32_t kFloatLanes = 8;  // in a block

// T is float or half.
template <class T>
struct RowTile {
    static constexpr int32_t kLanes = kBlockBytes / static_cast<int32_t>(sizeof(T));
    static constexpr int32_t kVector = 8 * kLanes;  // elements of a repeat

    LocalTensor<T> values;
    int32_t rows, pitch;

    __aicore__ inline int32_t size() const { return rows * pitch; }

    // operation(column, mask, repeats, stride) for each part of the columns that fits a repeat.
    template <class Operation>
    __aicore__ inline void for_columns(const Operation& operation) const {
        for (int32_t column = 0; column < pitch; column += kVector) {
            operation(column, static_cast<uint64_t>(least(kVector, pitch - column)),
                      static_cast<uint8_t>(rows), static_cast<uint8_t>(pitch / kLanes));
        }
    }
};
using FloatTile = RowTile<float>;

template <class T>
__aicore__ inline void multiply_columns(const RowTile<T>& tile, const LocalTensor<T>& factors) {
    tile.for_columns([&](int32_t column, uint64_t mask, uint8_t rows, uint8_t stride) {
        Mul(tile.values[column], tile.values[column], factors[column], mask, rows,
            BinaryRepeatParams(1, 1, 1, stride, stride, 0));
    });
    vector_barrier();
}

template <class T>
__aicore__ inline void add_columns(const RowTile<T>& tile, const LocalTensor<T>& terms) {
    tile.for_columns([&](int32_t column, uint64_t mask, uint8_t rows, uint8_t stride) {
        Add(tile.values[column], tile.values[column], terms[column], mask, rows,
            BinaryRepeatParams(1, 1, 1, stride, stride, 0));
    });
    vector_barrier();
}

// `blocks` holds each row's factor as a block.
template <class T>
__aicore__ inline void multiply_rows(const RowTile<T>& tile, const LocalTensor<T>& blocks) {
    tile.for_columns([&](int32_t column, uint64_t mask, uint8_t rows, uint8_t stride) {
        Mul(tile.values[column], tile.values[column], blocks, mask, rows,
            BinaryRepeatParams(1, 1, 0, stride, stride, 1));
    });
    vector_barrier();
}

template <class T>
__aicore__ inline void add_rows(const RowTile<T>& tile, const LocalTensor<T>& blocks) {
    tile.for_columns([&](int32_t column, uint64_t mask, uint8_t rows, uint8_t stride) {
        Add(tile.values[column], tile.values[column], blocks, mask, rows,
            BinaryRepeatParams(1, 1, 0, stride, stride, 1));
    });
    vector_barrier();
}

// out = the product of every row's block and every column's term.
__aicore__ inline void outer_product(const FloatTile& out, const LocalTensor<float>& terms,
                                     const LocalTensor<float>& blocks) {
    out.for_columns([&](int32_t column, uint64_t mask, uint8_t rows, uint8_t stride) {
        Mul(out.values[column], terms[column], blocks, mask, rows, BinaryRepeatParams(1, 1, 0, stride, 0, 1));
    });
    vector_barrier();
}

// Rows become `out_pitch` elements apart, a multiple of 16.
template <class T>
__aicore__ inline void narrow_rows(const LocalTensor<T>& out, int32_t out_pitch, const FloatTile& tile) {
    constexpr int32_t kLanes = kBlockBytes / static_cast<int32_t>(sizeof(T));
    tile.for_columns([&](int32_t column, uint64_t mask, uint8_t rows, uint8_t stride) {
        Cast(out[column], tile.values[column], RoundMode::CAST_RINT, mask, rows,
             UnaryRepeatParams(1, 1, static_cast<uint8_t>(out_pitch / kLanes), stride));
    });
    vector_barrier();
}

}  // namespace moe_jit::ascend
