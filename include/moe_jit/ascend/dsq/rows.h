// Rows of x in fp32: loading, and for int32 the scales and the bias.
#pragma once

#include "moe_jit/ascend/dsq/parameters.h"
#include "moe_jit/ascend/tiling.h"

namespace moe_jit::ascend::dsq {

// The tile in fp32: activated half and linear half of each row, and room for one of them.
struct Halves {
    LocalTensor<float> first, second, scratch;
};

// X is int32_t, half or bfloat16_t.
template <class X>
class RowLoader {
  public:
    static constexpr bool kIsInteger = sizeof(X) == 4;

    __aicore__ inline void init(TPipe& pipe, Address x, Address activation_scale,
                                const DequantSwigluQuantTiling& tiling, int32_t pitch, bool interleaved) {
        x_ = global<X>(x);
        activation_scale_ = activation_scale;
        half_ = tiling.half;
        interleaved_ = interleaved;
        pipe.InitBuffer(x_queue_, 2, 2 * tiling.batch_rows * pitch * sizeof(X));
        if (kIsInteger) {
            const int32_t rows = round_up(tiling.batch_rows, kBlockBytes / sizeof(float));
            pipe.InitBuffer(scale_queue_, 1, rows * sizeof(float));
            pipe.InitBuffer(scale_blocks_, rows * kBlockBytes);
        }
    }

    // The scales of rows [row, row + rows), for all columns.
    __aicore__ inline void load_scales(int32_t row, int32_t rows) {
        if (!kIsInteger || activation_scale_ == nullptr) return;
        LocalTensor<float> scales = scale_queue_.AllocTensor<float>();
        load_vector(scales, global<float>(activation_scale_, row), rows);
        scale_queue_.EnQue(scales);
        scales = scale_queue_.DeQue<float>();
        constexpr int32_t kLanes = kBlockBytes / sizeof(float);
        Brcb(scale_blocks_.Get<float>(), scales, static_cast<uint8_t>(ceil_div(rows, kLanes)), {1, kLanes});
        vector_barrier();
        scale_queue_.FreeTensor(scales);
    }

    // x + int_bias in fp32, of any X. `int_bias` is null without one.
    __aicore__ inline void load(const Halves& out, int32_t row, int32_t rows, const Columns& columns,
                                WideParameter<int32_t>* int_bias) {
        LocalTensor<X> x = x_queue_.template AllocTensor<X>();
        copy_in(x, row, rows, columns);
        x_queue_.EnQue(x);
        x = x_queue_.template DeQue<X>();
        const int32_t half_tile = rows * columns.pitch;
        for (int32_t r = 0; r < rows; ++r) {
            if (interleaved_) {
                const LocalTensor<X> pairs = x[2 * r * columns.pitch];
                const LocalTensor<X> gathered = out.scratch.template ReinterpretCast<X>();
                gather_alternate<false>(gathered, pairs, columns.count);
                vector_barrier();
                convert_half(out.first[r * columns.pitch], gathered, columns.count, int_bias, 0);
                vector_barrier();
                gather_alternate<true>(gathered, pairs, columns.count);
                vector_barrier();
                convert_half(out.second[r * columns.pitch], gathered, columns.count, int_bias, 1);
                vector_barrier();
            } else {
                const LocalTensor<X> first = x[r * columns.pitch];
                convert_half(out.first[r * columns.pitch], first, columns.count, int_bias, 0);
                convert_half(out.second[r * columns.pitch], first[half_tile], columns.count, int_bias, 1);
            }
        }
        vector_barrier();
        x_queue_.FreeTensor(x);
    }

    // values * weight_scale * activation_scale + bias, each if it is there.
    __aicore__ inline void scale(const LocalTensor<float>& values, int32_t rows, const Columns& columns,
                                 const LocalTensor<float>& weight_scale, bool has_bias,
                                 const LocalTensor<float>& bias) {
        constexpr int32_t kLanes = kBlockBytes / sizeof(float), kVector = 64;
        const BinaryRepeatParams same_scale(1, 1, 0, kLanes, kLanes, 0);
        for (int32_t r = 0; r < rows; ++r) {
            const LocalTensor<float> row = values[r * columns.pitch];
            Mul(row, row, weight_scale, columns.count);
        }
        vector_barrier();
        if (activation_scale_ != nullptr) {
            const uint64_t mask = kVector;
            for (int32_t r = 0; r < rows; ++r) {
                const LocalTensor<float> row = values[r * columns.pitch];
                Mul(row, row, scale_blocks_.Get<float>()[r * kLanes], mask,
                    static_cast<uint8_t>(columns.pitch / kVector), same_scale);
            }
            vector_barrier();
        }
        if (!has_bias) return;
        for (int32_t r = 0; r < rows; ++r) {
            const LocalTensor<float> row = values[r * columns.pitch];
            Add(row, row, bias, columns.count);
        }
        vector_barrier();
    }

  private:
    __aicore__ inline void copy_in(const LocalTensor<X>& x, int32_t row, int32_t rows,
                                   const Columns& columns) {
        const int64_t width = 2 * static_cast<int64_t>(half_);
        const GlobalTensor<X> source = x_[row * width];
        if (interleaved_) {
            load_rows(x, source[2 * columns.first], rows, 2 * columns.count, width, 2 * columns.pitch);
        } else {
            load_rows(x, source[columns.first], rows, columns.count, width, columns.pitch);
            load_rows(x[rows * columns.pitch], source[half_ + columns.first], rows, columns.count, width,
                      columns.pitch);
        }
    }

    __aicore__ inline void convert_half(const LocalTensor<float>& out, const LocalTensor<X>& in,
                                        int32_t count, WideParameter<int32_t>* int_bias, int32_t which) {
        if constexpr (kIsInteger) {
            if (int_bias != nullptr) {
                Add(in, in, int_bias->half(which), count);
                vector_barrier();
            }
        }
        Cast(out, in, RoundMode::CAST_NONE, count);
    }

    TQue<TPosition::VECIN, 1> x_queue_;
    TQue<TPosition::VECIN, 1> scale_queue_;
    TBuf<TPosition::VECCALC> scale_blocks_;
    GlobalTensor<X> x_;
    Address activation_scale_ = nullptr;
    int32_t half_ = 0;
    bool interleaved_ = false;
};

}  // namespace moe_jit::ascend::dsq
