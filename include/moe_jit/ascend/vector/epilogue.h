// What the vector cores do with a tile of results in the ring.
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
    return least(kMost, kSlab / round_up(columns, 16));
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

// What the pieces of an epilogue read.
struct DequantParameters {
    Address scale, per_token_scale, bias, y;  // per_token_scale and bias may be null
};

// act((sums * scale) * per_token_scale + bias), rounded to Out.
template <class Out>
class DequantEpilogue {
  public:
    __aicore__ inline DequantEpilogue(TPipe& pipe, const MatmulTiling& tiling, const DequantParameters& given)
        : given_(given), tiling_(tiling) {
        pipe.InitBuffer(sums_, 2, kSlab * sizeof(int32_t));
        pipe.InitBuffer(out_, 2, kSlab * sizeof(Out));
        pipe.InitBuffer(values_, kSlab * sizeof(float));
        pipe.InitBuffer(first_, kSlab * sizeof(float));
        pipe.InitBuffer(second_, kSlab * sizeof(float));
        scale_.init(pipe, tiling.base_n);
        bias_.init(pipe, tiling.base_n);
        row_scale_.init(pipe, tiling.base_m);
    }

    __aicore__ inline void run(const Tile& tile, Address slot, const RowRange& range) {
        if (range.count == 0) return;
        const int64_t column = static_cast<int64_t>(tile.expert) * tiling_.n + tile.column;
        scale_.load(given_.scale, column, tile.columns, tiling_.scale_is_bf16);
        if (given_.bias != nullptr) bias_.load(given_.bias, column, tile.columns, tiling_.bias_is_bf16);
        const int32_t most = slab_rows(tile.columns);
        for (int32_t done = 0; done < range.count; done += most) {
            const int32_t rows = least(most, range.count - done), row = range.first + done;
            const FloatTile values = load(tile, slot, row, rows);
            multiply_columns(values, scale_.values());
            if (given_.per_token_scale != nullptr) {
                row_scale_.load(given_.per_token_scale, tile.row + row, rows);
                multiply_rows(values, row_scale_.blocks());
            }
            if (given_.bias != nullptr) add_columns(values, bias_.values());
            pointwise(static_cast<PointwiseType>(tiling_.act_type), values.values, first_.Get<float>(),
                      second_.Get<float>(), values.size());
            store(values, tile, row);
        }
    }

  private:
    __aicore__ inline FloatTile load(const Tile& tile, Address slot, int32_t row, int32_t rows) {
        const FloatTile values{values_.Get<float>(), rows, round_up(tile.columns, kFloatLanes)};
        LocalTensor<int32_t> sums = sums_.AllocTensor<int32_t>();
        load_rows(sums, global<int32_t>(slot, static_cast<int64_t>(row) * tiling_.base_n), rows, tile.columns,
                  tiling_.base_n, values.pitch);
        sums_.EnQue(sums);
        sums = sums_.DeQue<int32_t>();
        Cast(values.values, sums, RoundMode::CAST_NONE, values.size());
        vector_barrier();
        sums_.FreeTensor(sums);
        return values;
    }

    __aicore__ inline void store(const FloatTile& values, const Tile& tile, int32_t row) {
        const int32_t pitch = round_up(tile.columns, kBlockBytes / static_cast<int32_t>(sizeof(Out)));
        LocalTensor<Out> out = out_.template AllocTensor<Out>();
        narrow_rows(out, pitch, values);
        out_.EnQue(out);
        out = out_.template DeQue<Out>();
        const int64_t target = static_cast<int64_t>(tile.row + row) * tiling_.n + tile.column;
        store_rows(global<Out>(given_.y, target), out, values.rows, tile.columns, tiling_.n, pitch);
        out_.FreeTensor(out);
    }

    DequantParameters given_;
    MatmulTiling tiling_;
    TQue<TPosition::VECIN, 1> sums_;
    TQue<TPosition::VECOUT, 1> out_;
    TBuf<TPosition::VECCALC> values_, first_, second_;
    ColumnVector scale_, bias_;
    RowBlocks row_scale_;
};

}  // namespace moe_jit::ascend
