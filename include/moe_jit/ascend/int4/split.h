// int8 rows as int4 rows, for products with int4 weights: x = 16 * high + low + 8 with both parts in [-8, 7].
//
// With a bias, which is meant to undo the missing 8, a row becomes two: high, low. Without one it becomes
// three, high, low and fours, because 8 itself is no int4.
#pragma once

#include "moe_jit/ascend/schedule.h"
#include "moe_jit/ascend/vector/transfer.h"

namespace moe_jit::ascend {

// Rows of sums for a row of x.
__aicore__ inline int32_t sum_rows(const MatmulTiling& tiling) {
    return tiling.pieces == 0 ? 1 : tiling.pieces;
}

// What a sum of each piece counts.
__aicore__ inline int32_t piece_weight(int32_t piece) { return piece == 0 ? 16 : piece; }

// Splits all rows, dealt out to the vector cores, and adds each row up; no pieces: only adds up.
class RowSplitter {
  public:
    __aicore__ inline RowSplitter(TPipe& pipe, Address x, const MatmulTiling& tiling)
        : x_(x), rows_(tiling.rows), k_(tiling.k), pieces_(tiling.pieces) {
        pipe.InitBuffer(x_queue_, 2, kColumns);
        pipe.InitBuffer(piece_queue_, 2, kColumns / 2);
        pipe.InitBuffer(sum_queue_, 2, kBlockBytes);
        pipe.InitBuffer(x_half_, kColumns * sizeof(half));
        pipe.InitBuffer(high_, kColumns * sizeof(half));
        pipe.InitBuffer(wide_, kColumns * sizeof(float));
        pipe.InitBuffer(work_, kColumns * sizeof(float) / 8);
        pipe.InitBuffer(partial_, kBlockBytes);
    }

    // `split` receives [rows * pieces, k / 2] bytes; `sums`, fp32 [rows], may be null.
    __aicore__ inline void run(Address split, Address sums, int32_t core, int32_t num_cores) {
        for (int32_t row = core; row < rows_; row += num_cores) {
            LocalTensor<float> total;
            if (sums != nullptr) {
                total = sum_queue_.AllocTensor<float>();
                Duplicate(total, 0.0f, kLanes);
                vector_barrier();
            }
            for (int32_t column = 0; column < k_; column += kColumns) {
                const int32_t count = least(kColumns, k_ - column);
                load(row, column, count);
                if (sums != nullptr) add_up(total, count);
                for (int32_t piece = 0; piece < pieces_; ++piece) {
                    const int64_t first = (static_cast<int64_t>(row) * pieces_ + piece) * k_ + column;
                    store(split + first / 2, piece, count);
                }
            }
            if (sums == nullptr) continue;
            sum_queue_.EnQue(total);
            total = sum_queue_.DeQue<float>();
            store_vector(global<float>(sums, row), total, 1);
            sum_queue_.FreeTensor(total);
        }
    }

  private:
    static constexpr int32_t kColumns = 4096;
    static constexpr int32_t kLanes = kBlockBytes / sizeof(float);

    __aicore__ inline void load(int32_t row, int32_t column, int32_t count) {
        LocalTensor<int8_t> x = x_queue_.AllocTensor<int8_t>();
        load_vector(x, global<int8_t>(x_, static_cast<int64_t>(row) * k_ + column), count);
        x_queue_.EnQue(x);
        x = x_queue_.DeQue<int8_t>();
        Cast(x_half_.Get<half>(), x, RoundMode::CAST_NONE, count);
        vector_barrier();
        x_queue_.FreeTensor(x);
    }

    // Exact: the sum of a row is below 2^24.
    __aicore__ inline void add_up(const LocalTensor<float>& total, int32_t count) {
        const LocalTensor<float> wide = wide_.Get<float>(), partial = partial_.Get<float>();
        Duplicate(partial, 0.0f, kLanes);
        Cast(wide, x_half_.Get<half>(), RoundMode::CAST_NONE, count);
        vector_barrier();
        ReduceSum(partial, wide, work_.Get<float>(), count);
        vector_barrier();
        Add(total, total, partial, kLanes);
        vector_barrier();
    }

    __aicore__ inline void store(Address target, int32_t piece, int32_t count) {
        LocalTensor<int8_t> packed = piece_queue_.AllocTensor<int8_t>();
        convert(packed.ReinterpretCast<int4b_t>(), piece, count);
        vector_barrier();
        piece_queue_.EnQue(packed);
        packed = piece_queue_.DeQue<int8_t>();
        store_vector(global<int8_t>(target), packed, count / 2);
        piece_queue_.FreeTensor(packed);
    }

    // The pieces of a row come in order: `low` continues from what `high` left.
    __aicore__ inline void convert(const LocalTensor<int4b_t>& out, int32_t piece, int32_t count) {
        const LocalTensor<half> x = x_half_.Get<half>(), high = high_.Get<half>();
        if (piece == 0) {
            Muls(high, x, static_cast<half>(0.0625f), count);
            vector_barrier();
            Cast(out, high, RoundMode::CAST_FLOOR, count);
            vector_barrier();
            Cast(high, out, RoundMode::CAST_NONE, count);
            vector_barrier();
            Muls(high, high, static_cast<half>(-16.0f), count);
        } else if (piece == 1) {
            Add(x, x, high, count);
            vector_barrier();
            Adds(x, x, static_cast<half>(-8.0f), count);
            vector_barrier();
            Cast(out, x, RoundMode::CAST_RINT, count);
        } else {
            Duplicate(high, static_cast<half>(4.0f), count);
            vector_barrier();
            Cast(out, high, RoundMode::CAST_RINT, count);
        }
        vector_barrier();
    }

    TQue<TPosition::VECIN, 1> x_queue_;
    TQue<TPosition::VECOUT, 1> piece_queue_, sum_queue_;
    TBuf<TPosition::VECCALC> x_half_, high_, wide_, work_, partial_;
    Address x_;
    int32_t rows_, k_, pieces_;
};

}  // namespace moe_jit::ascend
