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

namespace detail {

// Operands of instructions on a tile: the tile itself or one like it, a value for each column, or a block for
// each row. Where column i of the first row lies, and the strides in blocks.
struct Tiles {
    static constexpr uint8_t kBlockStride = 1;
    __aicore__ inline static int32_t at(int32_t column) { return column; }
    __aicore__ inline static uint8_t row_stride(uint8_t of_tile) { return of_tile; }
};
struct Columns {
    static constexpr uint8_t kBlockStride = 1;
    __aicore__ inline static int32_t at(int32_t column) { return column; }
    __aicore__ inline static uint8_t row_stride(uint8_t) { return 0; }
};
struct Rows {
    static constexpr uint8_t kBlockStride = 0;
    __aicore__ inline static int32_t at(int32_t) { return 0; }
    __aicore__ inline static uint8_t row_stride(uint8_t) { return 1; }
};

struct Product {
    template <class T>
    __aicore__ inline static void run(const LocalTensor<T>& out, const LocalTensor<T>& a,
                                      const LocalTensor<T>& b, uint64_t mask, uint8_t repeats,
                                      const BinaryRepeatParams& strides) {
        Mul(out, a, b, mask, repeats, strides);
    }
};
struct Sum {
    template <class T>
    __aicore__ inline static void run(const LocalTensor<T>& out, const LocalTensor<T>& a,
                                      const LocalTensor<T>& b, uint64_t mask, uint8_t repeats,
                                      const BinaryRepeatParams& strides) {
        Add(out, a, b, mask, repeats, strides);
    }
};
// out * a + b
struct ProductSum {
    template <class T>
    __aicore__ inline static void run(const LocalTensor<T>& out, const LocalTensor<T>& a,
                                      const LocalTensor<T>& b, uint64_t mask, uint8_t repeats,
                                      const BinaryRepeatParams& strides) {
        FusedMulAdd(out, a, b, mask, repeats, strides);
    }
};

// For `out` of the sizes of `tile`.
template <class Instruction, class A, class B, class T>
__aicore__ inline void run_rowwise(const RowTile<T>& tile, const LocalTensor<T>& out, const LocalTensor<T>& a,
                                   const LocalTensor<T>& b) {
    const uint8_t stride = tile.stride();
    const BinaryRepeatParams strides(1, A::kBlockStride, B::kBlockStride, stride, A::row_stride(stride),
                                     B::row_stride(stride));
    for (int32_t i = 0; i < tile.pitch; i += RowTile<T>::kVector) {
        Instruction::run(out[i], a[A::at(i)], b[B::at(i)], tile.mask(i), tile.repeats(), strides);
    }
    vector_barrier();
}

}  // namespace detail

// `factors` has a value for each column; `out` may be the tile's values.
template <class T>
__aicore__ inline void multiply_columns(const LocalTensor<T>& out, const RowTile<T>& tile,
                                        const LocalTensor<T>& factors) {
    detail::run_rowwise<detail::Product, detail::Tiles, detail::Columns>(tile, out, tile.values, factors);
}
template <class T>
__aicore__ inline void multiply_columns(const RowTile<T>& tile, const LocalTensor<T>& factors) {
    multiply_columns(tile.values, tile, factors);
}

template <class T>
__aicore__ inline void add_columns(const RowTile<T>& tile, const LocalTensor<T>& terms) {
    detail::run_rowwise<detail::Sum, detail::Tiles, detail::Columns>(tile, tile.values, tile.values, terms);
}

// `blocks` holds each row's factor as a block.
template <class T>
__aicore__ inline void multiply_rows(const LocalTensor<T>& out, const RowTile<T>& tile,
                                     const LocalTensor<T>& blocks) {
    detail::run_rowwise<detail::Product, detail::Tiles, detail::Rows>(tile, out, tile.values, blocks);
}
template <class T>
__aicore__ inline void multiply_rows(const RowTile<T>& tile, const LocalTensor<T>& blocks) {
    multiply_rows(tile.values, tile, blocks);
}

template <class T>
__aicore__ inline void add_rows(const RowTile<T>& tile, const LocalTensor<T>& blocks) {
    detail::run_rowwise<detail::Sum, detail::Tiles, detail::Rows>(tile, tile.values, tile.values, blocks);
}

// tile * factors + terms, with a value of each for every column, or as blocks for every row.
template <class T>
__aicore__ inline void multiply_add_columns(const RowTile<T>& tile, const LocalTensor<T>& factors,
                                            const LocalTensor<T>& terms) {
    detail::run_rowwise<detail::ProductSum, detail::Columns, detail::Columns>(tile, tile.values, factors,
                                                                              terms);
}

template <class T>
__aicore__ inline void multiply_add_rows(const RowTile<T>& tile, const LocalTensor<T>& factors,
                                         const LocalTensor<T>& terms) {
    detail::run_rowwise<detail::ProductSum, detail::Rows, detail::Rows>(tile, tile.values, factors, terms);
}

// out = the product of every row's block and every column's term.
__aicore__ inline void outer_product(const FloatTile& out, const LocalTensor<float>& terms,
                                     const LocalTensor<float>& blocks) {
    detail::run_rowwise<detail::Product, detail::Columns, detail::Rows>(out, out.values, terms, blocks);
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
