// Tiles of the operands from global memory to L1, blocked as [blocks of c0][rows][c0]. Rows of a last fractal
// that the matrix does not have repeat its first one, so that no undefined value takes part in a product.
#pragma once

#include "moe_jit/ascend/cube/formats.h"
#include "moe_jit/ascend/tiling.h"

namespace moe_jit::ascend {

// `rows` rows of `columns` carriers, `pitch` apart; `padded` rows in L1.
template <class T>
__aicore__ inline void load_blocked(const LocalTensor<T>& l1, const GlobalTensor<T>& source, int32_t rows,
                                    int32_t columns, int32_t pitch, int32_t padded) {
    constexpr int32_t kColumns = kBlockBytes / static_cast<int32_t>(sizeof(T));
    Nd2NzParams copy;
    copy.ndNum = 1;
    copy.nValue = static_cast<uint16_t>(rows);
    copy.dValue = static_cast<uint16_t>(columns);
    copy.srcNdMatrixStride = 0;
    copy.srcDValue = static_cast<uint16_t>(pitch);
    copy.dstNzC0Stride = static_cast<uint16_t>(padded);
    copy.dstNzNStride = 1;
    copy.dstNzMatrixStride = kColumns;
    DataCopy(l1, source, copy);
    if (rows == padded) return;
    copy.ndNum = static_cast<uint16_t>(padded - rows);
    copy.nValue = 1;
    DataCopy(l1[rows * kColumns], source, copy);
}

// `count` elements, and repetitions of the first ones up to `padded`; both in whole or cut blocks of 32
// bytes.
template <class T>
__aicore__ inline void load_padded_vector(const LocalTensor<T>& l1, const GlobalTensor<T>& source,
                                          int32_t count, int32_t padded) {
    constexpr int32_t kElements = kBlockBytes / static_cast<int32_t>(sizeof(T));
    load_blocked(l1, source, 1, count, count, 1);
    for (int32_t i = round_up(count, kElements); i < padded; i += kElements) {
        load_blocked(l1[i], source, 1, least(count, kElements), count, 1);
    }
}

// Rows of x, [rows, k].
template <class Format>
class ActivationProducer {
  public:
    using Carrier = typename Format::Carrier;

    __aicore__ inline ActivationProducer(Address x, int32_t k) : x_(x), pitch_(k / Format::kPack) {}

    __aicore__ inline void load(const LocalTensor<Carrier>& l1, int32_t row, int32_t rows, int32_t k,
                                int32_t depth) const {
        const int64_t first = static_cast<int64_t>(row) * pitch_ + k / Format::kPack;
        load_blocked(l1, global<Carrier>(x_, first), rows, depth / Format::kPack, pitch_,
                     round_up(rows, kFractal));
    }

  private:
    Address x_;
    int32_t pitch_;
};

// A tile of a weight in L1: rows are those of k, or of n where the weight is stored transposed.
struct WeightTile {
    int32_t k, depth;  // of the weight
    int32_t column, columns;
};

// Weights [experts, k, n] in any layout.
template <class Format>
class WeightProducer {
  public:
    using Carrier = typename Format::Carrier;

    __aicore__ inline WeightProducer(Address weight, const MatmulTiling& tiling)
        : weight_(weight),
          layout_(static_cast<WeightLayout>(tiling.weight_layout)),
          k_(tiling.k),
          n_(tiling.n) {}

    __aicore__ inline bool transposed() const {
        return layout_ == WeightLayout::kTransposed || layout_ == WeightLayout::kBlockedTransposed;
    }

    // Columns of the tile in L1, and so of the product.
    __aicore__ inline int32_t padded_columns(int32_t columns) const {
        return round_up(columns, transposed() ? kFractal : Format::kSquare);
    }

    __aicore__ inline void load(const LocalTensor<Carrier>& l1, int32_t expert,
                                const WeightTile& tile) const {
        const GlobalTensor<Carrier> matrix = global<Carrier>(weight_, expert * matrix_size());
        switch (layout_) {
            case WeightLayout::kRows:
                if constexpr (kBlockedByDepth<Format>) return load_by_depth(l1, matrix, tile);
                return load_blocked(l1, matrix[offset(tile.k, n_, tile.column)], tile.depth,
                                    ceil_div(tile.columns, Format::kPack), n_ / Format::kPack,
                                    round_up(tile.depth, Format::kSquare));
            case WeightLayout::kTransposed:
                return load_blocked(l1, matrix[offset(tile.column, k_, tile.k)], tile.columns,
                                    ceil_div(tile.depth, Format::kPack), k_ / Format::kPack,
                                    round_up(tile.columns, kFractal));
            case WeightLayout::kBlocked:
                if constexpr (kBlockedByDepth<Format>) return copy_by_depth(l1, matrix, tile);
                return copy_blocks(l1, matrix, tile.k, tile.depth, round_up(tile.depth, Format::kSquare),
                                   tile.column, tile.columns, k_);
            case WeightLayout::kBlockedTransposed:
                return copy_blocks(l1, matrix, tile.column, tile.columns, round_up(tile.columns, kFractal),
                                   tile.k, tile.depth, n_);
        }
    }

  private:
    static constexpr int32_t kLine = kBlockCarriers<Format>;

    __aicore__ inline int64_t offset(int32_t row, int32_t pitch, int32_t column) const {
        return (static_cast<int64_t>(row) * pitch + column) / Format::kPack;
    }

    // Carriers of an expert.
    __aicore__ inline int64_t matrix_size() const {
        switch (layout_) {
            case WeightLayout::kBlocked:
                return static_cast<int64_t>(round_up(k_, kFractal)) * ceil_div(n_, Format::kBlock) * kLine;
            case WeightLayout::kBlockedTransposed:
                return static_cast<int64_t>(round_up(n_, kFractal)) * ceil_div(k_, Format::kBlock) * kLine;
            default:
                return static_cast<int64_t>(k_) * n_ / Format::kPack;
        }
    }

    // [depth / 16][columns / c0][16][c0] in L1, of whole squares. What fills up the last one is not used.
    __aicore__ inline void load_by_depth(const LocalTensor<Carrier>& l1, const GlobalTensor<Carrier>& matrix,
                                         const WeightTile& tile) const {
        const int32_t padded = padded_columns(tile.columns), known = round_up(tile.columns, Format::kBlock);
        for (int32_t k = 0; k < tile.depth; k += kFractal) {
            const int32_t rows = least(kFractal, tile.depth - k);
            const GlobalTensor<Carrier> source = matrix[offset(tile.k + k, n_, tile.column)];
            load_blocked(l1[k * padded], source, rows, tile.columns, n_, kFractal);
            if (known == padded) continue;
            load_blocked(l1[k * padded + known * kFractal], source, rows, least(Format::kBlock, tile.columns),
                         n_, kFractal);
        }
    }

    // The same from [n / c0][k up to 16][c0] in global memory.
    __aicore__ inline void copy_by_depth(const LocalTensor<Carrier>& l1, const GlobalTensor<Carrier>& matrix,
                                         const WeightTile& tile) const {
        const int32_t padded = padded_columns(tile.columns), known = round_up(tile.columns, Format::kBlock);
        const int32_t stored = round_up(k_, kFractal);
        const int64_t block = static_cast<int64_t>(tile.column / Format::kBlock) * stored;
        for (int32_t k = 0; k < tile.depth; k += kFractal) {
            const GlobalTensor<Carrier> source = matrix[(block + tile.k + k) * kLine];
            copy_rows(l1[k * padded], source, kFractal, stored, kFractal, tile.columns);
            if (known < padded) {
                copy_rows(l1[k * padded + known * kFractal], source, kFractal, stored, kFractal, 1);
            }
        }
    }

    // From [columns / c0][all_rows up to 16][c0] in global memory.
    __aicore__ inline void copy_blocks(const LocalTensor<Carrier>& l1, const GlobalTensor<Carrier>& matrix,
                                       int32_t row, int32_t rows, int32_t padded, int32_t column,
                                       int32_t columns, int32_t all_rows) const {
        const int32_t stored = round_up(all_rows, kFractal), stored_rows = round_up(rows, kFractal);
        const int64_t block = static_cast<int64_t>(column / Format::kBlock) * stored;
        const GlobalTensor<Carrier> source = matrix[(block + row) * kLine];
        copy_rows(l1, source, stored_rows, stored, padded, columns);
        for (int32_t done = stored_rows; done < padded; done += kFractal) {
            copy_rows(l1[done * kLine], source, kFractal, stored, padded, columns);
        }
    }

    __aicore__ inline void copy_rows(const LocalTensor<Carrier>& l1, const GlobalTensor<Carrier>& source,
                                     int32_t rows, int32_t stored, int32_t padded, int32_t columns) const {
        DataCopyParams copy;
        copy.blockCount = static_cast<uint16_t>(ceil_div(columns, Format::kBlock));
        copy.blockLen = static_cast<uint16_t>(rows);
        copy.srcStride = static_cast<uint16_t>(stored - rows);
        copy.dstStride = static_cast<uint16_t>(padded - rows);
        DataCopy(l1, source, copy);
    }

    Address weight_;
    WeightLayout layout_;
    int32_t k_, n_;
};

}  // namespace moe_jit::ascend
