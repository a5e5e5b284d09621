// tvm-ffi entry point of the grouped product on CUDA cores: one launch for products that share sizes and
// divide rows or k by a group list, otherwise one for each.
#include "moe_jit/cuda/binding.h"
#include "moe_jit/cuda/direct/args.h"
#include "moe_jit/ffi/weight_table.h"

namespace moe_jit::cuda {
namespace {

using ffi::data;
using ffi::element_of;
using ffi::GroupType;
using ffi::Optional;
using ffi::ProductKind;
using ffi::Tensors;
using ffi::TensorView;

int log2(int64_t power) {
    int shift = 0;
    while ((int64_t{1} << shift) < power) ++shift;
    return shift;
}

StoredMatrix stored_matrix(const WeightView& view) {
    constexpr int kUnblocked = 31;
    const auto shift = [](int64_t block) { return block == INT64_MAX ? kUnblocked : log2(block); };
    return {view.stride_k,       view.stride_n,       view.stride_block_k,
            view.stride_block_n, shift(view.block_k), shift(view.block_n)};
}

class Operation {
  public:
    explicit Operation(const ffi::GroupedMatmulCall& call)
        : call_(call), weights_(call.weight, call.packed_k), device_(TensorView(call.x[0])) {}

    void run() const {
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
    // ---- arguments of a launch

    // Tables of all experts, or of `expert` alone, which then is number 0.
    ExpertTable table(const Optional<Tensors>& tensors, int expert) const {
        ExpertTable result{};
        if (!tensors.has_value()) return result;
        const Tensors& list = tensors.value();
        const TensorView first(list[0]);
        result.stacked = list.size() == 1;
        result.stride = first.numel() / weights_.num_experts() * first.dtype().bits / 8;
        for (size_t i = 0; i < list.size(); ++i) result.base[i] = data<const char>(TensorView(list[i]));
        if (expert >= 0) {
            result.base[0] = result.stacked ? result.base[0] + expert * result.stride : result.base[expert];
            result.stacked = true;
        }
        return result;
    }

    ExpertTable weight_table(int expert) const {
        ExpertTable result{};
        const auto experts = static_cast<int>(weights_.num_experts());
        result.stacked = expert >= 0 || weights_.is_single();
        for (int e = 0; e < (result.stacked ? 1 : experts); ++e) {
            result.base[e] = static_cast<const char*>(weights_.view(expert >= 0 ? expert : e).data);
        }
        if (weights_.is_single()) {
            const TensorView weight(call_.weight[0]);
            result.stride = weight.stride(0) * weight.dtype().bits / 8;
        }
        return result;
    }

    static Element element(const Optional<Tensors>& tensors) {
        return tensors.has_value() ? element_of(TensorView(tensors.value()[0])) : Element::kF32;
    }

    // k-groups of the parameter that has them.
    int segments(int64_t n, int expert) const {
        const auto& grouped = call_.antiquant_scale.has_value() ? call_.antiquant_scale : call_.scale;
        if (!weights_.is_int4() || !grouped.has_value()) return 1;
        const Tensors& list = grouped.value();
        const bool stacked = list.size() == 1;
        const TensorView table(list[stacked || expert < 0 ? 0 : expert]);
        return static_cast<int>(table.numel() / ((stacked ? weights_.num_experts() : 1) * n));
    }

    // Rows of `x` times the weights of all experts, or of `expert`.
    DirectArgs arguments(const TensorView& x, int64_t n, char* y, int expert) const {
        DirectArgs args{};
        const int packing = static_cast<ProductKind>(call_.kind) == ProductKind::kInt4 ? 8 : 1;
        args.x = data<const void>(x);
        args.x_stride_row = x.stride(0) * packing;
        args.x_stride_k = packing == 8 ? 1 : x.stride(1);
        args.rows = static_cast<int>(x.size(0));
        args.k = static_cast<int>(x.size(1) * packing);
        args.n = static_cast<int>(n);
        args.matrix = stored_matrix(weights_.view(expert >= 0 ? expert : 0));
        args.weight = weight_table(expert);
        args.bias = table(call_.bias, expert);
        args.scale = table(call_.scale, expert);
        args.offset = table(call_.offset, expert);
        args.antiquant_scale = table(call_.antiquant_scale, expert);
        args.antiquant_offset = table(call_.antiquant_offset, expert);
        args.bias_element = element(call_.bias);
        args.scale_element = element(call_.scale);
        args.y_element = element_of(TensorView(call_.y[0]));
        args.token_scale = data<const float>(call_.per_token_scale);
        args.segments = segments(n, expert);
        args.act_type = static_cast<PointwiseType>(call_.act_type);
        args.y = y;
        args.only = {0, 0, args.rows, 0};
        return args;
    }

    static int64_t element_bytes(const TensorView& tensor) { return tensor.dtype().bits / 8; }

    void launch(const DirectArgs& args) const {
        if (args.rows > 0 && args.n > 0) check(launch_direct(args, device_.stream()), "the grouped product");
    }

    // ---- launches

    void run_separate() const {
        for (size_t i = 0; i < call_.x.size(); ++i) {
            const TensorView y(call_.y[i]);
            launch(arguments(TensorView(call_.x[i]), y.size(1), data<char>(y), static_cast<int>(i)));
        }
    }

    void run_rows() const {
        if (call_.x.size() > 1) return run_several_x();
        if (call_.y.size() > 1) return run_several_y();
        const TensorView x(call_.x[0]), y(call_.y[0]);
        DirectArgs args = arguments(x, y.size(1), data<char>(y), -1);
        const auto memory = decode(args, args.rows);
        launch(args);
    }

    void run_several_x() const {
        const TensorView y(call_.y[0]);
        int64_t row = 0;
        for (size_t i = 0; i < call_.x.size(); ++i) {
            const TensorView x(call_.x[i]);
            char* out = data<char>(y) + row * y.size(1) * element_bytes(y);
            DirectArgs args = arguments(x, y.size(1), out, static_cast<int>(i));
            if (args.token_scale) args.token_scale += row;
            launch(args);
            row += x.size(0);
        }
    }

    // The host knows the groups: their sizes are those of the outputs.
    void run_several_y() const {
        const TensorView x(call_.x[0]);
        int64_t row = 0;
        for (size_t i = 0; i < call_.y.size(); ++i) {
            const TensorView y(call_.y[i]);
            DirectArgs args = arguments(x, y.size(1), data<char>(y), static_cast<int>(i));
            args.x = static_cast<const char*>(args.x) + row * x.stride(0) * element_bytes(x);
            args.rows = static_cast<int>(y.size(0));
            args.only = {0, 0, args.rows, 0};
            if (args.token_scale) args.token_scale += row;
            launch(args);
            row += y.size(0);
        }
    }

    void run_depth() const {
        const TensorView x(call_.x[0]), first(call_.y[0]);
        const auto groups = static_cast<int>(call_.group_list.value().size(0));
        DirectArgs args = arguments(x, first.size(first.ndim() - 1), data<char>(first), 0);
        const auto memory = decode(args, args.k);
        args.split_k = true;
        args.slice_depth = args.k;
        args.weight_is_slice = call_.weight.size() > 1;
        const bool together = call_.y.size() == 1 && !args.weight_is_slice;
        args.grid_groups = together ? groups : 1;
        if (together) return launch(args);
        for (int g = 0; g < groups; ++g) {
            const TensorView y(call_.y[call_.y.size() == 1 ? 0 : g]);
            args.first_range = g;
            args.n = static_cast<int>(y.size(y.ndim() - 1));
            const int64_t skipped = call_.y.size() == 1 ? g * int64_t{args.rows} * args.n : 0;
            args.y = data<char>(y) + skipped * element_bytes(y);
            const int expert = args.weight_is_slice ? g : 0;
            if (args.weight_is_slice)
                args.slice_depth = static_cast<int>(TensorView(call_.weight[g]).size(0));
            args.matrix = stored_matrix(weights_.view(expert));
            args.weight = weight_table(expert);
            launch(args);
        }
    }

    // Puts the groups that divide [0, total) into scratch memory.
    tvm::ffi::Tensor decode(DirectArgs& args, int64_t total) const {
        const TensorView& list = call_.group_list.value();
        args.num_ranges = static_cast<int>(list.size(0));
        const int64_t bytes = (args.num_ranges + kExtraRanges) * sizeof(GroupRange);
        auto memory = device_.allocate(bytes);
        args.ranges = static_cast<GroupRange*>(memory.data_ptr());
        check(
            launch_ranges(data<const int64_t>(list), args.num_ranges, static_cast<int>(call_.group_list_type),
                          total, static_cast<int>(weights_.num_experts()), args.ranges, device_.stream()),
            "the decoding of the group list");
        return memory;
    }

    const ffi::GroupedMatmulCall& call_;
    ffi::WeightTable weights_;
    DeviceStream device_;
};

void grouped_matmul(const ffi::GroupedMatmulCall& call) { Operation(call).run(); }

}  // namespace
}  // namespace moe_jit::cuda

MOE_JIT_EXPORT(grouped_matmul, moe_jit::ffi::read_grouped_matmul_call, moe_jit::cuda::grouped_matmul)
