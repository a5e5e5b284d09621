// CPU module of npu_grouped_matmul_finalize_routing.
#include <algorithm>
#include <vector>

#include "moe_jit/core/epilogue.h"
#include "moe_jit/cpu/integer_product.h"
#include "moe_jit/ffi/grouped_matmul_finalize_routing_call.h"

namespace moe_jit::cpu {
namespace {

using ffi::data;
using ffi::Element;
using ffi::element_of;
using ffi::ProductKind;
using ffi::TensorView;

class Operation {
  public:
    explicit Operation(const ffi::GroupedMatmulFinalizeRoutingCall& call)
        : call_(call),
          weights_(call.weight, call.packed_k),
          scale_(call.scale, weights_.num_experts()),
          bias_(call.bias, weights_.num_experts()),
          offset_(call.offset, weights_.num_experts()),
          rows_(call.x.size(0)),
          k_(call.x.size(1)),
          n_(call.y.size(1)),
          groups_(decode_groups(data<const int64_t>(call.group_list), call.group_list.size(0),
                                static_cast<GroupListType>(call.group_list_type), rows_,
                                weights_.num_experts())),
          factors_(row_factors()),
          products_(make_buffer<float>(rows_ * n_)) {
        for (int64_t row = 0; row < rows_; ++row)
            x_.push_back(data<const char>(call.x) + row * call.x.stride(0));
    }

    void run() const {
        static_cast<ProductKind>(call_.kind) == ProductKind::kInt8 ? multiply_int8() : multiply_int8_int4();
        write_shared_input();
        add_rows();
    }

  private:
    // logit * per_token_scale of each row; empty if both are one.
    std::vector<float> row_factors() const {
        const float* logit = data<const float>(call_.logit);
        const float* scale = data<const float>(call_.per_token_scale);
        std::vector<float> factors(logit || scale ? rows_ : 0);
        for (size_t row = 0; row < factors.size(); ++row) {
            factors[row] = logit && scale ? fp32::mul(logit[row], scale[row])
                           : logit        ? logit[row]
                                          : scale[row];
        }
        return factors;
    }

    epilogue::TokenScale row_factor() const { return {factors_.empty() ? nullptr : factors_.data()}; }

    template <class Sum, class... Pieces>
    void store(int64_t row, int64_t column, const Sum* sums, int count, const Pieces&... pieces) const {
        for (int c = 0; c < count; ++c) {
            products_[row * n_ + column + c] =
                epilogue::apply(static_cast<float>(sums[c]), row, column + c, pieces...);
        }
    }

    void multiply_int8() const {
        const float* logit = data<const float>(call_.logit);
        integer_product<int32_t>(
            groups_, rows_, n_, Depth{k_}, weights_, Int8Loader{x_}, [](int64_t) { return Unweighed{}; },
            [&](int64_t expert, int64_t column, int64_t row, const int32_t* sums, int count) {
                const epilogue::ChannelScale<F32> scale{scale_.row(expert)};
                const epilogue::WeighedBias bias{bias_.row(expert), logit};
                store(row, column, sums, count, scale, row_factor(), bias);
            });
    }

    void multiply_int8_int4() const {
        const int64_t segments = scale_.width(0) / n_;
        const auto row_sums = offset_.empty() ? std::vector<int32_t>() : int8_row_sums(x_, k_);
        integer_product<float>(
            groups_, rows_, n_, Depth{k_ / segments, segments}, weights_,
            Int8Loader{x_, int4_weight_shift(bias_)}, SegmentScale{scale_, n_},
            [&](int64_t expert, int64_t column, int64_t row, const float* sums, int count) {
                const epilogue::ChannelBias<F32> bias{bias_.row(expert)};
                const epilogue::WeightOffset offset{offset_.row(expert), row_sums.data()};
                store(row, column, sums, count, bias, offset, row_factor());
            });
    }

    void write_shared_input() const {
        float* y = data<float>(call_.y);
        std::fill(y, y + call_.y.numel(), 0.0f);
        if (!call_.shared_input.has_value()) return;
        const TensorView& shared = call_.shared_input.value();
        const float weight = static_cast<float>(call_.shared_input_weight);
        y += call_.shared_input_offset * n_;
        ffi::with_float_format(element_of(shared), [&](auto format) {
            const auto* values = data<const typename decltype(format)::Storage>(shared);
            for (int64_t i = 0; i < shared.numel(); ++i) {
                y[i] = fp32::mul(weight, decltype(format)::to_float(values[i]));
            }
        });
    }

    int64_t destination(int64_t row) const {
        return element_of(call_.row_index) == Element::kI32 ? data<const int32_t>(call_.row_index)[row]
                                                            : data<const int64_t>(call_.row_index)[row];
    }

    // In ascending order of the rows, whatever the number of threads.
    void add_rows() const {
        constexpr int64_t kColumns = 64;
        const int64_t end = groups_.empty() ? 0 : groups_.back().end;
#pragma omp parallel for schedule(static)
        for (int64_t first = 0; first < n_; first += kColumns) {
            const int64_t last = std::min(first + kColumns, n_);
            for (int64_t row = groups_.empty() ? 0 : groups_.front().begin; row < end; ++row) {
                const int64_t target = destination(row);
                if (target < 0 || target >= call_.y.size(0)) continue;
                float* y = data<float>(call_.y) + target * n_;
                for (int64_t i = first; i < last; ++i) y[i] = fp32::add(y[i], products_[row * n_ + i]);
            }
        }
    }

    const ffi::GroupedMatmulFinalizeRoutingCall& call_;
    WeightTable weights_;
    FloatTable scale_, bias_, offset_;
    int64_t rows_, k_, n_;
    std::vector<GroupRows> groups_;
    std::vector<float> factors_;
    Buffer<float> products_;
    std::vector<const char*> x_;
};

void grouped_matmul_finalize_routing(const ffi::GroupedMatmulFinalizeRoutingCall& call) {
    Operation(call).run();
}

}  // namespace
}  // namespace moe_jit::cpu

MOE_JIT_EXPORT(grouped_matmul_finalize_routing, moe_jit::ffi::read_grouped_matmul_finalize_routing_call,
               moe_jit::cpu::grouped_matmul_finalize_routing)
