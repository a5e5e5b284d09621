// Parameters of an expert's weight: one tensor with a row for each expert, or one tensor for each.
#pragma once

#include <cstdint>
#include <vector>

#include "moe_jit/core/rounding.h"
#include "moe_jit/ffi/weight_table.h"

namespace moe_jit::cpu {

using OptionalTensors = ffi::Optional<ffi::Tensors>;

using ffi::parameter_row;
using ffi::WeightTable;

// Parameters of all experts as fp32.
class FloatTable {
  public:
    FloatTable() = default;
    FloatTable(const OptionalTensors& tensors, int64_t num_experts) {
        if (!tensors.has_value()) return;
        for (const auto& tensor : tensors.value()) {
            append(ffi::TensorView(tensor), tensors.value().size() == 1 ? num_experts : 1);
        }
    }

    bool empty() const { return starts_.size() == 1; }
    int64_t width(int64_t expert) const { return starts_[expert + 1] - starts_[expert]; }
    const float* row(int64_t expert) const { return empty() ? nullptr : values_.data() + starts_[expert]; }

  private:
    // A tensor with the parameters of `rows` experts.
    void append(const ffi::TensorView& view, int64_t rows) {
        for (int64_t row = 0; row < rows; ++row) starts_.push_back(starts_.back() + view.numel() / rows);
        const size_t first = values_.size();
        values_.resize(first + view.numel());
        float* out = values_.data() + first;
        if (ffi::element_of(view) == ffi::Element::kI64) {  // fp32 bits in the low word, used as fp19
            const auto* bits = ffi::data<const uint64_t>(view);
            for (int64_t i = 0; i < view.numel(); ++i)
                out[i] = fp19(bits_float(static_cast<uint32_t>(bits[i])));
            return;
        }
        ffi::with_float_format(ffi::element_of(view), [&](auto format) {
            const auto* codes = ffi::data<const typename decltype(format)::Storage>(view);
            for (int64_t i = 0; i < view.numel(); ++i) out[i] = decltype(format)::to_float(codes[i]);
        });
    }

    std::vector<float> values_;
    std::vector<int64_t> starts_ = {0};
};

}  // namespace moe_jit::cpu
