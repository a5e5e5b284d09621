// Parameters of a tile's columns as fp32.
#pragma once

#include "moe_jit/ascend/vector/transfer.h"

namespace moe_jit::ascend {

class ColumnVector {
  public:
    // `tables`: how many are kept.
    __aicore__ inline void init(TPipe& pipe, int32_t columns, int32_t tables = 1) {
        columns_ = columns;
        pipe.InitBuffer(queue_, 1, columns * sizeof(float));
        pipe.InitBuffer(values_, tables * columns * sizeof(float));
    }

    // `first` counts elements of `table`; the last eight are filled up with zeros.
    __aicore__ inline void load(Address table, int64_t first, int32_t columns, bool is_bf16, int32_t i = 0) {
        is_bf16 ? load_as<bfloat16_t>(table, first, columns, i) : load_as<float>(table, first, columns, i);
    }
    __aicore__ inline LocalTensor<float> values(int32_t i = 0) {
        return values_.Get<float>()[static_cast<uint32_t>(i * columns_)];
    }
    // T is float, half or bfloat16_t.
    template <class T>
    __aicore__ inline void load_as(Address table, int64_t first, int32_t columns, int32_t i = 0) {
        LocalTensor<T> staged = queue_.AllocTensor<T>();
        load_vector(staged, global<T>(table, first), columns);
        queue_.EnQue(staged);
        staged = queue_.DeQue<T>();
        const int32_t count = round_up(columns, kBlockBytes / static_cast<int32_t>(sizeof(float)));
        if constexpr (sizeof(T) == 2) {
            Cast(values(i), staged, RoundMode::CAST_NONE, count);
        } else {
            Muls(values(i), staged, 1.0f, count);
        }
        vector_barrier();
        queue_.FreeTensor(staged);
    }

  private:
    TQue<TPosition::VECIN, 1> queue_;
    TBuf<TPosition::VECCALC> values_;
    int32_t columns_ = 0;
};

// A parameter of rows, or the product of two: each value as a block of eight.
class RowBlocks {
  public:
    // `tables`: how many are loaded at once. (A core has eight events for all its input queues.)
    __aicore__ inline void init(TPipe& pipe, int32_t rows, uint8_t tables) {
        const int32_t padded = round_up(rows, kLanes);
        pipe.InitBuffer(queue_, tables, padded * sizeof(float));
        pipe.InitBuffer(blocks_, padded * kBlockBytes);
    }

    // Either table may be null; false if both are.
    __aicore__ inline bool load(Address first_table, Address second_table, int64_t first, int32_t rows) {
        if (first_table == nullptr && second_table == nullptr) return false;
        const uint8_t repeats = static_cast<uint8_t>(ceil_div(rows, kLanes));
        LocalTensor<float> values = stage(first_table != nullptr ? first_table : second_table, first, rows);
        if (first_table != nullptr && second_table != nullptr) {
            LocalTensor<float> others = stage(second_table, first, rows);
            Mul(values, values, others, repeats * kLanes);
            vector_barrier();
            queue_.FreeTensor(others);
        }
        Brcb(blocks(), values, repeats, {1, kLanes});
        vector_barrier();
        queue_.FreeTensor(values);
        return true;
    }
    __aicore__ inline LocalTensor<float> blocks() { return blocks_.Get<float>(); }

  private:
    static constexpr int32_t kLanes = kBlockBytes / sizeof(float);

    __aicore__ inline LocalTensor<float> stage(Address table, int64_t first, int32_t rows) {
        LocalTensor<float> staged = queue_.AllocTensor<float>();
        load_vector(staged, global<float>(table, first), rows);
        queue_.EnQue(staged);
        return queue_.DeQue<float>();
    }

    TQue<TPosition::VECIN, 1> queue_;
    TBuf<TPosition::VECCALC> blocks_;
};

}  // namespace moe_jit::ascend
