// 16-bit activations times int4 weights for few rows: the rows become digits (digits.h), so that the weights
// pass as they are stored, with four bits each, to the matrix unit. Scales and offsets multiply exact sums.
#pragma once

#include "moe_jit/ascend/antiquant/digits.h"
#include "moe_jit/ascend/int4/matmul.h"

namespace moe_jit::ascend {

// The digits' sums as one fp32 sum in units of the row, and then
// (sum + the segment's sum of x * offset) * scale, of a segment.
template <class T>
class DigitSums {
  public:
    // `row_sums`: fp32 [segments, rows], null without offsets.
    __aicore__ inline DigitSums(TPipe& pipe, const MatmulTiling& tiling, Address scale, Address offset,
                                Address row_sums)
        : tiling_(tiling), scale_(scale), offset_(offset), row_sums_(row_sums) {
        columns_.init(pipe, tiling.base_n, 2);
        rows_.init(pipe, tiling.base_m, 1);
        pipe.InitBuffer(product_, (offset == nullptr ? kFloatLanes : kSlab) * sizeof(float));
    }

    __aicore__ inline void begin(const Tile& tile, int32_t segment) {
        const int64_t row = static_cast<int64_t>(tile.expert) * tiling_.segments + segment;
        const int64_t first = row * tiling_.n + tile.column;
        columns_.load_as<T>(scale_, first, tile.columns, kScale);
        if (offset_ != nullptr) columns_.load_as<T>(offset_, first, tile.columns, kOffset);
        first_sum_ = static_cast<int64_t>(segment) * tiling_.rows + tile.row;
    }

    // Each rounding is relative to the sum so far, which begins with what counts most.
    __aicore__ inline void include(const FloatTile& values, const LocalTensor<int32_t>& sums, int32_t piece) {
        if (piece == 0) {
            Cast(values.values, sums, RoundMode::CAST_NONE, values.size());
            return vector_barrier();
        }
        const LocalTensor<float> terms = sums.template ReinterpretCast<float>();
        Cast(terms, sums, RoundMode::CAST_NONE, values.size());
        Muls(values.values, values.values, 16.0f, values.size());
        vector_barrier();
        Add(values.values, values.values, terms, values.size());
        vector_barrier();
    }

    __aicore__ inline void scale(const FloatTile& values, const Tile&, int32_t, int32_t row) {
        if (offset_ != nullptr) {
            const FloatTile product{product_.Get<float>(), values.rows, values.pitch};
            rows_.load(row_sums_, nullptr, first_sum_ + row, values.rows);
            outer_product(product, columns_.values(kOffset), rows_.blocks());
            Add(values.values, values.values, product.values, values.size());
            vector_barrier();
        }
        multiply_columns(values, columns_.values(kScale));
    }

  private:
    static constexpr int32_t kScale = 0, kOffset = 1;

    MatmulTiling tiling_;
    Address scale_, offset_, row_sums_;
    ColumnVector columns_;
    RowBlocks rows_;
    TBuf<TPosition::VECCALC> product_;
    int64_t first_sum_ = 0;
};

// values * unit + bias, rounded to T.
template <class T>
class DigitFinish {
  public:
    // `units`: fp32 [rows]; `bias`: fp32 [experts, n] or null.
    __aicore__ inline DigitFinish(TPipe& pipe, const MatmulTiling& tiling, Address units, Address bias,
                                  Address y)
        : units_(units), bias_table_(bias), n_(tiling.n), store_(pipe, y, tiling.n) {
        pipe.InitBuffer(scratch_, kSlab * sizeof(float));
        bias_.init(pipe, tiling.base_n);
        rows_.init(pipe, tiling.base_m, 1);
    }

    __aicore__ inline LocalTensor<float> scratch() { return scratch_.Get<float>(); }

    __aicore__ inline void begin(const Tile& tile) {
        const int64_t column = static_cast<int64_t>(tile.expert) * n_ + tile.column;
        if (bias_table_ != nullptr) bias_.load_as<float>(bias_table_, column, tile.columns);
    }

    __aicore__ inline void finish(const FloatTile& values, const Tile& tile, int32_t row) {
        rows_.load(units_, nullptr, tile.row + row, values.rows);
        multiply_rows(values, rows_.blocks());
        if (bias_table_ != nullptr) add_columns(values, bias_.values());
        store_.run(values, tile, row);
    }

  private:
    Address units_, bias_table_;
    int32_t n_;
    TileStore<T> store_;
    TBuf<TPosition::VECCALC> scratch_;
    ColumnVector bias_;
    RowBlocks rows_;
};

// T: half or bfloat16_t.
template <class T>
class DigitMatmul {
  public:
    __aicore__ inline explicit DigitMatmul(const MatmulArguments& given)
        : given_(given), tiling_(read_struct<MatmulTiling>(given.tiling)) {}

    __aicore__ inline void run() {
        // Behind the digits: a unit for each row, then sums of segments.
        const Int4Workspace workspace(given_.workspace, tiling_);
        const Address sums = given_.antiquant_offset == nullptr ? nullptr : workspace.end;
        split_rows_with<DigitSplitter<T>>(given_.x, tiling_, workspace.split, workspace.row_sums, sums);
        TPipe pipe;
        if ASCEND_IS_AIC {
            const Int4Operands operands{given_.x, given_.weight, nullptr, given_.group_list, false};
            run_split_cube(pipe, tiling_, operands, workspace);
        }
        if ASCEND_IS_AIV {
            clear_tail(pipe, given_, tiling_, sizeof(T));
            DigitSums<T> terms(pipe, tiling_, given_.antiquant_scale, given_.antiquant_offset, sums);
            DigitFinish<T> finish(pipe, tiling_, workspace.row_sums, given_.bias, given_.y);
            add_all_segments(pipe, tiling_, given_.group_list, workspace, terms, finish);
        }
    }

  private:
    MatmulArguments given_;
    MatmulTiling tiling_;
};

}  // namespace moe_jit::ascend
