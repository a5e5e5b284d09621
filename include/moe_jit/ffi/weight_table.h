// Weights and parameters of experts: one tensor with a row for each expert, or one tensor for each.
#pragma once

#include <cstdint>

#include "moe_jit/core/weight_view.h"
#include "moe_jit/ffi/grouped_matmul_call.h"
#include "moe_jit/ffi/tensors.h"

namespace moe_jit::ffi {

// The raw parameters of one expert.
template <class T>
const T* parameter_row(const Tensors& tensors, int64_t num_experts, int64_t expert) {
    if (static_cast<int64_t>(tensors.size()) == num_experts && num_experts > 1) {
        return data<const T>(TensorView(tensors[expert]));
    }
    const TensorView table(tensors[0]);
    return data<const T>(table) + expert * (table.numel() / num_experts);
}

// The weights of all experts.
class WeightTable {
  public:
    WeightTable(const Tensors& weights, bool packed_k) : weights_(weights), packed_k_(packed_k) {}

    bool is_int4() const { return element_of(TensorView(weights_[0])) == Element::kI32; }
    bool is_single() const {
        const auto ndim = weights_[0].ndim();
        return weights_.size() == 1 && (ndim == 3 || ndim == 5);
    }
    int64_t num_experts() const {
        return is_single() ? weights_[0].size(0) : static_cast<int64_t>(weights_.size());
    }

    WeightView view(int64_t expert) const {
        const TensorView tensor(weights_[is_single() ? 0 : expert]);
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
    Tensors weights_;
    bool packed_k_;
};

}  // namespace moe_jit::ffi
