// Dynamic scales: the largest magnitude of each row, and what the row is divided by or multiplied with.
#pragma once

#include "moe_jit/ascend/vector/transfer.h"

namespace moe_jit::ascend::dsq {

constexpr int32_t kLanes = 8;         // fp32 in a block
constexpr int32_t kVectorLanes = 64;  // fp32 in a repeat

class RowScale {
  public:
    // `divide`: scale = amax * (1 / 127) and q = v / scale; otherwise scale = amax / 127 and q = v * (1 /
    // scale).
    __aicore__ inline void init(TPipe& pipe, int32_t rows, bool divide) {
        rows_ = round_up(rows, kLanes);
        divide_ = divide;
        pipe.InitBuffer(amax_, rows_ * kBlockBytes);
        pipe.InitBuffer(packed_, 2 * rows_ * sizeof(float));
        pipe.InitBuffer(blocks_, rows_ * kBlockBytes);
    }

    __aicore__ inline void clear() {
        Duplicate(amax_.Get<float>(), 0.0f, rows_ * kLanes);
        vector_barrier();
    }

    // Takes `count` columns of each row of `values` into account; `scratch` is of the tile's size.
    __aicore__ inline void include(const LocalTensor<float>& values, const LocalTensor<float>& scratch,
                                   const LocalTensor<float>& work, int32_t rows, int32_t count,
                                   int32_t pitch) {
        Abs(scratch, values, rows * pitch);
        vector_barrier();
        const LocalTensor<float> amax = amax_.Get<float>(), found = blocks_.Get<float>();
        Duplicate(found, 0.0f, rows_ * kLanes);
        vector_barrier();
        for (int32_t row = 0; row < rows; ++row) {
            ReduceMax(found[row * kLanes], scratch[row * pitch], work, count);
            vector_barrier();
        }
        Max(amax, amax, found, rows_ * kLanes);
        vector_barrier();
    }

    // Writes the scales of all rows.
    __aicore__ inline void finish(const LocalTensor<float>& scales) {
        const LocalTensor<float> amax = packed_.Get<float>(), factor = packed_.Get<float>()[rows_];
        constexpr int32_t kMask = kVectorLanes;
        BlockReduceMax(amax, amax_.Get<float>(), rows_ / kLanes, kMask, 1, 1, kLanes);
        vector_barrier();
        if (divide_) {
            Muls(scales, amax, 1.0f / 127.0f, rows_);
        } else {
            Duplicate(factor, 127.0f, rows_);
            vector_barrier();
            Div(scales, amax, factor, rows_);
        }
        vector_barrier();
        Maxs(amax, scales, kSmallest, rows_);
        vector_barrier();
        if (!divide_) {
            Duplicate(factor, 1.0f, rows_);
            vector_barrier();
            Div(factor, factor, amax, rows_);
            vector_barrier();
        }
        Brcb(blocks_.Get<float>(), divide_ ? amax : factor, rows_ / kLanes, {1, kLanes});
        vector_barrier();
    }

    // `pitch` columns, a multiple of 64, of row `row` of the tile.
    __aicore__ inline void apply(const LocalTensor<float>& values, int32_t row, int32_t pitch) {
        const LocalTensor<float> factor = blocks_.Get<float>()[row * kLanes];
        const BinaryRepeatParams same_factor(1, 1, 0, kLanes, kLanes, 0);
        const uint64_t mask = kVectorLanes;
        if (divide_) {
            Div(values, values, factor, mask, static_cast<uint8_t>(pitch / kVectorLanes), same_factor);
        } else {
            Mul(values, values, factor, mask, static_cast<uint8_t>(pitch / kVectorLanes), same_factor);
        }
    }

  private:
    // Keeps rows of zeros zero; all their values are.
    static constexpr float kSmallest = 0x1p-126f;

    TBuf<TPosition::VECCALC> amax_, packed_, blocks_;
    int32_t rows_ = 0;
    bool divide_ = true;
};

}  // namespace moe_jit::ascend::dsq
