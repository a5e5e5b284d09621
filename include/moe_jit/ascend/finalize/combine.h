// The weighted sum: every output row is owned by one vector core, which adds the rows that name it in
// ascending order. Results do not depend on the number of cores.
#pragma once

#include "moe_jit/ascend/tiling.h"
#include "moe_jit/ascend/vector/transfer.h"

namespace moe_jit::ascend {

// Which rows of a block name an output row.
class RowFinder {
  public:
    static constexpr int32_t kBlockRows = 2048;

    __aicore__ inline RowFinder(TPipe& pipe, Address row_index, bool is_int64)
        : row_index_(row_index), is_int64_(is_int64) {
        pipe.InitBuffer(index_queue_, 1, kBlockRows * (is_int64 ? sizeof(int64_t) : sizeof(int32_t)));
        pipe.InitBuffer(targets_, kBlockRows * sizeof(float));
        pipe.InitBuffer(numbers_, kBlockRows * sizeof(uint32_t));
        pipe.InitBuffer(found_, kBlockRows * sizeof(uint32_t));
        pipe.InitBuffer(mask_, kBlockRows / 8);
        number_rows();
    }

    // Reads the targets of rows [first, first + rows).
    __aicore__ inline void load(int32_t first, int32_t rows) {
        Duplicate(targets_.Get<float>(), -1.0f, kBlockRows);
        vector_barrier();
        is_int64_ ? load_as<int64_t>(first, rows) : load_as<int32_t>(first, rows);
    }

    // How many rows of the block have this target.
    __aicore__ inline int32_t find(int32_t target) {
        Compares(mask_.Get<uint8_t>(), targets_.Get<float>(), static_cast<float>(target), CMPMODE::EQ,
                 kBlockRows);
        vector_barrier();
        uint64_t count = 0;
        GatherMask(found_.Get<uint32_t>(), numbers_.Get<uint32_t>(), mask_.Get<uint32_t>(), true, kBlockRows,
                   GatherMaskParams(1, 1, 0, 0), count);
        const int32_t event = static_cast<int32_t>(GetTPipePtr()->FetchEventID(HardEvent::V_S));
        SetFlag<HardEvent::V_S>(event);
        WaitFlag<HardEvent::V_S>(event);
        return static_cast<int32_t>(count);
    }

    // The i-th of them, counted from the block's first row.
    __aicore__ inline int32_t row(int32_t i) {
        return static_cast<int32_t>(found_.Get<uint32_t>().GetValue(i));
    }

    // Before find() is called again.
    __aicore__ inline void done() {
        const int32_t event = static_cast<int32_t>(GetTPipePtr()->FetchEventID(HardEvent::S_V));
        SetFlag<HardEvent::S_V>(event);
        WaitFlag<HardEvent::S_V>(event);
    }

  private:
    __aicore__ inline void number_rows() {
        constexpr int32_t kLanes = kBlockBytes / sizeof(int32_t);
        const LocalTensor<int32_t> numbers = numbers_.Get<int32_t>();
        for (int32_t i = 0; i < kLanes; ++i) numbers.SetValue(i, i);
        done();
        for (int32_t known = kLanes; known < kBlockRows; known *= 2) {
            Adds(numbers[known], numbers, known, known);
            vector_barrier();
        }
    }

    // Numbers of output rows are exact in fp32; others match none.
    template <class Index>
    __aicore__ inline void load_as(int32_t first, int32_t rows) {
        LocalTensor<int32_t> words = index_queue_.AllocTensor<int32_t>();
        constexpr int32_t kWords = sizeof(Index) / sizeof(int32_t);
        load_vector(words, global<int32_t>(row_index_, static_cast<int64_t>(first) * kWords), rows * kWords);
        index_queue_.EnQue(words);
        words = index_queue_.DeQue<int32_t>();
        const RoundMode mode = kWords == 2 ? RoundMode::CAST_RINT : RoundMode::CAST_NONE;
        Cast(targets_.Get<float>(), words.ReinterpretCast<Index>(), mode, rows);
        vector_barrier();
        index_queue_.FreeTensor(words);
    }

    Address row_index_;
    bool is_int64_;
    TQue<TPosition::VECIN, 1> index_queue_;
    TBuf<TPosition::VECCALC> targets_, numbers_, found_, mask_;
};

// y[t] = shared_weight * shared_input[t - offset] (0 where there is none) + the products of the rows of t.
class RowCombiner {
  public:
    __aicore__ inline RowCombiner(TPipe& pipe, const FinalizeTiling& tiling, Address products,
                                  Address shared_input, Address row_index, Address y)
        : tiling_(tiling),
          products_(products),
          shared_(shared_input),
          y_(y),
          finder_(pipe, row_index, tiling.row_index_is_int64 != 0) {
        pipe.InitBuffer(in_, 2, tiling.combine_columns * sizeof(float));
        pipe.InitBuffer(out_, 2, tiling.combine_columns * sizeof(float));
    }

    // Of this core's output rows the part-th of `parts` shares, in columns [begin, end).
    __aicore__ inline void run(int32_t num_rows, int32_t core, int32_t num_cores, int32_t begin, int32_t end,
                               int32_t part, int32_t parts) {
        begin_ = begin;
        end_ = end;
        const int32_t targets = ceil_div(tiling_.output_rows - core, num_cores);
        const int32_t from = core + targets * part / parts * num_cores;
        const int32_t to = core + targets * (part + 1) / parts * num_cores;
        for (int32_t first = 0; from < to && (first == 0 || first < num_rows);
             first += RowFinder::kBlockRows) {
            finder_.load(first, least(RowFinder::kBlockRows, num_rows - first));
            if (first > 0) await_stores();
            for (int32_t target = from; target < to; target += num_cores) {
                const int32_t count = finder_.find(target);
                if (count > 0 || first == 0) combine(target, first, count);
                finder_.done();
            }
        }
    }

  private:
    // Rows that this core wrote are read again.
    __aicore__ inline void await_stores() {
        const int32_t event = static_cast<int32_t>(GetTPipePtr()->FetchEventID(HardEvent::MTE3_MTE2));
        SetFlag<HardEvent::MTE3_MTE2>(event);
        WaitFlag<HardEvent::MTE3_MTE2>(event);
    }

    __aicore__ inline void combine(int32_t target, int32_t first, int32_t count) {
        const int32_t n = tiling_.matmul.n;
        for (int32_t column = begin_; column < end_; column += tiling_.combine_columns) {
            const int32_t columns = least(tiling_.combine_columns, end_ - column);
            const int64_t place = static_cast<int64_t>(target) * n + column;
            LocalTensor<float> sums = out_.AllocTensor<float>();
            first == 0 ? begin(sums, target, column, columns) : copy(sums, global<float>(y_, place), columns);
            for (int32_t i = 0; i < count; ++i) {
                const int64_t row = first + finder_.row(i);
                LocalTensor<float> terms = load(global<float>(products_, row * n + column), columns);
                Add(sums, sums, terms, columns);
                vector_barrier();
                in_.FreeTensor(terms);
            }
            out_.EnQue(sums);
            sums = out_.DeQue<float>();
            store_vector(global<float>(y_, place), sums, columns);
            out_.FreeTensor(sums);
        }
    }

    template <class T>
    __aicore__ inline LocalTensor<T> load(const GlobalTensor<T>& source, int32_t columns) {
        LocalTensor<T> values = in_.AllocTensor<T>();
        load_vector(values, source, columns);
        in_.EnQue(values);
        return in_.DeQue<T>();
    }

    __aicore__ inline void copy(const LocalTensor<float>& sums, const GlobalTensor<float>& source,
                                int32_t columns) {
        LocalTensor<float> values = load(source, columns);
        Muls(sums, values, 1.0f, columns);
        vector_barrier();
        in_.FreeTensor(values);
    }

    __aicore__ inline void begin(const LocalTensor<float>& sums, int32_t target, int32_t column,
                                 int32_t columns) {
        const int32_t row = target - tiling_.shared_offset;
        if (shared_ == nullptr || row < 0 || row >= tiling_.shared_rows) {
            Duplicate(sums, 0.0f, columns);
            return vector_barrier();
        }
        const int64_t first = static_cast<int64_t>(row) * tiling_.matmul.n + column;
        if (tiling_.shared_format == 0) scale_shared<float>(sums, first, columns);
        if (tiling_.shared_format == 1) scale_shared<half>(sums, first, columns);
        if (tiling_.shared_format == 2) scale_shared<bfloat16_t>(sums, first, columns);
    }

    template <class T>
    __aicore__ inline void scale_shared(const LocalTensor<float>& sums, int64_t first, int32_t columns) {
        LocalTensor<T> values = load(global<T>(shared_, first), columns);
        if constexpr (sizeof(T) == 2) {
            Cast(sums, values, RoundMode::CAST_NONE, columns);
            vector_barrier();
            Muls(sums, sums, tiling_.shared_weight, columns);
        } else {
            Muls(sums, values, tiling_.shared_weight, columns);
        }
        vector_barrier();
        in_.FreeTensor(values);
    }

    FinalizeTiling tiling_;
    Address products_, shared_, y_;
    RowFinder finder_;
    TQue<TPosition::VECIN, 1> in_;
    TQue<TPosition::VECOUT, 1> out_;
    int32_t begin_ = 0, end_ = 0;
};

}  // namespace moe_jit::ascend
