// CPU module of npu_dequant_swiglu_quant.
#include "moe_jit/cpu/dequant_swiglu_quant.h"

#include <algorithm>
#include <vector>

#include "moe_jit/cpu/group_list.h"
#include "moe_jit/ffi/dequant_swiglu_quant_call.h"
#include "moe_jit/ffi/tensors.h"

namespace moe_jit::cpu {
namespace {

using ffi::data;
using ffi::Element;

// Floating-point parameters as fp32, whatever their element type.
std::vector<float> decode_floats(const ffi::Optional<ffi::TensorView>& tensor) {
    if (!tensor.has_value() || ffi::element_of(tensor.value()) == Element::kI32) return {};
    const ffi::TensorView& view = tensor.value();
    std::vector<float> values(view.numel());
    ffi::with_float_format(ffi::element_of(view), [&](auto format) {
        const auto* codes = data<const typename decltype(format)::Storage>(view);
        for (size_t i = 0; i < values.size(); ++i) values[i] = decltype(format)::to_float(codes[i]);
    });
    return values;
}

class Operation {
  public:
    explicit Operation(const ffi::DequantSwigluQuantCall& call)
        : call_(call),
          rows_(call.x.size(0)),
          width_(call.x.size(1)),
          half_(width_ / 2),
          float_bias_(decode_floats(call.bias)),
          glu_{static_cast<GluMode>(call.swiglu_mode), static_cast<float>(call.clamp_limit),
               static_cast<float>(call.glu_alpha), static_cast<float>(call.glu_bias)} {}

    void run() const {
        int64_t written = 0;
        for (const GroupRows& group : groups()) {
            const RowParameters parameters = parameters_of(group.expert);
#pragma omp parallel
            {
                std::vector<float> wide(width_), narrow(half_);
#pragma omp for schedule(static)
                for (int64_t row = group.begin; row < group.end; ++row) {
                    run_row(row, parameters, wide.data(), narrow.data());
                }
            }
            written = group.end;
        }
        std::fill(data<int8_t>(call_.y) + written * half_, data<int8_t>(call_.y) + rows_ * half_, int8_t{0});
        std::fill(data<float>(call_.scale) + written, data<float>(call_.scale) + rows_, 0.0f);
    }

  private:
    std::vector<GroupRows> groups() const {
        if (!call_.group_index.has_value()) return {{0, 0, rows_}};
        const ffi::TensorView& index = call_.group_index.value();
        const auto type = index.ndim() == 2 ? GroupListType::kSparse : GroupListType::kCounts;
        return decode_groups(data<const int64_t>(index), index.size(0), type, rows_, index.size(0));
    }

    RowParameters parameters_of(int64_t group) const {
        RowParameters p{};
        if (call_.weight_scale.has_value()) p.weight_scale = data<float>(call_.weight_scale) + group * width_;
        if (call_.bias.has_value()) {
            const int64_t first = call_.bias.value().size(0) == 1 ? 0 : group * width_;
            if (float_bias_.empty()) {
                p.int_bias = data<int32_t>(call_.bias) + first;
            } else {
                p.float_bias = float_bias_.data() + first;
            }
        }
        const int64_t quant_width = call_.quant_scale.has_value()    ? call_.quant_scale.value().size(1)
                                    : call_.quant_offset.has_value() ? call_.quant_offset.value().size(1)
                                                                     : half_;
        if (call_.quant_scale.has_value())
            p.quant_scale = data<float>(call_.quant_scale) + group * quant_width;
        if (call_.quant_offset.has_value()) {
            p.quant_offset = data<float>(call_.quant_offset) + group * quant_width;
        }
        p.quant_is_scalar = quant_width == 1;
        return p;
    }

    void read_row(int64_t row, const RowParameters& p, float* wide) const {
        const int64_t first = row * width_;
        if (ffi::element_of(call_.x) == Element::kI32) {
            const float* scale = data<float>(call_.activation_scale);
            dequantise_row(data<const int32_t>(call_.x) + first, width_, p, scale ? scale + row : nullptr,
                           wide);
            return;
        }
        ffi::with_float_format(ffi::element_of(call_.x), [&](auto format) {
            const auto* x = data<const typename decltype(format)::Storage>(call_.x) + first;
            for (int64_t i = 0; i < width_; ++i) wide[i] = decltype(format)::to_float(x[i]);
        });
    }

    void run_row(int64_t row, const RowParameters& p, float* wide, float* narrow) const {
        read_row(row, p, wide);
        activate_row(glu_, call_.activate_left, wide, half_, narrow);
        int8_t* y = data<int8_t>(call_.y) + row * half_;
        float& scale = data<float>(call_.scale)[row];
        if (call_.dynamic) {
            const auto recipe = call_.group_index.has_value() ? QuantRecipe::kDivideByScale
                                                              : QuantRecipe::kMultiplyByReciprocal;
            scale = quantise_row(recipe, 127.0f, narrow, half_, p.quant_scale, p.quant_is_scalar,
                                 [&](int64_t i, float q) { y[i] = round_to_int8(q); });
        } else {
            quantise_row_static(narrow, half_, p, y);
            scale = 0.0f;
        }
    }

    const ffi::DequantSwigluQuantCall& call_;
    int64_t rows_, width_, half_;
    std::vector<float> float_bias_;
    Glu glu_;
};

void dequant_swiglu_quant(const ffi::DequantSwigluQuantCall& call) { Operation(call).run(); }

}  // namespace
}  // namespace moe_jit::cpu

MOE_JIT_EXPORT(dequant_swiglu_quant, moe_jit::ffi::read_dequant_swiglu_quant_call,
               moe_jit::cpu::dequant_swiglu_quant)
