// Parameters of a group of rows: loaded once for each group, or for each part of a row that is too wide.
#pragma once

#include "moe_jit/ascend/vector/alternate.h"
#include "moe_jit/ascend/vector/transfer.h"

namespace moe_jit::ascend::dsq {

// Which columns are in the local memory: `count` of each half from `first` on, in rows of `pitch` elements.
struct Columns {
    int32_t first, count, pitch;
};

// fp32 of any parameter type but int32, which stays.
template <class Out, class T>
__aicore__ inline void convert(const LocalTensor<Out>& out, const LocalTensor<T>& in, int32_t count) {
    if constexpr (sizeof(T) == 2) {
        Cast(out, in, RoundMode::CAST_NONE, count);
    } else {
        Adds(out, in, static_cast<Out>(0), count);
    }
}

// Both halves of a parameter of the width of x: [2, pitch], the activated half first in memory order.
template <class Out>
class WideParameter {
  public:
    __aicore__ inline void init(TPipe& pipe, int32_t pitch) {
        pipe.InitBuffer(values_, 2 * pitch * sizeof(Out));
        pitch_ = pitch;
    }
    __aicore__ inline LocalTensor<Out> half(int32_t index) {
        return values_.template Get<Out>()[index * pitch_];
    }

    // `row` holds 2 * width elements of T; they alternate if `interleaved`.
    template <class T, class Queue>
    __aicore__ inline void load(Queue& queue, const GlobalTensor<T>& row, int32_t width,
                                const Columns& columns, bool interleaved, const LocalTensor<float>& scratch) {
        LocalTensor<T> staged = queue.template AllocTensor<T>();
        if (interleaved) {
            load_vector(staged, row[2 * columns.first], 2 * columns.count);
        } else {
            load_vector(staged, row[columns.first], columns.count);
            load_vector(staged[pitch_], row[width + columns.first], columns.count);
        }
        queue.EnQue(staged);
        staged = queue.template DeQue<T>();
        if (interleaved) {
            const LocalTensor<T> gathered = scratch.template ReinterpretCast<T>();
            gather_alternate<false>(gathered, staged, columns.count);
            vector_barrier();
            convert(half(0), gathered, columns.count);
            vector_barrier();
            gather_alternate<true>(gathered, staged, columns.count);
            vector_barrier();
            convert(half(1), gathered, columns.count);
        } else {
            convert(half(0), staged, columns.count);
            convert(half(1), staged[pitch_], columns.count);
        }
        vector_barrier();
        queue.FreeTensor(staged);
    }

  private:
    TBuf<TPosition::VECCALC> values_;
    int32_t pitch_ = 0;
};

// A parameter of the output's width.
class NarrowParameter {
  public:
    __aicore__ inline void init(TPipe& pipe, int32_t pitch) {
        pipe.InitBuffer(values_, pitch * sizeof(float));
    }
    __aicore__ inline LocalTensor<float> values() { return values_.Get<float>(); }

    template <class Queue>
    __aicore__ inline void load(Queue& queue, const GlobalTensor<float>& row, const Columns& columns) {
        LocalTensor<float> staged = queue.template AllocTensor<float>();
        load_vector(staged, row[columns.first], columns.count);
        queue.EnQue(staged);
        staged = queue.template DeQue<float>();
        convert(values(), staged, columns.count);
        vector_barrier();
        queue.FreeTensor(staged);
    }

  private:
    TBuf<TPosition::VECCALC> values_;
};

}  // namespace moe_jit::ascend::dsq
