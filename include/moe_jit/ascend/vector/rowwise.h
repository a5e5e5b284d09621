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

    // The instructions cover kVector columns of all rows each: repeats are rows.
    __aicore__ inline uint64_t mask(int32_t column) const { return least(kVector, pitch - column); }
    __aicore__ inline uint8_t repeats() const { return static_cast<uint8_t>(rows); }
    __aicore__ inline uint8_t stride() const { return static_cast<uint8_t>(pitch / kLanes); }
};
using FloatTile = RowTile<float>;

// `factors` has a value for each column; `out` may be the tile's values.
template <class T>
__aicore__ inline void multiply_columns(const LocalTensor<T>& out, const RowTile<T>& tile,
                                        const LocalTensor<T>& factors) {
    const BinaryRepeatParams strides(1, 1, 1, tile.stride(), tile.stride(), 0);
    for (int32_t i = 0; i < tile.pitch; i += RowTile<T>::kVector) {
        Mul(out[i], tile.values[i], factors[i], tile.mask(i), tile.repeats(), strides);
    }
    vector_barrier();
}
template <class T>
__aicore__ inline void multiply_columns(const RowTile<T>& tile, const LocalTensor<T>& factors) {
    multiply_columns(tile.values, tile, factors);
}

template <class T>
__aicore__ inline void add_columns(const RowTile<T>& tile, const LocalTensor<T>& terms) {
    const BinaryRepeatParams strides(1, 1, 1, tile.stride(), tile.stride(), 0);
    for (int32_t i = 0; i < tile.pitch; i += RowTile<T>::kVector) {
        Add(tile.values[i], tile.values[i], terms[i], tile.mask(i), tile.repeats(), strides);
    }
    vector_barrier();
}

// `blocks` holds each row's factor as a block.
template <class T>
__aicore__ inline void multiply_rows(const LocalTensor<T>& out, const RowTile<T>& tile,
                                     const LocalTensor<T>& blocks) {
    const BinaryRepeatParams strides(1, 1, 0, tile.stride(), tile.stride(), 1);
    for (int32_t i = 0; i < tile.pitch; i += RowTile<T>::kVector) {
        Mul(out[i], tile.values[i], blocks, tile.mask(i), tile.repeats(), strides);
    }
    vector_barrier();
}
template <class T>
__aicore__ inline void multiply_rows(const RowTile<T>& tile, const LocalTensor<T>& blocks) {
    multiply_rows(tile.values, tile, blocks);
}

template <class T>
__aicore__ inline void add_rows(const RowTile<T>& tile, const LocalTensor<T>& blocks) {
    const BinaryRepeatParams strides(1, 1, 0, tile.stride(), tile.stride(), 1);
    for (int32_t i = 0; i < tile.pitch; i += RowTile<T>::kVector) {
        Add(tile.values[i], tile.values[i], blocks, tile.mask(i), tile.repeats(), strides);
    }
    vector_barrier();
}

// tile * factors + terms, with a value of each for every column, or as blocks for every row.
template <class T>
__aicore__ inline void multiply_add_columns(const RowTile<T>& tile, const LocalTensor<T>& factors,
                                            const LocalTensor<T>& terms) {
    const BinaryRepeatParams strides(1, 1, 1, tile.stride(), 0, 0);
    for (int32_t i = 0; i < tile.pitch; i += RowTile<T>::kVector) {
        FusedMulAdd(tile.values[i], factors[i], terms[i], tile.mask(i), tile.repeats(), strides);
    }
    vector_barrier();
}

template <class T>
__aicore__ inline void multiply_add_rows(const RowTile<T>& tile, const LocalTensor<T>& factors,
                                         const LocalTensor<T>& terms) {
    const BinaryRepeatParams strides(1, 0, 0, tile.stride(), 1, 1);
    for (int32_t i = 0; i < tile.pitch; i += RowTile<T>::kVector) {
        FusedMulAdd(tile.values[i], factors, terms, tile.mask(i), tile.repeats(), strides);
    }
    vector_barrier();
}

// out = the product of every row's block and every column's term.
__aicore__ inline void outer_product(const FloatTile& out, const LocalTensor<float>& terms,
                                     const LocalTensor<float>& blocks) {
    const BinaryRepeatParams strides(1, 1, 0, out.stride(), 0, 1);
    for (int32_t i = 0; i < out.pitch; i += FloatTile::kVector) {
        Mul(out.values[i], terms[i], blocks, out.mask(i), out.repeats(), strides);
    }
    vector_barrier();
}

// Rows become `out_pitch` elements apart, a multiple of 16.
template <class T>
__aicore__ inline void narrow_rows(const LocalTensor<T>& out, int32_t out_pitch, const FloatTile& tile) {
    constexpr int32_t kLanes = kBlockBytes / static_cast<int32_t>(sizeof(T));
    const UnaryRepeatParams strides(1, 1, static_cast<uint8_t>(out_pitch / kLanes), tile.stride());
    for (int32_t i = 0; i < tile.pitch; i += FloatTile::kVector) {
        Cast(out[i], tile.values[i], RoundMode::CAST_RINT, tile.mask(i), tile.repeats(), strides);
    }
    vector_barrier();
}

}  // namespace moe_jit::ascend
