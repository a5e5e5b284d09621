// Where the elements of a matrix lie. Fractals are 16 x 32 bytes, 512 bytes:
//   NZ (L1, L0C, GM)  columns of fractals one after another, rows inside
//   Zz (L0A)          rows of fractals one after another, rows inside
//   Zn (L0B)          rows of fractals one after another, columns inside
#pragma once

#include <cstdint>

#include "moe_jit/ascend_emulator/types.h"

namespace moe_jit::emulator {

inline constexpr uint32_t kFractal = 512;  // bytes
inline constexpr uint32_t kFractalRows = 16;

constexpr uint64_t rounded_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

// Elements of 32 bytes.
template <typename T>
constexpr uint32_t elements_per_block() {
    return kBlock * 8 / bits_of<T>();
}

// Index of (row, column) in a Zz matrix whose rows are `columns` wide, a multiple of `c0`.
constexpr uint64_t zz_index(uint64_t row, uint64_t column, uint64_t columns, uint32_t c0) {
    const uint64_t fractal = row / kFractalRows * (columns / c0) + column / c0;
    return (fractal * kFractalRows + row % kFractalRows) * c0 + column % c0;
}

// Index of (row, column) in a Zn matrix of `columns` columns, a multiple of 16; fractals have `c0` rows.
constexpr uint64_t zn_index(uint64_t row, uint64_t column, uint64_t columns, uint32_t c0) {
    const uint64_t fractal = row / c0 * (columns / kFractalRows) + column / kFractalRows;
    return (fractal * kFractalRows + column % kFractalRows) * c0 + row % c0;
}

// Index of (row, column) in an NZ matrix whose columns of fractals start `column_stride` rows apart.
constexpr uint64_t nz_index(uint64_t row, uint64_t column, uint64_t column_stride, uint32_t c0) {
    return (column / c0 * column_stride + row) * c0 + column % c0;
}

// LoadDataWithTranspose joins `fractals` of the source to a square, transposes it and cuts it again.
struct TransposeShape {
    uint32_t fractals;
    uint32_t side;     // of the square, in elements
    bool joins_below;  // below each other, or side by side

    // From (row, column) of a fractal of the result: index into the source's square.
    constexpr uint64_t source(uint32_t fractal, uint32_t row, uint32_t column, uint32_t c0) const {
        if (joins_below) return uint64_t{column} * c0 + fractal * kFractalRows + row;
        const uint32_t across = fractal * c0 + column;  // row of the source
        return (uint64_t{row / c0} * kFractalRows + across) * c0 + row % c0;
    }
};

template <typename T>
constexpr TransposeShape transpose_shape() {
    switch (bits_of<T>()) {
        case 4:
            return {4, 64, true};
        case 8:
            return {2, 32, true};
        case 16:
            return {1, 16, true};
        default:
            return {2, 16, false};
    }
}

}  // namespace moe_jit::emulator
