// CPU module of npu_dynamic_quant.
#include <algorithm>
#include <vector>

#include "moe_jit/core/int4.h"
#include "moe_jit/cpu/dequant_swiglu_quant.h"
#include "moe_jit/cpu/group_list.h"
#include "moe_jit/ffi/dynamic_quant_call.h"
#include "moe_jit/ffi/tensors.h"

namespace moe_jit::cpu {
namespace {

using ffi::data;

void decode_row(const ffi::TensorView& tensor, int64_t row, std::vector<float>& values) {
    ffi::with_float_format(ffi::element_of(tensor), [&](auto format) {
        using Format = decltype(format);
        const int64_t width = static_cast<int64_t>(values.size());
        const auto* codes = data<const typename Format::Storage>(tensor) + row * width;
        for (int64_t i = 0; i < width; ++i) values[i] = Format::to_float(codes[i]);
    });
}

// Rows after the last group are smoothed by the last group's row.
std::vector<int64_t> smooth_rows(const ffi::DynamicQuantCall& call) {
    std::vector<int64_t> rows(call.x.size(0), 0);
    if (!call.group_index.has_value()) return rows;
    const int32_t* ends = data<const int32_t>(call.group_index);
    const int64_t last = call.group_index.value().size(0) - 1;
    int64_t group = 0;
    for (int64_t row = 0; row < static_cast<int64_t>(rows.size()); ++row) {
        while (group < last && row >= ends[group]) ++group;
        rows[row] = group;
    }
    return rows;
}

void quantise(const ffi::DynamicQuantCall& call, int64_t row, std::vector<float>& values,
              const float* smooth) {
    const int64_t width = static_cast<int64_t>(values.size());
    constexpr auto kRecipe = QuantRecipe::kMultiplyByRatio;
    float& scale = data<float>(call.scale)[row];
    if (ffi::element_of(call.y) == ffi::Element::kI8) {
        int8_t* y = data<int8_t>(call.y) + row * width;
        scale = quantise_row(kRecipe, 127.0f, values.data(), width, smooth, false,
                             [&](int64_t i, float q) { y[i] = round_to_int8(q); });
        return;
    }
    uint32_t* y = data<uint32_t>(call.y) + row * (width / 8);
    std::fill(y, y + width / 8, 0u);
    scale = quantise_row(kRecipe, 7.0f, values.data(), width, smooth, false, [&](int64_t i, float q) {
        y[i / 8] |= int4_bits(round_to_int4(q), static_cast<int>(i % 8));
    });
}

void dynamic_quant(const ffi::DynamicQuantCall& call) {
    const std::vector<int64_t> groups = smooth_rows(call);
#pragma omp parallel
    {
        std::vector<float> values(call.x.size(1)), smooth(call.x.size(1));
#pragma omp for schedule(static)
        for (int64_t row = 0; row < call.x.size(0); ++row) {
            decode_row(call.x, row, values);
            if (call.smooth_scales.has_value()) decode_row(call.smooth_scales.value(), groups[row], smooth);
            quantise(call, row, values, call.smooth_scales.has_value() ? smooth.data() : nullptr);
        }
    }
}

}  // namespace
}  // namespace moe_jit::cpu

MOE_JIT_EXPORT(dynamic_quant, moe_jit::ffi::read_dynamic_quant_call, moe_jit::cpu::dynamic_quant)
