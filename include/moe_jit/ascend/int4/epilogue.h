// Sums of int4 products on the vector cores: pieces and segments of the reduction dimension become one.
#pragma once

#include "moe_jit/ascend/int4/split.h"
#include "moe_jit/ascend/vector/epilogue.h"

namespace moe_jit::ascend {

// fp32 scales in the low words of int64, of which the matrix unit's format keeps 10 bits of mantissa.
class PackedScale {
  public:
    __aicore__ inline void init(TPipe& pipe, int32_t columns) {
        pipe.InitBuffer(queue_, 1, columns * sizeof(int64_t));
        pipe.InitBuffer(values_, columns * sizeof(float));
        pipe.InitBuffer(mask_, columns * sizeof(uint32_t));
        Duplicate(mask_.Get<uint32_t>(), kKeptBits, columns);
        vector_barrier();
    }

    __aicore__ inline void load(Address table, int64_t first, int32_t columns) {
        LocalTensor<uint32_t> words = queue_.AllocTensor<uint32_t>();
        load_vector(words, global<uint32_t>(table, 2 * first), 2 * columns);
        queue_.EnQue(words);
        words = queue_.DeQue<uint32_t>();
        const LocalTensor<uint32_t> low = values_.Get<uint32_t>();
        uint64_t gathered = 0;
        GatherMask(low, words, 1, true, static_cast<uint32_t>(2 * columns), GatherMaskParams(1, 1, 0, 0),
                   gathered);
        vector_barrier();
        queue_.FreeTensor(words);
        And(low.ReinterpretCast<uint16_t>(), low.ReinterpretCast<uint16_t>(),
            mask_.Get<uint32_t>().ReinterpretCast<uint16_t>(), 2 * columns);
        vector_barrier();
    }
    __aicore__ inline LocalTensor<float> values() { return values_.Get<float>(); }

  private:
    static constexpr uint32_t kKeptBits = 0xffffe000u;

    TQue<TPosition::VECIN, 1> queue_;
    TBuf<TPosition::VECCALC> values_, mask_;
};

// Sums of exact pieces (split.h): one integer, then times the segment's scale.
class PieceSums {
  public:
    __aicore__ inline PieceSums(TPipe& pipe, const MatmulTiling& tiling, Address scale)
        : tiling_(tiling), scale_table_(scale) {
        scale_.init(pipe, tiling.base_n);
    }

    __aicore__ inline void begin(const Tile& tile, int32_t segment) {
        const int64_t row = static_cast<int64_t>(tile.expert) * tiling_.segments + segment;
        scale_.load(scale_table_, row * tiling_.n + tile.column, tile.columns);
    }

    // `values` becomes what it was with the piece's `sums`, which are lost.
    __aicore__ inline void include(const FloatTile& values, const LocalTensor<int32_t>& sums, int32_t piece) {
        const LocalTensor<int32_t> whole = values.values.template ReinterpretCast<int32_t>();
        const int32_t pieces = sum_rows(tiling_);
        if (pieces == 1) {
            Cast(values.values, sums, RoundMode::CAST_NONE, values.size());
        } else if (piece == 0) {
            Muls(whole, sums, piece_weight(piece), values.size());
        } else {
            Muls(sums, sums, piece_weight(piece), values.size());
            vector_barrier();
            Add(whole, whole, sums, values.size());
        }
        vector_barrier();
        if (pieces == 1 || piece + 1 < pieces) return;
        Cast(values.values, whole, RoundMode::CAST_NONE, values.size());
        vector_barrier();
    }
    __aicore__ inline void scale(const FloatTile& values, const Tile&, int32_t, int32_t) {
        multiply_columns(values, scale_.values());
    }

  private:
    MatmulTiling tiling_;
    Address scale_table_;
    PackedScale scale_;
};

// Adds the scaled sums of a tile's segments up in fp32, in their order; then Finish as in DequantEpilogue.
// finish.scratch(): kSlab values that no call of it leaves behind. Sums: begin(tile, segment), then for some
// rows include(values, sums, piece) for all pieces in order and scale(values, tile, segment, row).
template <class Finish, class Sums = PieceSums>
class SegmentEpilogue {
  public:
    __aicore__ inline SegmentEpilogue(TPipe& pipe, const MatmulTiling& tiling, Sums& sums, Finish& finish)
        : finish_(finish), terms_(sums), tiling_(tiling) {
        pipe.InitBuffer(sums_, 2, kSlab * sizeof(int32_t));
        pipe.InitBuffer(totals_, ceil_div(tiling.base_m, kVectorCores) * tiling.base_n * sizeof(float));
    }

    // One segment after the other, each from a slot of the ring.
    __aicore__ inline void add(const Tile& tile, int32_t segment, Address slot) {
        const RowRange range = own_rows(tile.rows);
        if (range.count == 0) return;
        const int32_t pitch = round_up(tile.columns, kFloatLanes), most = slab_rows(tile.columns);
        const LocalTensor<float> totals = totals_.template Get<float>();
        if (segment == 0) {
            Duplicate(totals, 0.0f, range.count * pitch);
            vector_barrier();
        }
        terms_.begin(tile, segment);
        for (int32_t done = 0; done < range.count; done += most) {
            const int32_t rows = least(most, range.count - done), row = range.first + done;
            const FloatTile values{finish_.scratch(), rows, pitch};
            for (int32_t piece = 0; piece < sum_rows(tiling_); ++piece) {
                LocalTensor<int32_t> sums = load(tile, slot, row, rows, piece);
                terms_.include(values, sums, piece);
                sums_.FreeTensor(sums);
            }
            terms_.scale(values, tile, segment, row);
            Add(totals[done * pitch], totals[done * pitch], values.values, values.size());
            vector_barrier();
        }
    }

    // After the last segment.
    __aicore__ inline void finish(const Tile& tile) {
        const RowRange range = own_rows(tile.rows);
        if (range.count == 0) return;
        const int32_t pitch = round_up(tile.columns, kFloatLanes), most = slab_rows(tile.columns);
        const LocalTensor<float> totals = totals_.template Get<float>();
        finish_.begin(tile);
        for (int32_t done = 0; done < range.count; done += most) {
            const FloatTile values{totals[done * pitch], least(most, range.count - done), pitch};
            finish_.finish(values, tile, range.first + done);
        }
    }

  private:
    __aicore__ inline LocalTensor<int32_t> load(const Tile& tile, Address slot, int32_t row, int32_t rows,
                                                int32_t piece) {
        const int32_t pieces = sum_rows(tiling_);
        const int64_t first = (static_cast<int64_t>(row) * pieces + piece) * tiling_.base_n;
        const LocalTensor<int32_t> sums = sums_.template AllocTensor<int32_t>();
        load_rows(sums, global<int32_t>(slot, first), rows, tile.columns,
                  static_cast<int64_t>(pieces) * tiling_.base_n, round_up(tile.columns, kFloatLanes));
        sums_.EnQue(sums);
        return sums_.template DeQue<int32_t>();
    }

    Finish& finish_;
    Sums& terms_;
    MatmulTiling tiling_;
    TQue<TPosition::VECIN, 1> sums_;
    TBuf<TPosition::VECCALC> totals_;
};

// What follows the scaled sums; null where absent.
struct Int4Parameters {
    Address bias;             // [experts, n] fp32
    Address offset;           // [experts, n] fp32
    Address row_sums;         // [rows] fp32; with offset
    Address per_token_scale;  // [rows]
    Address row_weight;       // [rows]; multiplies per_token_scale
};

// (values + bias + row_sums * offset) * (per_token_scale * row_weight), rounded to Out.
template <class Out>
class Int4Finish {
  public:
    __aicore__ inline Int4Finish(TPipe& pipe, const MatmulTiling& tiling, const Int4Parameters& given,
                                 Address y)
        : given_(given), n_(tiling.n), store_(pipe, y, tiling.n) {
        pipe.InitBuffer(scratch_, kSlab * sizeof(float));
        columns_.init(pipe, tiling.base_n, 2);
        rows_.init(pipe, tiling.base_m, 2);
    }

    __aicore__ inline LocalTensor<float> scratch() { return scratch_.Get<float>(); }

    __aicore__ inline void begin(const Tile& tile) {
        const int64_t column = static_cast<int64_t>(tile.expert) * n_ + tile.column;
        if (given_.bias != nullptr) columns_.load(given_.bias, column, tile.columns, false, kBias);
        if (given_.offset != nullptr) columns_.load(given_.offset, column, tile.columns, false, kOffset);
    }

    __aicore__ inline void finish(const FloatTile& values, const Tile& tile, int32_t row) {
        const int32_t first = tile.row + row;
        if (given_.bias != nullptr) add_columns(values, columns_.values(kBias));
        if (given_.offset != nullptr) {
            const FloatTile product{scratch(), values.rows, values.pitch};
            rows_.load(given_.row_sums, nullptr, first, values.rows);
            outer_product(product, columns_.values(kOffset), rows_.blocks());
            Add(values.values, values.values, product.values, values.size());
            vector_barrier();
        }
        if (rows_.load(given_.row_weight, given_.per_token_scale, first, values.rows)) {
            multiply_rows(values, rows_.blocks());
        }
        store_.run(values, tile, row);
    }

  private:
    static constexpr int32_t kBias = 0, kOffset = 1;

    Int4Parameters given_;
    int32_t n_;
    TileStore<Out> store_;
    TBuf<TPosition::VECCALC> scratch_;
    ColumnVector columns_;
    RowBlocks rows_;
};

}  // namespace moe_jit::ascend
