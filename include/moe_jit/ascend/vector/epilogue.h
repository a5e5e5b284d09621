// Tiles of results on the vector cores: from the ring, through fp32, to global memory.
#pragma once

#include "moe_jit/ascend/schedule.h"
#include "moe_jit/ascend/vector/activation.h"
#include "moe_jit/ascend/vector/column_vector.h"
#include "moe_jit/ascend/vector/rowwise.h"

namespace moe_jit::ascend {

constexpr int32_t kVectorCores = 2;  // of a cube core

// The rows of a tile that belong to this vector core.
struct RowRange {
    int32_t first, count;
};
__aicore__ inline RowRange own_rows(int32_t rows) {
    const int32_t share = ceil_div(rows, kVectorCores);
    const int32_t first = static_cast<int32_t>(GetSubBlockIdx()) * share;
    return {first, first >= rows ? 0 : least(share, rows - first)};
}

// Values that are in fp32, or become so, at a time.
constexpr int32_t kSlab = 4096;

__aicore__ inline int32_t slab_rows(int32_t columns) {
    constexpr int32_t kMost = 248;  // repeats of an instruction, in whole blocks of rows
    return least(kMost, kSlab / round_up(columns, kFractalColumns));
}

// Moves a tile as it is, for widths that the cube core cannot store.
template <class Out>
class CopyEpilogue {
  public:
    __aicore__ inline CopyEpilogue(TPipe& pipe, const MatmulTiling& tiling, Address y)
        : y_(y), n_(tiling.n), slot_pitch_(tiling.base_n) {
        pipe.InitBuffer(queue_, 2, kSlab * sizeof(int32_t));
    }

    __aicore__ inline void run(const Tile& tile, Address slot, const RowRange& range) {
        constexpr int32_t kLanes = kBlockBytes / static_cast<int32_t>(sizeof(Out));
        const int32_t pitch = round_up(tile.columns, kLanes), most = kSlab / pitch;
        for (int32_t done = 0; done < range.count; done += most) {
            const int32_t rows = least(most, range.count - done), row = range.first + done;
            LocalTensor<Out> values = queue_.template AllocTensor<Out>();
            load_rows(values, global<Out>(slot, static_cast<int64_t>(row) * slot_pitch_), rows, tile.columns,
                      slot_pitch_, pitch);
            queue_.EnQue(values);
            values = queue_.template DeQue<Out>();
            const int64_t target = static_cast<int64_t>(tile.row + row) * n_ + tile.column;
            store_rows(global<Out>(y_, target), values, rows, tile.columns, n_, pitch);
            queue_.FreeTensor(values);
        }
    }

  private:
    TQueBind<TPosition::VECIN, TPosition::VECOUT, 1> queue_;
    Address y_;
    int32_t n_, slot_pitch_;
};

// Rounds a tile of fp32 to Out and writes it to rows of a matrix with `columns` columns.
template <class Out>
class TileStore {
  public:
    __aicore__ inline TileStore(TPipe& pipe, Address target, int32_t columns) : target_(target), n_(columns) {
        pipe.InitBuffer(queue_, 2, kSlab * sizeof(Out));
    }

    __aicore__ inline void run(const FloatTile& values, const Tile& tile, int32_t row) {
        const int32_t pitch = round_up(tile.columns, kBlockBytes / static_cast<int32_t>(sizeof(Out)));
        LocalTensor<Out> out = queue_.template AllocTensor<Out>();
        if constexpr (sizeof(Out) == sizeof(float)) {
            Muls(out, values.values, 1.0f, values.size());
            vector_barrier();
        } else {
            narrow_rows(out, pitch, values);
        }
        queue_.EnQue(out);
        out = queue_.template DeQue<Out>();
        const int64_t first = static_cast<int64_t>(tile.row + row) * n_ + tile.column;
        store_rows(global<Out>(target_, first), out, values.rows, tile.columns, n_, pitch);
        queue_.FreeTensor(out);
    }

  private:
    TQue<TPosition::VECOUT, 1> queue_;
    Address target_;
    int32_t n_;
};

// int32 sums of the ring as fp32. Finish: begin(tile) for each tile, then finish(values, tile, row) for some
// of its rows, `row` counted from the tile's first one.
template <class Finish>
class DequantEpilogue {
  public:
    __aicore__ inline DequantEpilogue(TPipe& pipe, const MatmulTiling& tiling, Finish& finish)
        : finish_(finish), slot_pitch_(tiling.base_n) {
        pipe.InitBuffer(sums_, 2, kSlab * sizeof(int32_t));
        pipe.InitBuffer(values_, kSlab * sizeof(float));
    }

    __aicore__ inline void run(const Tile& tile, Address slot, const RowRange& range) {
        if (range.count == 0) return;
        finish_.begin(tile);
        const int32_t most = slab_rows(tile.columns);
        for (int32_t done = 0; done < range.count; done += most) {
            const int32_t rows = least(most, range.count - done), row = range.first + done;
            finish_.finish(load(tile, slot, row, rows), tile, row);
        }
    }

  private:
    __aicore__ inline FloatTile load(const Tile& tile, Address slot, int32_t row, int32_t rows) {
        const FloatTile values{values_.template Get<float>(), rows, round_up(tile.columns, kFloatLanes)};
        LocalTensor<int32_t> sums = sums_.template AllocTensor<int32_t>();
        load_rows(sums, global<int32_t>(slot, static_cast<int64_t>(row) * slot_pitch_), rows, tile.columns,
                  slot_pitch_, values.pitch);
        sums_.EnQue(sums);
        sums = sums_.template DeQue<int32_t>();
        Cast(values.values, sums, RoundMode::CAST_NONE, values.size());
        vector_barrier();
        sums_.FreeTensor(sums);
        return values;
    }

    Finish& finish_;
    TQue<TPosition::VECIN, 1> sums_;
    TBuf<TPosition::VECCALC> values_;
    int32_t slot_pitch_;
};

// A tile's parameters; null where absent.
struct DequantParameters {
    Address scale;            // [experts, n] fp32 or bf16
    Address per_token_scale;  // [rows]
    Address bias;             // [experts, n] bf16
};

// act((values * scale) * per_token_scale + bias), rounded to Out.
template <class Out>
class DequantFinish {
  public:
    __aicore__ inline DequantFinish(TPipe& pipe, const MatmulTiling& tiling, const DequantParameters& given,
                                    Address y)
        : given_(given), tiling_(tiling), store_(pipe, y, tiling.n) {
        pipe.InitBuffer(first_, kSlab * sizeof(float));
        pipe.InitBuffer(second_, kSlab * sizeof(float));
        scale_.init(pipe, tiling.base_n);
        bias_.init(pipe, tiling.base_n);
        row_scale_.init(pipe, tiling.base_m, 1);
    }

    __aicore__ inline void begin(const Tile& tile) {
        const int64_t column = static_cast<int64_t>(tile.expert) * tiling_.n + tile.column;
        scale_.load(given_.scale, column, tile.columns, tiling_.scale_is_bf16);
        if (given_.bias != nullptr) bias_.load(given_.bias, column, tile.columns, true);
    }

    __aicore__ inline void finish(const FloatTile& values, const Tile& tile, int32_t row) {
        multiply_columns(values, scale_.values());
        if (row_scale_.load(given_.per_token_scale, nullptr, tile.row + row, values.rows)) {
            multiply_rows(values, row_scale_.blocks());
        }
        if (given_.bias != nullptr) add_columns(values, bias_.values());
        pointwise(static_cast<PointwiseType>(tiling_.act_type), values.values, first_.Get<float>(),
                  second_.Get<float>(), values.size());
        store_.run(values, tile, row);
    }

  private:
    DequantParameters given_;
    MatmulTiling tiling_;
    TileStore<Out> store_;
    TBuf<TPosition::VECCALC> first_, second_;
    ColumnVector scale_, bias_;
    RowBlocks row_scale_;
};

}  // namespace moe_jit::ascend
