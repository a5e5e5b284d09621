// CPU module of npu_grouped_matmul.
#include <algorithm>
#include <cstring>
#include <vector>

#include "moe_jit/core/antiquant.h"
#include "moe_jit/core/epilogue.h"
#include "moe_jit/cpu/integer_product.h"

namespace moe_jit::cpu {
namespace {

using ffi::data;
using ffi::Element;
using ffi::element_of;
using ffi::GroupType;
using ffi::ProductKind;
using ffi::TensorView;

// Products that share k and n: where each row of x and y starts, and which expert it belongs to.
struct Launch {
    std::vector<GroupRows> groups;
    std::vector<const char*> x;
    std::vector<char*> y;
    int64_t x_stride = 1;  // elements between neighbours of a row
    int64_t k = 0;
    int64_t n = 0;
};

class Operation {
  public:
    explicit Operation(const ffi::GroupedMatmulCall& call)
        : call_(call),
          weights_(call.weight, call.packed_k),
          num_experts_(weights_.num_experts()),
          scale_(has_float_scale() ? FloatTable(call.scale, num_experts_) : FloatTable()),
          bias_(has_float_bias() ? FloatTable(call.bias, num_experts_) : FloatTable()),
          offset_(call.offset, num_experts_),
          antiquant_scale_(call.antiquant_scale, num_experts_),
          antiquant_offset_(call.antiquant_offset, num_experts_) {}

    void run() const {
        for (const auto& y : call_.y) {
            const TensorView view(y);
            std::memset(data<char>(view), 0, view.numel() * view.dtype().bits / 8);
        }
        switch (static_cast<GroupType>(call_.group_type)) {
            case GroupType::kNone:
                return run_separate();
            case GroupType::kRows:
                return run_rows();
            case GroupType::kDepth:
                return run_depth();
        }
    }

  private:
    // ---- parameters

    Element y_element() const { return element_of(TensorView(call_.y[0])); }
    bool has_requant_scale() const { return y_element() == Element::kI8; }
    bool has_float_scale() const { return call_.scale.has_value() && !has_requant_scale(); }
    bool has_float_bias() const {
        return call_.bias.has_value() && element_of(TensorView(call_.bias.value()[0])) != Element::kI32;
    }
    const int32_t* int_bias(int64_t expert) const {
        if (!call_.bias.has_value() || has_float_bias()) return nullptr;
        return parameter_row<int32_t>(call_.bias.value(), num_experts_, expert);
    }
    epilogue::TokenScale token_scale() const { return {data<const float>(call_.per_token_scale)}; }

    // ---- launches

    static void add_rows(Launch& launch, const TensorView& x, char* y, int64_t row_bytes) {
        const int64_t pitch = x.stride(0) * x.dtype().bits / 8;
        for (int64_t row = 0; row < x.size(0); ++row) {
            launch.x.push_back(data<const char>(x) + row * pitch);
            if (y) launch.y.push_back(y + row * row_bytes);
        }
    }

    int64_t depth_of(const TensorView& x) const {
        return static_cast<ProductKind>(call_.kind) == ProductKind::kInt4 ? 8 * x.size(1) : x.size(1);
    }

    int64_t row_bytes(const TensorView& y) const { return y.size(y.ndim() - 1) * y.dtype().bits / 8; }

    void run_separate() const {
        for (size_t i = 0; i < call_.x.size(); ++i) {
            const TensorView x(call_.x[i]), y(call_.y[i]);
            Launch launch;
            launch.groups = {{static_cast<int64_t>(i), 0, x.size(0)}};
            launch.k = depth_of(x);
            launch.n = y.size(1);
            add_rows(launch, x, data<char>(y), row_bytes(y));
            run(launch);
        }
    }

    std::vector<GroupRows> row_groups(int64_t num_rows) const {
        if (call_.x.size() == 1) {
            const TensorView& list = call_.group_list.value();
            return decode_groups(data<const int64_t>(list), list.size(0),
                                 static_cast<GroupListType>(call_.group_list_type), num_rows, num_experts_);
        }
        std::vector<GroupRows> groups;
        int64_t begin = 0;
        for (size_t i = 0; i < call_.x.size(); begin += call_.x[i++].size(0)) {
            groups.push_back({static_cast<int64_t>(i), begin, begin + call_.x[i].size(0)});
        }
        return groups;
    }

    void run_rows() const {
        const TensorView y(call_.y[0]);
        Launch launch;
        launch.k = depth_of(TensorView(call_.x[0]));
        launch.n = y.size(1);
        for (const auto& x : call_.x) add_rows(launch, TensorView(x), nullptr, 0);
        launch.groups = row_groups(static_cast<int64_t>(launch.x.size()));
        if (call_.y.size() > 1) return run_rows_to_several(launch);
        for (size_t row = 0; row < launch.x.size(); ++row) {
            launch.y.push_back(data<char>(y) + row * row_bytes(y));
        }
        run(launch);
    }

    // One output for each group; their widths may differ.
    void run_rows_to_several(const Launch& all) const {
        for (const GroupRows& group : all.groups) {
            const TensorView y(call_.y[group.expert]);
            Launch launch = all;
            launch.groups = {group};
            launch.n = y.size(1);
            launch.y.assign(all.x.size(), nullptr);
            for (int64_t row = group.begin; row < group.end; ++row) {
                launch.y[row] = data<char>(y) + (row - group.begin) * row_bytes(y);
            }
            run(launch);
        }
    }

    // Slices of a weight end where their tensors do, whatever the group list says.
    int64_t depth_of_slice(int64_t group) const {
        return call_.weight.size() == 1 ? INT64_MAX : TensorView(call_.weight[group]).size(0);
    }

    void run_depth() const {
        const TensorView x(call_.x[0]), &list = call_.group_list.value();
        const auto ranges =
            decode_groups(data<const int64_t>(list), list.size(0),
                          static_cast<GroupListType>(call_.group_list_type), x.size(1), list.size(0));
        for (const GroupRows& range : ranges) {
            const bool single = call_.y.size() == 1;
            const TensorView y(call_.y[single ? 0 : range.expert]);
            Launch launch;
            launch.groups = {{range.expert, 0, x.size(0)}};
            launch.k = std::min(range.count(), depth_of_slice(range.expert));
            launch.n = y.size(y.ndim() - 1);
            launch.x_stride = x.stride(1);
            char* first = data<char>(y) + (single ? range.expert * x.size(0) * row_bytes(y) : 0);
            add_rows(launch, x, first, row_bytes(y));
            for (const char*& row : launch.x) row += range.begin * x.stride(1) * x.dtype().bits / 8;
            run_float(launch, call_.weight.size() == 1 ? range.begin : 0);
        }
    }

    // ---- products

    void run(const Launch& launch) const {
        if (launch.groups.empty()) return;
        switch (static_cast<ProductKind>(call_.kind)) {
            case ProductKind::kFloat:
                return run_float(launch, 0);
            case ProductKind::kAntiquant:
                return run_antiquant(launch);
            case ProductKind::kInt8:
                return run_int8(launch);
            case ProductKind::kInt8Int4:
                return run_int8_int4(launch);
            case ProductKind::kInt4:
                return run_int4(launch);
        }
    }

    // The weight that group `expert` multiplies with; a K split has a single matrix.
    WeightView weight_view(int64_t expert) const { return weights_.view(expert < num_experts_ ? expert : 0); }

    template <class Format>
    static Rows<float> float_rows(const Launch& launch, const Depth& depth) {
        return decode_rows<float>(launch.x.size(), depth, [&](int64_t row, int64_t k) {
            const auto* x = reinterpret_cast<const typename Format::Storage*>(launch.x[row]);
            return Format::to_float(x[k * launch.x_stride]);
        });
    }

    // `first_k` is the weight row of the launch's first column of x.
    void run_float(const Launch& launch, int64_t first_k) const {
        ffi::with_float_format(element_of(TensorView(call_.x[0])), [&](auto format) {
            using Format = decltype(format);
            const Depth depth{launch.k};
            multiply_floats<Format>(launch, depth, [&](int64_t expert, int64_t first, int count, float* out) {
                WeightView view = weight_view(expert);
                const auto* base = static_cast<const typename Format::Storage*>(view.data);
                const auto* weight = base + first_k * view.stride_k;
                decode_columns(view, depth, first, count, out, [&](int64_t offset, int64_t, int64_t) {
                    return Format::to_float(weight[offset]);
                });
            });
        });
    }

    void run_antiquant(const Launch& launch) const {
        ffi::with_float_format(element_of(TensorView(call_.x[0])), [&](auto format) {
            using Format = decltype(format);
            const Depth depth{launch.k};
            const int64_t group_length =
                launch.k / (antiquant_scale_.width(launch.groups[0].expert) / launch.n);
            multiply_floats<Format>(launch, depth, [&](int64_t expert, int64_t first, int count, float* out) {
                const WeightView view = weight_view(expert);
                const float* scale = antiquant_scale_.row(expert);
                const float* offset = antiquant_offset_.row(expert);
                const auto dequantised = [&](int32_t weight, int64_t k, int64_t n) {
                    const int64_t i = k / group_length * launch.n + n;
                    const float shift = offset ? offset[i] : 0.0f;
                    return Format::to_float(
                        Antiquant<Format>::apply(static_cast<float>(weight), shift, scale[i]));
                };
                decode_integer_columns(view, weights_.is_int4(), depth, first, count, out, dequantised);
            });
        });
    }

    template <class Format, class Decode>
    void multiply_floats(const Launch& launch, const Depth& depth, const Decode& decode) const {
        const Rows<float> rows = float_rows<Format>(launch, depth);
        grouped_gemm<FloatDomain, float>(
            launch.groups, launch.n, depth, rows.pointers, decode, [](int64_t) { return Unweighed{}; },
            [&](int64_t expert, int64_t column, int64_t row, const float* sums, int count) {
                const epilogue::ChannelBias<F32> bias{bias_.row(expert)};
                store<Format>(launch, row, column, sums, count, bias);
            });
    }

    // Writes `count` neighbours after applying the epilogue's pieces.
    template <class Format, class Sum, class... Pieces>
    static void store(const Launch& launch, int64_t row, int64_t column, const Sum* sums, int count,
                      const Pieces&... pieces) {
        auto* y = reinterpret_cast<typename Format::Storage*>(launch.y[row]);
        for (int c = 0; c < count; ++c) {
            const float value = epilogue::apply(static_cast<float>(sums[c]), row, column + c, pieces...);
            y[column + c] = Format::from_float(value);
        }
    }

    template <class Total, class Load, class WeighOf, class Emit>
    void multiply_integers(const Launch& launch, const Depth& depth, const Load& load,
                           const WeighOf& weigh_of, const Emit& emit) const {
        integer_product<Total>(launch.groups, launch.x.size(), launch.n, depth, weights_, load, weigh_of,
                               emit);
    }

    void run_int8(const Launch& launch) const {
        const auto act = static_cast<PointwiseType>(call_.act_type);
        const Element element = y_element();
        multiply_integers<int32_t>(
            launch, Depth{launch.k}, Int8Loader{launch.x}, [](int64_t) { return Unweighed{}; },
            [&](int64_t expert, int64_t column, int64_t row, int32_t* sums, int count) {
                if (const int32_t* bias = int_bias(expert)) {
                    for (int c = 0; c < count; ++c) sums[c] = wrapping_add(sums[c], bias[column + c]);
                }
                if (element == Element::kI32) {
                    std::memcpy(launch.y[row] + column * 4, sums, count * 4);
                } else if (element == Element::kI8) {
                    const auto* scale = parameter_row<uint64_t>(call_.scale.value(), num_experts_, expert);
                    for (int c = 0; c < count; ++c) {
                        launch.y[row][column + c] =
                            static_cast<char>(RequantParameter::unpack(scale[column + c]).apply(sums[c]));
                    }
                } else {
                    const epilogue::ChannelScale<F32> scale{scale_.row(expert)};
                    const epilogue::ChannelBias<F32> bias{bias_.row(expert)};
                    const epilogue::Activate activate{act};
                    element == Element::kBf16
                        ? store<Bf16>(launch, row, column, sums, count, scale, token_scale(), bias, activate)
                        : store<F16>(launch, row, column, sums, count, scale, token_scale(), bias, activate);
                }
            });
    }

    template <class... Pieces>
    void store_16bit(const Launch& launch, int64_t row, int64_t column, const float* sums, int count,
                     const Pieces&... pieces) const {
        y_element() == Element::kBf16 ? store<Bf16>(launch, row, column, sums, count, pieces...)
                                      : store<F16>(launch, row, column, sums, count, pieces...);
    }

    void run_int8_int4(const Launch& launch) const {
        const int64_t segments = scale_.width(launch.groups[0].expert) / launch.n;
        const Depth depth{launch.k / segments, segments};
        const auto row_sums = offset_.empty() ? std::vector<int32_t>() : int8_row_sums(launch.x, launch.k);
        multiply_integers<float>(
            launch, depth, Int8Loader{launch.x, int4_weight_shift(bias_)}, SegmentScale{scale_, launch.n},
            [&](int64_t expert, int64_t column, int64_t row, const float* sums, int count) {
                store_16bit(launch, row, column, sums, count, epilogue::ChannelBias<F32>{bias_.row(expert)},
                            epilogue::WeightOffset{offset_.row(expert), row_sums.data()}, token_scale());
            });
    }

    void run_int4(const Launch& launch) const {
        const int64_t segments = scale_.width(launch.groups[0].expert) / launch.n;
        const auto load = [&](int64_t row, int64_t k) {
            return static_cast<int16_t>(int4_at(reinterpret_cast<const uint32_t*>(launch.x[row]), k));
        };
        multiply_integers<float>(launch, Depth{launch.k / segments, segments}, load,
                                 SegmentScale{scale_, launch.n},
                                 [&](int64_t, int64_t column, int64_t row, const float* sums, int count) {
                                     store_16bit(launch, row, column, sums, count, token_scale());
                                 });
    }

    const ffi::GroupedMatmulCall& call_;
    WeightTable weights_;
    int64_t num_experts_;
    FloatTable scale_, bias_, offset_, antiquant_scale_, antiquant_offset_;
};

void grouped_matmul(const ffi::GroupedMatmulCall& call) { Operation(call).run(); }

}  // namespace
}  // namespace moe_jit::cpu

MOE_JIT_EXPORT(grouped_matmul, moe_jit::ffi::read_grouped_matmul_call, moe_jit::cpu::grouped_matmul)
