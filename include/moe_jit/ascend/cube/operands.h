// Operands from L1 to L0, in steps of the reduction dimension.
#pragma once

#include "moe_jit/ascend/cube/formats.h"

namespace moe_jit::ascend {

// L1 [k / c0][rows][c0] to L0A: fractals row by row.
template <class Format>
__aicore__ inline void load_activations(const LocalTensor<typename Format::Carrier>& l0a,
                                        const LocalTensor<typename Format::Carrier>& l1, int32_t rows,
                                        int32_t k, int32_t depth) {
    constexpr int32_t kSize = kFractalCarriers<Format>;
    const int32_t row_fractals = ceil_div(rows, kFractal), steps = ceil_div(depth, Format::kBlock);
    LoadData2DParams load;
    load.repeatTimes = static_cast<uint8_t>(steps);
    load.srcStride = static_cast<uint16_t>(row_fractals);
    for (int32_t i = 0; i < row_fractals; ++i) {
        LoadData(l0a[i * steps * kSize], l1[(k / Format::kBlock * row_fractals + i) * kSize], load);
    }
}

// Columns [first, first + count) of `all` that a weight tile in L1 has, all multiples of what a load moves.
struct ColumnRange {
    int32_t first, count, all;
};

// L1 [k / c0][columns][c0] to L0B: the fractals have the same order.
template <class Format>
__aicore__ inline void load_transposed_weights(const LocalTensor<typename Format::Carrier>& l0b,
                                               const LocalTensor<typename Format::Carrier>& l1,
                                               const ColumnRange& columns, int32_t k, int32_t depth) {
    constexpr int32_t kSize = kFractalCarriers<Format>;
    const int32_t fractals = columns.count / kFractal, steps = ceil_div(depth, Format::kBlock);
    LoadData2DParams load;
    load.repeatTimes = static_cast<uint8_t>(fractals);
    load.srcStride = 1;
    for (int32_t i = 0; i < steps; ++i) {
        const int32_t source = (k / Format::kBlock + i) * (columns.all / kFractal) + columns.first / kFractal;
        LoadData(l0b[i * fractals * kSize], l1[source * kSize], load);
    }
}

// L1 [columns / c0][tile_depth][c0], or [tile_depth / 16][columns / c0][16][c0] where blocked by depth, to
// L0B: squares are transposed one by one.
template <class Format>
__aicore__ inline void load_weights(const LocalTensor<typename Format::Carrier>& l0b,
                                    const LocalTensor<typename Format::Carrier>& l1,
                                    const ColumnRange& columns, int32_t k, int32_t depth,
                                    int32_t tile_depth) {
    constexpr int32_t kFractals = kSquareFractals<Format>;
    constexpr int32_t kSize = kFractals * kFractalCarriers<Format>;
    const int32_t squares = columns.count / Format::kSquare, steps = ceil_div(depth, Format::kSquare);
    const int32_t column_stride = kBlockedByDepth<Format> ? 1 : tile_depth / Format::kSquare;
    const int32_t depth_stride = kBlockedByDepth<Format> ? columns.all / Format::kSquare : 1;
    for (int32_t i = 0; i < steps; ++i) {
        const auto target = l0b[i * squares * kSize];
        const auto source =
            l1[(columns.first / Format::kSquare * column_stride + (k / Format::kSquare + i) * depth_stride) *
               kSize];
        if constexpr (kFractals == 1) {
            LoadData2DParams load;
            load.repeatTimes = static_cast<uint8_t>(squares);
            load.srcStride = static_cast<uint16_t>(column_stride);
            load.ifTranspose = true;
            LoadData(target, source, load);
        } else {
            LoadData2dTransposeParams load;
            load.repeatTimes = static_cast<uint8_t>(squares);
            load.srcStride = static_cast<uint16_t>(column_stride);
            // Fractals of a square follow one another along n, or else along k.
            load.dstGap = kBlockedByDepth<Format> ? 0 : kFractals - 1;
            load.dstFracGap = static_cast<uint16_t>(kBlockedByDepth<Format> ? squares - 1 : 0);
            using Operand = typename Format::Operand;
            LoadDataWithTranspose(target.template ReinterpretCast<Operand>(),
                                  source.template ReinterpretCast<Operand>(), load);
        }
    }
}

}  // namespace moe_jit::ascend
