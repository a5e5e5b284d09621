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

// Adds the scaled sums of all segments up in fp32, in their order; then Finish as in DequantEpilogue.
template <class Finish>
class SegmentEpilogue {
  public:
    __aicore__ inline SegmentEpilogue(TPipe& pipe, const MatmulTiling& tiling, Address scale, Finish& finish)
        : finish_(finish), tiling_(tiling), scale_table_(scale) {
        pipe.InitBuffer(sums_, 2, kSlab * sizeof(int32_t));
        pipe.InitBuffer(values_, kSlab * sizeof(float));
        pipe.InitBuffer(totals_, ceil_div(tiling.base_m, kVectorCores) * tiling.base_n * sizeof(float));
        scale_.init(pipe, tiling.base_n);
    }

    // The tile's slot of one segment after the other; ring.receive and release.
    template <class Ring>
    __aicore__ inline void run(const Tile& tile, Ring& ring, const RowRange& range) {
        const int32_t pitch = round_up(tile.columns, kFloatLanes), most = slab_rows(tile.columns);
        const LocalTensor<float> totals = totals_.template Get<float>();
        if (range.count > 0) Duplicate(totals, 0.0f, range.count * pitch);
        vector_barrier();
        for (int32_t segment = 0; segment < tiling_.segments; ++segment) {
            const Address slot = ring.receive();
            if (range.count > 0) {
                const int64_t row = static_cast<int64_t>(tile.expert) * tiling_.segments + segment;
                scale_.load(scale_table_, row * tiling_.n + tile.column, tile.columns);
            }
            for (int32_t done = 0; done < range.count; done += most) {
                const int32_t rows = least(most, range.count - done);
                add_segment(totals[done * pitch], tile, slot, range.first + done, rows);
            }
            ring.release();
        }
        if (range.count == 0) return;
        finish_.begin(tile);
        for (int32_t done = 0; done < range.count; done += most) {
            const FloatTile values{totals[done * pitch], least(most, range.count - done), pitch};
            finish_.finish(values, tile, range.first + done);
        }
    }

  private:
    __aicore__ inline void add_segment(const LocalTensor<float>& totals, const Tile& tile, Address slot,
                                       int32_t row, int32_t rows) {
        const FloatTile values{values_.template Get<float>(), rows, round_up(tile.columns, kFloatLanes)};
        const LocalTensor<int32_t> whole = values.values.template ReinterpretCast<int32_t>();
        for (int32_t piece = 0; piece < tiling_.pieces; ++piece) {
            add_piece(whole, tile, slot, row, rows, piece);
        }
        Cast(values.values, whole, RoundMode::CAST_NONE, values.size());
        vector_barrier();
        multiply_columns(values, scale_.values());
        Add(totals, totals, values.values, values.size());
        vector_barrier();
    }

    __aicore__ inline void add_piece(const LocalTensor<int32_t>& whole, const Tile& tile, Address slot,
                                     int32_t row, int32_t rows, int32_t piece) {
        const int32_t pitch = round_up(tile.columns, kFloatLanes), count = rows * pitch;
        const int64_t first = (static_cast<int64_t>(row) * tiling_.pieces + piece) * tiling_.base_n;
        LocalTensor<int32_t> sums = sums_.template AllocTensor<int32_t>();
        load_rows(sums, global<int32_t>(slot, first), rows, tile.columns,
                  static_cast<int64_t>(tiling_.pieces) * tiling_.base_n, pitch);
        sums_.EnQue(sums);
        sums = sums_.template DeQue<int32_t>();
        const int32_t weight = tiling_.pieces == 1 ? 1 : piece_weight(piece);
        if (piece == 0) {
            Muls(whole, sums, weight, count);
        } else {
            Muls(sums, sums, weight, count);
            vector_barrier();
            Add(whole, whole, sums, count);
        }
        vector_barrier();
        sums_.FreeTensor(sums);
    }

    Finish& finish_;
    MatmulTiling tiling_;
    Address scale_table_;
    TQue<TPosition::VECIN, 1> sums_;
    TBuf<TPosition::VECCALC> values_, totals_;
    PackedScale scale_;
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
        pipe.InitBuffer(product_, kSlab * sizeof(float));
        bias_.init(pipe, tiling.base_n);
        offset_.init(pipe, tiling.base_n);
        row_sums_.init(pipe, tiling.base_m, 1);
        row_scale_.init(pipe, tiling.base_m, 2);
    }

    __aicore__ inline void begin(const Tile& tile) {
        const int64_t column = static_cast<int64_t>(tile.expert) * n_ + tile.column;
        if (given_.bias != nullptr) bias_.load(given_.bias, column, tile.columns, false);
        if (given_.offset != nullptr) offset_.load(given_.offset, column, tile.columns, false);
    }

    __aicore__ inline void finish(const FloatTile& values, const Tile& tile, int32_t row) {
        const int32_t first = tile.row + row;
        if (given_.bias != nullptr) add_columns(values, bias_.values());
        if (given_.offset != nullptr) {
            const FloatTile product{product_.Get<float>(), values.rows, values.pitch};
            row_sums_.load(given_.row_sums, nullptr, first, values.rows);
            outer_product(product, offset_.values(), row_sums_.blocks());
            Add(values.values, values.values, product.values, values.size());
            vector_barrier();
        }
        if (row_scale_.load(given_.row_weight, given_.per_token_scale, first, values.rows)) {
            multiply_rows(values, row_scale_.blocks());
        }
        store_.run(values, tile, row);
    }

  private:
    Int4Parameters given_;
    int32_t n_;
    TileStore<Out> store_;
    TBuf<TPosition::VECCALC> product_;
    ColumnVector bias_, offset_;
    RowBlocks row_sums_, row_scale_;
};

}  // namespace moe_jit::ascend
