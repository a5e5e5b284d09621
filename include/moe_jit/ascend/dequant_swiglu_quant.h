// npu_dequant_swiglu_quant on the vector cores: batches of rows, of one group each, dealt out in contiguous
// runs so that a core loads the parameters of few groups.
#pragma once

#include "moe_jit/ascend/dsq/glu.h"
#include "moe_jit/ascend/dsq/row_scale.h"
#include "moe_jit/ascend/dsq/rows.h"
#include "moe_jit/ascend/schedule.h"
#include "moe_jit/ascend/vector/int8.h"

namespace moe_jit::ascend {

// What every entry of npu_dequant_swiglu_quant takes, and passes on as DequantSwigluQuantArguments.
#define MOE_JIT_DEQUANT_SWIGLU_QUANT_PARAMETERS                                                   \
    GM_ADDR x, GM_ADDR weight_scale, GM_ADDR activation_scale, GM_ADDR bias, GM_ADDR quant_scale, \
        GM_ADDR quant_offset, GM_ADDR group_index, GM_ADDR y, GM_ADDR scale, GM_ADDR, GM_ADDR tiling
#define MOE_JIT_DEQUANT_SWIGLU_QUANT_ARGUMENTS \
    {x, weight_scale, activation_scale, bias, quant_scale, quant_offset, group_index, y, scale, tiling}

struct DequantSwigluQuantArguments {
    Address x, weight_scale, activation_scale, bias, quant_scale, quant_offset, group_index, y, scale, tiling;
};

// X is int32_t, half or bfloat16_t.
template <class X>
class DequantSwigluQuant {
  public:
    __aicore__ inline DequantSwigluQuant(const DequantSwigluQuantArguments& arguments, TPipe& pipe)
        : given_(arguments),
          tiling_(read_struct<DequantSwigluQuantTiling>(arguments.tiling)),
          glu_(tiling_),
          pitch_(round_up(tiling_.columns, dsq::kVectorLanes)),
          zeros_(pipe, GetBlockIdx(), GetBlockNum()) {
        const int32_t tile = tiling_.batch_rows * pitch_, parts = ceil_div(tiling_.half, tiling_.columns);
        rows_.init(pipe, given_.x, given_.activation_scale, tiling_, pitch_, glu_.interleaved());
        scales_.init(pipe, tiling_.batch_rows, tiling_.divide_by_scale != 0);
        weight_scale_.init(pipe, pitch_);
        int_bias_.init(pipe, has_int_bias() ? pitch_ : dsq::kLanes);
        float_bias_.init(pipe, has_float_bias() ? pitch_ : dsq::kLanes);
        quant_scale_.init(pipe, pitch_);
        quant_offset_.init(pipe, pitch_);
        pipe.InitBuffer(parameters_, 1, 2 * pitch_ * sizeof(float));
        pipe.InitBuffer(values_, parts * tile * sizeof(float));
        pipe.InitBuffer(linear_, tile * sizeof(float));
        pipe.InitBuffer(scratch_, tile * sizeof(float));
        pipe.InitBuffer(work_,
                        round_up(pitch_, dsq::kVectorLanes * dsq::kLanes) / dsq::kLanes * sizeof(float));
        pipe.InitBuffer(y_queue_, 2, tile);
        pipe.InitBuffer(scale_queue_, 1, round_up(tiling_.batch_rows, dsq::kLanes) * sizeof(float));
        // Columns between a row's end and its pitch take part in instructions over the whole tile.
        Duplicate(values_.template Get<float>(), 0.0f, parts * tile);
        Duplicate(linear_.template Get<float>(), 0.0f, tile);
        vector_barrier();
    }

    __aicore__ inline void run() {
        GroupCursor counting(given_.group_index, tiling_.groups, tiling_.rows);
        Group group;
        int64_t batches = 0;
        while (counting.next(group)) batches += ceil_div(group.count, tiling_.batch_rows);
        const int64_t begin = batches * GetBlockIdx() / GetBlockNum();
        const int64_t end = batches * (GetBlockIdx() + 1) / GetBlockNum();
        GroupCursor cursor(given_.group_index, tiling_.groups, tiling_.rows);
        for (int64_t first = 0; first < end && cursor.next(group);) {
            const int64_t count = ceil_div(group.count, tiling_.batch_rows);
            for (int64_t i = begin > first ? begin - first : 0; i < count && first + i < end; ++i) {
                const int32_t offset = static_cast<int32_t>(i) * tiling_.batch_rows;
                run_batch(group, group.begin + offset, least(tiling_.batch_rows, group.count - offset));
            }
            first += count;
        }
        const int64_t tail = counting.end();
        zeros_.fill(given_.y, tail * tiling_.half, static_cast<int64_t>(tiling_.rows) * tiling_.half);
        zeros_.fill(given_.scale, (tiling_.dynamic ? tail : 0) * sizeof(float),
                    static_cast<int64_t>(tiling_.rows) * sizeof(float));
    }

  private:
    static constexpr int32_t kInt32Bias = 3;

    __aicore__ inline bool has_int_bias() const {
        return given_.bias != nullptr && tiling_.bias_format == kInt32Bias;
    }
    __aicore__ inline bool has_float_bias() const {
        return given_.bias != nullptr && tiling_.bias_format != kInt32Bias;
    }

    __aicore__ inline void run_batch(const Group& group, int32_t row, int32_t rows) {
        const int32_t parts = ceil_div(tiling_.half, tiling_.columns);
        rows_.load_scales(row, rows);
        if (tiling_.dynamic) scales_.clear();
        for (int32_t part = 0; part < parts; ++part) {
            const dsq::Columns columns = columns_of(part);
            if (parts > 1 || loaded_group_ != group.expert) load_parameters(group.expert, columns);
            loaded_group_ = group.expert;
            const LocalTensor<float> values = activate(row, rows, columns, part);
            if (tiling_.dynamic) {
                include_in_scale(values, rows, columns);
            } else {
                quantise_static(values, rows, columns);
                store(values, row, rows, columns);
            }
        }
        if (tiling_.dynamic) finish_dynamic(row, rows, parts);
    }

    __aicore__ inline dsq::Columns columns_of(int32_t part) const {
        const int32_t first = part * tiling_.columns;
        return {first, least(tiling_.columns, tiling_.half - first), pitch_};
    }

    __aicore__ inline LocalTensor<float> values_of(int32_t part) {
        return values_.template Get<float>()[part * tiling_.batch_rows * pitch_];
    }

    __aicore__ inline void load_parameters(int32_t group, const dsq::Columns& columns) {
        const int64_t width = 2 * static_cast<int64_t>(tiling_.half);
        if (given_.weight_scale != nullptr) {
            load_wide<float>(weight_scale_, given_.weight_scale, group * width, columns);
        }
        const int64_t bias = tiling_.bias_rows == 1 ? 0 : group * width;
        if (has_int_bias()) load_wide<int32_t>(int_bias_, given_.bias, bias, columns);
        if (has_float_bias()) {
            if (tiling_.bias_format == 0) load_wide<float>(float_bias_, given_.bias, bias, columns);
            if (tiling_.bias_format == 1) load_wide<half>(float_bias_, given_.bias, bias, columns);
            if (tiling_.bias_format == 2) load_wide<bfloat16_t>(float_bias_, given_.bias, bias, columns);
        }
        if (tiling_.quant_is_scalar) {
            if (given_.quant_scale != nullptr) {
                reciprocal_ = 1.0f / global<float>(given_.quant_scale).GetValue(group);
            }
            if (given_.quant_offset != nullptr) {
                offset_ = global<float>(given_.quant_offset).GetValue(group);
            }
            return;
        }
        const int64_t narrow = static_cast<int64_t>(group) * tiling_.half;
        if (given_.quant_scale != nullptr) {
            quant_scale_.load(parameters_, global<float>(given_.quant_scale, narrow), columns);
        }
        if (given_.quant_offset != nullptr) {
            quant_offset_.load(parameters_, global<float>(given_.quant_offset, narrow), columns);
        }
    }

    template <class T, class Parameter>
    __aicore__ inline void load_wide(Parameter& parameter, Address table, int64_t first,
                                     const dsq::Columns& columns) {
        parameter.template load<T>(parameters_, global<T>(table, first), tiling_.half, columns,
                                   glu_.interleaved(), scratch_.template Get<float>());
    }

    // The gated values of the rows; they stay where they are until the next batch.
    __aicore__ inline LocalTensor<float> activate(int32_t row, int32_t rows, const dsq::Columns& columns,
                                                  int32_t part) {
        const bool swapped = !tiling_.activate_left && !glu_.interleaved();
        const LocalTensor<float> values = values_of(part), linear = linear_.template Get<float>();
        const LocalTensor<float> scratch = scratch_.template Get<float>();
        const dsq::Halves halves{swapped ? linear : values, swapped ? values : linear, scratch};
        rows_.load(halves, row, rows, columns, has_int_bias() ? &int_bias_ : nullptr);
        if constexpr (dsq::RowLoader<X>::kIsInteger) {
            rows_.scale(halves.first, rows, columns, weight_scale_.half(0), has_float_bias(),
                        float_bias_.half(0));
            rows_.scale(halves.second, rows, columns, weight_scale_.half(1), has_float_bias(),
                        float_bias_.half(1));
        }
        glu_.apply(values, linear, scratch, rows * pitch_);
        return values;
    }

    // ---- dynamic quantisation

    __aicore__ inline void include_in_scale(const LocalTensor<float>& values, int32_t rows,
                                            const dsq::Columns& columns) {
        if (given_.quant_scale != nullptr) {
            for (int32_t r = 0; r < rows; ++r) {
                Mul(values[r * pitch_], values[r * pitch_], quant_scale_.values(), columns.count);
            }
            vector_barrier();
        }
        scales_.include(values, scratch_.template Get<float>(), work_.template Get<float>(), rows,
                        columns.count, pitch_);
    }

    __aicore__ inline void finish_dynamic(int32_t row, int32_t rows, int32_t parts) {
        LocalTensor<float> scales = scale_queue_.template AllocTensor<float>();
        scales_.finish(scales);
        scale_queue_.EnQue(scales);
        scales = scale_queue_.template DeQue<float>();
        store_vector(global<float>(given_.scale, row), scales, rows);
        scale_queue_.FreeTensor(scales);
        for (int32_t part = 0; part < parts; ++part) {
            const LocalTensor<float> values = values_of(part);
            for (int32_t r = 0; r < rows; ++r) scales_.apply(values[r * pitch_], r, pitch_);
            vector_barrier();
            store(values, row, rows, columns_of(part));
        }
    }

    // ---- static quantisation

    __aicore__ inline void quantise_static(const LocalTensor<float>& values, int32_t rows,
                                           const dsq::Columns& columns) {
        const int32_t tile = rows * pitch_;
        if (tiling_.quant_is_scalar) {
            if (given_.quant_scale != nullptr) {
                Muls(values, values, reciprocal_, tile);
                vector_barrier();
            }
            if (given_.quant_offset != nullptr) {
                Adds(values, values, offset_, tile);
                vector_barrier();
            }
        } else {
            for (int32_t r = 0; r < rows && given_.quant_scale != nullptr; ++r) {
                Div(values[r * pitch_], values[r * pitch_], quant_scale_.values(), columns.count);
            }
            vector_barrier();
            for (int32_t r = 0; r < rows && given_.quant_offset != nullptr; ++r) {
                Add(values[r * pitch_], values[r * pitch_], quant_offset_.values(), columns.count);
            }
            vector_barrier();
        }
        Maxs(values, values, -128.0f, tile);
        vector_barrier();
        Mins(values, values, 127.0f, tile);
        vector_barrier();
    }

    __aicore__ inline void store(const LocalTensor<float>& values, int32_t row, int32_t rows,
                                 const dsq::Columns& columns) {
        LocalTensor<int8_t> y = y_queue_.template AllocTensor<int8_t>();
        to_int8(y, values, scratch_.template Get<float>(), rows * pitch_);
        vector_barrier();
        y_queue_.EnQue(y);
        y = y_queue_.template DeQue<int8_t>();
        const int64_t first = static_cast<int64_t>(row) * tiling_.half + columns.first;
        store_rows(global<int8_t>(given_.y, first), y, rows, columns.count, tiling_.half, pitch_);
        y_queue_.FreeTensor(y);
    }

    DequantSwigluQuantArguments given_;
    DequantSwigluQuantTiling tiling_;
    dsq::Glu glu_;
    int32_t pitch_;
    ZeroFill zeros_;
    dsq::RowLoader<X> rows_;
    dsq::RowScale scales_;
    dsq::WideParameter<float> weight_scale_, float_bias_;
    dsq::WideParameter<int32_t> int_bias_;
    dsq::NarrowParameter quant_scale_, quant_offset_;
    TQue<TPosition::VECIN, 1> parameters_;
    TQue<TPosition::VECOUT, 1> y_queue_, scale_queue_;
    TBuf<TPosition::VECCALC> values_, linear_, scratch_, work_;
    int32_t loaded_group_ = -1;
    float reciprocal_ = 1.0f, offset_ = 0.0f;
};

}  // namespace moe_jit::ascend
