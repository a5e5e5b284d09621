// Parameters of an expert's weight: one tensor with a row for each expert, or one tensor for each.
#pragma once

#include <cstdint>
#include <vector>

#include "moe_jit/core/rounding.h"
#include "moe_jit/core/weight_view.h"
#include "moe_jit/ffi/grouped_matmul_call.h"
#include "moe_jit/ffi/tensors.h"

namespace moe_jit::cpu {

using OptionalTensors = ffi::Optional<ffi::Tensors>;

// The raw parameters of one expert.
template <class T>
const T* parameter_row(const ffi::Tensors& tensors, int64_t num_experts, int64_t expert) {
    if (static_cast<int64_t>(tensors.size()) == num_experts && num_experts > 1) {
        return ffi::data<const T>(ffi::TensorView(tensors[expert]));
    }
    const ffi::TensorView table(tensors[0]);
    return ffi::data<const T>(table) + expert * (table.numel() / num_experts);
}

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

// The weights of all experts.
class WeightTable {
  public:
    WeightTable(const ffi::Tensors& weights, bool packed_k) : weights_(weights), packed_k_(packed_k) {}

    bool is_int4() const { return ffi::element_of(ffi::TensorView(weights_[0])) == ffi::Element::kI32; }
    bool is_single() const {
        const auto ndim = weights_[0].ndim();
        return weights_.size() == 1 && (ndim == 3 || ndim == 5);
    }
    int64_t num_experts() const {
        return is_single() ? weights_[0].size(0) : static_cast<int64_t>(weights_.size());
    }

    WeightView view(int64_t expert) const {
        const ffi::TensorView tensor(weights_[is_single() ? 0 : expert]);
        const int skip = is_single() ? 1 : 0;
        const int64_t packing = is_int4() ? 8 : 1;
        const int64_t element_bytes = tensor.dtype().bits / 8;
        const char* data = ffi::data<const char>(tensor);
        if (is_single()) data += expert * tensor.stride(0) * element_bytes;
        const auto stride = [&](int dim) { return tensor.stride(skip + dim) * packing; };
        const auto size = [&](int dim) { return tensor.size(skip + dim); };
        WeightView view{};
        view.data = data;
        if (tensor.ndim() - skip == 4) {  // [n1, k1, block_k, block_n]
            view.block_k = size(2);
            view.block_n = size(3) * packing;
            view.stride_block_n = stride(0);
            view.stride_block_k = stride(1);
            view.stride_k = stride(2);
            view.stride_n = packing == 1 ? stride(3) : 1;
            return view;
        }
        view.block_k = view.block_n = INT64_MAX;
        view.stride_k = packing != 1 && packed_k_ ? 1 : stride(0);
        view.stride_n = packing != 1 && !packed_k_ ? 1 : stride(1);
        return view;
    }

  private:
    ffi::Tensors weights_;
    bool packed_k_;
};

}  // namespace moe_jit::cpu
