// Integer weights as 16-bit floating-point numbers, (w + offset) * scale: moe_jit/core/antiquant.h on the
// vector cores.
#pragma once

#include "moe_jit/ascend/cube/producer.h"
#include "moe_jit/ascend/vector/rowwise.h"

namespace moe_jit::ascend {

// How integers are stored. kPack of them make a byte.
struct Int8Weight {
    using Element = int8_t;
    static constexpr int32_t kPack = 1;
};
struct Int4Weight {
    using Element = int4b_t;
    static constexpr int32_t kPack = 2;
};

// The type of the arithmetic: fp16 rounds after each operation, bf16 once at the end.
template <class T>
struct AntiquantArithmetic;
template <>
struct AntiquantArithmetic<half> {
    using Type = half;
};
template <>
struct AntiquantArithmetic<bfloat16_t> {
    using Type = float;
};

// Scales (or offsets) of a tile's columns, as a vector and as blocks.
template <class T>
class AntiquantVector {
  public:
    using Value = typename AntiquantArithmetic<T>::Type;

    __aicore__ inline void init(TPipe& pipe, int32_t columns) {
        pipe.InitBuffer(queue_, 1, columns * sizeof(T));
        pipe.InitBuffer(values_, columns * sizeof(Value));
        pipe.InitBuffer(blocks_, columns * kBlockBytes);
        Duplicate(values(), static_cast<Value>(0.0f),
                  columns);  // for what lies between a row's end and its pitch
        vector_barrier();
    }

    __aicore__ inline void load(Address table, int64_t first, int32_t columns) {
        LocalTensor<T> staged = queue_.template AllocTensor<T>();
        load_vector(staged, global<T>(table, first), columns);
        queue_.EnQue(staged);
        staged = queue_.template DeQue<T>();
        const int32_t count = round_up(columns, kBlockBytes / static_cast<int32_t>(sizeof(T)));
        if constexpr (sizeof(Value) == sizeof(float)) {
            Cast(values(), staged, RoundMode::CAST_NONE, count);
        } else {
            Muls(values(), staged, static_cast<Value>(1.0f), count);
        }
        vector_barrier();
        queue_.FreeTensor(staged);
    }
    __aicore__ inline void multiply(AntiquantVector& factors, int32_t columns) {
        Mul(values(), values(), factors.values(), columns);
        vector_barrier();
    }
    // Makes blocks() of the values.
    __aicore__ inline void broadcast(int32_t columns) {
        constexpr int32_t kRepeat = 8;  // values that become blocks at a time
        Brcb(blocks(), values(), static_cast<uint8_t>(ceil_div(columns, kRepeat)), {1, kRepeat});
        vector_barrier();
    }
    __aicore__ inline LocalTensor<Value> values() { return values_.template Get<Value>(); }
    __aicore__ inline LocalTensor<Value> blocks() { return blocks_.template Get<Value>(); }

  private:
    TQue<TPosition::VECIN, 1> queue_;
    TBuf<TPosition::VECCALC> values_, blocks_;
};

// T is half or bfloat16_t. Converted tiles keep the orientation of the weight's memory.
template <class Weight, class T>
class WeightConverter {
  public:
    __aicore__ inline WeightConverter(TPipe& pipe, const MatmulTiling& tiling, Address weight, Address scale,
                                      Address offset)
        : tiling_(tiling),
          layout_(static_cast<WeightLayout>(tiling.weight_layout)),
          weight_(weight),
          scale_table_(scale),
          offset_table_(offset) {
        pipe.InitBuffer(raw_, 2, kValues / Weight::kPack);
        pipe.InitBuffer(halves_, kValues * sizeof(half));
        pipe.InitBuffer(values_, kValues * sizeof(Value));
        pipe.InitBuffer(out_, 2, kValues * sizeof(T));
        scale_.init(pipe, tiling.base_n);
        offset_.init(pipe, tiling.base_n);
    }

    __aicore__ inline bool transposed() const {
        return layout_ == WeightLayout::kTransposed || layout_ == WeightLayout::kBlockedTransposed;
    }

    // Writes this vector core's share of a tile to `slot`: [depth, base_n], or [columns, chunk_k] transposed.
    __aicore__ inline void run(Address slot, int32_t expert, const WeightTile& tile) {
        const int32_t length = tiling_.k / tiling_.segments;
        for (int32_t k = tile.k; k < tile.k + tile.depth;) {
            const int32_t segment = k / length;
            const int32_t end = least(tile.k + tile.depth, (segment + 1) * length);
            load_parameters(expert, segment, tile);
            convert_part(slot, expert, tile, k, end - k);
            k = end;
        }
    }

  private:
    using Value = typename AntiquantArithmetic<T>::Type;
    // fp32 holds w * scale and offset * scale exactly, so that adding them rounds as (w + offset) * scale
    // does.
    static constexpr bool kFused = sizeof(Value) == sizeof(float);
    static constexpr int32_t kValues = 4096;
    static constexpr int32_t kBlock = kBlockBytes * Weight::kPack;  // weights in 32 bytes

    __aicore__ inline void load_parameters(int32_t expert, int32_t segment, const WeightTile& tile) {
        const int64_t row = static_cast<int64_t>(expert) * tiling_.segments + segment;
        const int64_t first = row * tiling_.n + tile.column;
        scale_.load(scale_table_, first, tile.columns);
        if (offset_table_ != nullptr) {
            offset_.load(offset_table_, first, tile.columns);
            if constexpr (kFused) offset_.multiply(scale_, tile.columns);
        }
        if (!transposed()) return;
        scale_.broadcast(tile.columns);
        if (offset_table_ != nullptr) offset_.broadcast(tile.columns);
    }

    // Depths [k, k + depth), which share parameters, by the rows of the weight's memory.
    __aicore__ inline void convert_part(Address slot, int32_t expert, const WeightTile& tile, int32_t k,
                                        int32_t depth) {
        const int32_t rows = transposed() ? tile.columns : depth,
                      columns = transposed() ? depth : tile.columns;
        const int32_t pitch = round_up(columns, kBlock), most = kValues / pitch;
        for (int32_t row = static_cast<int32_t>(GetSubBlockIdx()) * most; row < rows; row += 2 * most) {
            const int32_t count = least(most, rows - row);
            const int32_t first_k = transposed() ? k : k + row,
                          first_n = tile.column + (transposed() ? row : 0);
            const RowTile<Value> values = load(expert, first_k, first_n, count, columns, pitch);
            const int64_t target = transposed() ? static_cast<int64_t>(row) * tiling_.chunk_k + (k - tile.k)
                                                : static_cast<int64_t>(k - tile.k + row) * tiling_.base_n;
            store(global<T>(slot, target), values, row, columns);
        }
    }

    __aicore__ inline RowTile<Value> load(int32_t expert, int32_t k, int32_t n, int32_t rows, int32_t columns,
                                          int32_t pitch) {
        LocalTensor<int8_t> raw = raw_.template AllocTensor<int8_t>();
        copy_in(raw, expert, k, n, rows, columns, pitch);
        raw_.EnQue(raw);
        raw = raw_.template DeQue<int8_t>();
        const RowTile<Value> tile{values_.template Get<Value>(), rows, pitch};
        const LocalTensor<half> halves = halves_.template Get<half>();
        const auto integers = raw.template ReinterpretCast<typename Weight::Element>();
        if constexpr (sizeof(Value) == sizeof(half)) {
            Cast(tile.values, integers, RoundMode::CAST_NONE, tile.size());
        } else {
            Cast(halves, integers, RoundMode::CAST_NONE, tile.size());
            vector_barrier();
            Cast(tile.values, halves, RoundMode::CAST_NONE, tile.size());
        }
        vector_barrier();
        raw_.FreeTensor(raw);
        return tile;
    }

    __aicore__ inline void copy_in(const LocalTensor<int8_t>& raw, int32_t expert, int32_t k, int32_t n,
                                   int32_t rows, int32_t columns, int32_t pitch) {
        const int32_t first_row = transposed() ? n : k, first_column = transposed() ? k : n;
        const int32_t all_rows = transposed() ? tiling_.n : tiling_.k;
        const int32_t all_columns = transposed() ? tiling_.k : tiling_.n;
        const int32_t bytes = ceil_div(columns, Weight::kPack), local_pitch = pitch / Weight::kPack;
        if (layout_ == WeightLayout::kRows || layout_ == WeightLayout::kTransposed) {
            const int64_t row = static_cast<int64_t>(expert) * all_rows + first_row;
            const int64_t first = (row * all_columns + first_column) / Weight::kPack;
            load_rows(raw, global<int8_t>(weight_, first), rows, bytes, all_columns / Weight::kPack,
                      local_pitch);
            return;
        }
        const int32_t stored = round_up(all_rows, kFractal), blocks = ceil_div(all_columns, kBlock);
        for (int32_t done = 0; done < columns;) {  // one column of blocks after the other
            const int32_t block = (first_column + done) / kBlock, inside = (first_column + done) % kBlock;
            const int32_t count = least(kBlock - inside, columns - done);
            const int64_t line = (static_cast<int64_t>(expert) * blocks + block) * stored + first_row;
            load_rows(raw[done / Weight::kPack],
                      global<int8_t>(weight_, line * kBlockBytes + inside / Weight::kPack), rows,
                      count / Weight::kPack, kBlockBytes, local_pitch);
            done += count;
        }
    }

    // To `out`; `row` counts the tile's rows, columns of the weight where it is transposed.
    __aicore__ inline void dequantise(const LocalTensor<T>& out, const RowTile<Value>& values, int32_t row) {
        const int32_t first = row * RowTile<Value>::kLanes;
        const bool has_offset = offset_table_ != nullptr;
        if constexpr (kFused) {
            if (transposed()) {
                has_offset ? multiply_add_rows(values, scale_.blocks()[first], offset_.blocks()[first])
                           : multiply_rows(values, scale_.blocks()[first]);
            } else {
                has_offset ? multiply_add_columns(values, scale_.values(), offset_.values())
                           : multiply_columns(values, scale_.values());
            }
            Cast(out, values.values, RoundMode::CAST_RINT, values.size());
            vector_barrier();
        } else if (transposed()) {
            if (has_offset) add_rows(values, offset_.blocks()[first]);
            multiply_rows(out, values, scale_.blocks()[first]);
        } else {
            if (has_offset) add_columns(values, offset_.values());
            multiply_columns(out, values, scale_.values());
        }
    }

    // Columns of `values` between a row's end and its pitch stay behind.
    __aicore__ inline void store(const GlobalTensor<T>& target, const RowTile<Value>& values, int32_t row,
                                 int32_t columns) {
        LocalTensor<T> out = out_.template AllocTensor<T>();
        dequantise(out, values, row);
        out_.EnQue(out);
        out = out_.template DeQue<T>();
        store_rows(target, out, values.rows, columns, transposed() ? tiling_.chunk_k : tiling_.base_n,
                   values.pitch);
        out_.FreeTensor(out);
    }

    MatmulTiling tiling_;
    WeightLayout layout_;
    Address weight_, scale_table_, offset_table_;
    TQue<TPosition::VECIN, 1> raw_;
    TQue<TPosition::VECOUT, 1> out_;
    TBuf<TPosition::VECCALC> halves_, values_;
    AntiquantVector<T> scale_, offset_;
};

}  // namespace moe_jit::ascend
