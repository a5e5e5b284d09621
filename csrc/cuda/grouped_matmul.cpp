// tvm-ffi entry point of the grouped product on tensor cores: one x whose rows a group list divides, one
// weight [experts, k, n] or one [k, n] for each expert, one y. Python has validated every argument, sizes and
// alignment included.
#include "moe_jit/cuda/grouped_matmul.h"

#include <array>

#include "moe_jit/cuda/binding.h"
#include "moe_jit/cuda/expert_lists.h"
#include "moe_jit/cuda/integer_rows.h"
#include "moe_jit/cuda/scratch.h"
#include "moe_jit/ffi/weight_table.h"

namespace moe_jit::cuda {
namespace {

using ffi::data;
using ffi::element_of;
using ffi::Optional;
using ffi::ProductKind;
using ffi::Tensors;
using ffi::TensorView;

int64_t element_bytes(const TensorView& tensor) { return tensor.dtype().bits / 8; }

int64_t bytes_of(const TensorView& tensor) { return tensor.numel() * element_bytes(tensor); }

ListedTensors expert_list(const Tensors& tensors) {
    ListedTensors list{};
    for (const auto& tensor : tensors) list.data[list.count++] = data<const char>(TensorView(tensor));
    return list;
}

struct Buffers {
    int32_t *row_offsets, *tile_offsets, *expert_ids, *counters;
    char* prepared_x;
    int32_t* row_sums;
    int32_t* weight_at;
    std::array<char*, 5> stacked;  // parameters that come as lists
};

class Operation {
  public:
    explicit Operation(const ffi::GroupedMatmulCall& call)
        : call_(call),
          x_(call.x[0]),
          weights_(call.weight, call.packed_k),
          weight_(call.weight[0]),
          y_(call.y[0]),
          kind_(static_cast<ProductKind>(call.kind)),
          device_(x_) {}

    void run() const {
        Scratch counted(nullptr);
        carve(counted);
        const auto memory = device_.allocate(counted.bytes);
        Scratch scratch(static_cast<char*>(memory.data_ptr()));
        const Buffers buffers = carve(scratch);
        const int sms = device_.num_sms();
        prepare_x(buffers);
        if (is_list()) prepare_lists(buffers);
        check(launch_group_schedule(schedule_args(buffers, sms), device_.stream()), "the group schedule");
        check(launch_product(product_args(buffers, sms), device_.stream()), "the grouped product");
    }

  private:
    bool is_int4() const { return kind_ == ProductKind::kInt4; }
    // 16-bit rows against quantised rows of K, see launch_order_pairs().
    bool is_reordered() const {
        const bool blocked = weight_.ndim() - !is_list() > 2;
        return kind_ == ProductKind::kAntiquant && !blocked && weight_.stride(weight_.ndim() - 1) != 1;
    }
    int64_t rows() const { return x_.size(0); }
    int64_t k() const { return is_int4() ? 8 * x_.size(1) : x_.size(1); }
    int64_t n() const { return y_.size(1); }
    bool is_list() const { return !weights_.is_single(); }
    int num_experts() const { return static_cast<int>(weights_.num_experts()); }
    int num_groups() const { return static_cast<int>(call_.group_list.value().size(0)); }

    std::array<const Optional<Tensors>*, 5> parameters() const {
        return {&call_.bias, &call_.scale, &call_.offset, &call_.antiquant_scale, &call_.antiquant_offset};
    }

    Buffers carve(Scratch& scratch) const {
        Buffers b{};
        b.row_offsets = scratch.take<int32_t>(num_groups() + 1);
        b.tile_offsets = scratch.take<int32_t>(num_groups() + 1);
        b.expert_ids = scratch.take<int32_t>(num_groups());
        b.counters = scratch.take<int32_t>(1);
        b.prepared_x = scratch.take<char>(is_int4() ? rows() * k() : is_reordered() ? 2 * rows() * k() : 0);
        b.row_sums = scratch.take<int32_t>(call_.offset.has_value() ? rows() : 0);
        if (!is_list()) return b;
        b.weight_at = scratch.take<int32_t>(num_experts());
        for (size_t i = 0; i < b.stacked.size(); ++i) {
            if (!parameters()[i]->has_value()) continue;
            b.stacked[i] =
                scratch.take<char>(num_experts() * bytes_of(TensorView(parameters()[i]->value()[0])));
        }
        return b;
    }

    void prepare_x(const Buffers& b) const {
        if (is_int4()) {
            check(launch_unpack_int4(data<const uint32_t>(x_), rows(), k(), x_.stride(0),
                                     reinterpret_cast<int8_t*>(b.prepared_x), device_.stream()),
                  "the unpacking of x");
        } else if (is_reordered()) {
            check(launch_order_pairs(data<const void>(x_), rows(), k(), x_.stride(0) * element_bytes(x_),
                                     weights_.is_int4() ? 4 : 8, b.prepared_x, device_.stream()),
                  "the ordering of x");
        }
        if (call_.offset.has_value()) {
            check(launch_row_sums(data<const int8_t>(x_), rows(), k(), x_.stride(0), b.row_sums,
                                  device_.stream()),
                  "the row sums of x");
        }
    }

    void prepare_lists(const Buffers& b) const {
        const ListedTensors weights = expert_list(call_.weight);
        check(launch_locate(weights, span_of(weights), b.weight_at, device_.stream()), "the weights' places");
        for (size_t i = 0; i < b.stacked.size(); ++i) {
            if (!b.stacked[i]) continue;
            const Tensors& tensors = parameters()[i]->value();
            check(launch_stack(expert_list(tensors), bytes_of(TensorView(tensors[0])), b.stacked[i],
                               device_.stream()),
                  "the stacking of parameters");
        }
    }

    ChannelTable channel_table(const Buffers& b, size_t i) const {
        if (!parameters()[i]->has_value()) return {nullptr, Element::kF32};
        const TensorView table(parameters()[i]->value()[0]);
        return {is_list() ? b.stacked[i] : data<const char>(table), element_of(table)};
    }

    GroupScheduleArgs schedule_args(const Buffers& b, int sms) const {
        GroupScheduleArgs args{};
        args.group_list = data<const int64_t>(call_.group_list);
        args.group_list_type = static_cast<int>(call_.group_list_type);
        args.num_groups = num_groups();
        args.num_experts = num_experts();
        args.num_rows = rows();
        args.tile_tokens = product_tile_tokens();
        args.row_offsets = b.row_offsets;
        args.tile_offsets = b.tile_offsets;
        args.expert_ids = b.expert_ids;
        args.counters = b.counters;
        args.y = data<void>(y_);
        args.row_bytes = n() * element_bytes(y_);
        args.num_sms = sms;
        return args;
    }

    // Groups of k that parameters of int4 weights have.
    int segments() const {
        const auto& grouped = call_.antiquant_scale.has_value() ? call_.antiquant_scale : call_.scale;
        if (element_of(weight_) != Element::kI32) return 1;
        const int64_t experts = is_list() ? 1 : num_experts();
        return static_cast<int>(TensorView(grouped.value()[0]).numel() / (experts * n()));
    }

    ProductArgs product_args(const Buffers& b, int sms) const {
        ProductArgs args{};
        const bool prepared = is_int4() || is_reordered();
        args.x = prepared ? b.prepared_x : data<const void>(x_);
        args.x_pitch = is_int4() ? k() : (prepared ? k() : x_.stride(0)) * element_bytes(x_);
        args.rows = rows();
        args.k = k();
        args.n = n();
        const ExpertSpan span = is_list()
                                    ? span_of(expert_list(call_.weight))
                                    : ExpertSpan{data<const char>(weight_),
                                                 weight_.stride(0) * element_bytes(weight_), num_experts()};
        args.weight = span.begin;
        args.expert_bytes = span.step;
        args.expert_places = span.count;
        args.weight_at = b.weight_at;
        const int dims = weight_.ndim();
        args.depth_stored = dims > 3 ? weight_.size(dims - 3) * weight_.size(dims - 2) : k();
        args.bias = channel_table(b, 0);
        args.scale = channel_table(b, 1);
        args.offset = channel_table(b, 2);
        args.antiquant_scale = channel_table(b, 3);
        args.antiquant_offset = channel_table(b, 4);
        args.segments = segments();
        args.token_scale = data<const float>(call_.per_token_scale);
        args.row_sums = call_.offset.has_value() ? b.row_sums : nullptr;
        args.y = data<void>(y_);
        args.num_groups = num_groups();
        args.row_offsets = b.row_offsets;
        args.tile_offsets = b.tile_offsets;
        args.expert_ids = b.expert_ids;
        args.counters = b.counters;
        args.num_sms = sms;
        args.pdl = true;
        return args;
    }

    const ffi::GroupedMatmulCall& call_;
    TensorView x_;
    ffi::WeightTable weights_;
    TensorView weight_, y_;
    ProductKind kind_;
    DeviceStream device_;
};

void grouped_matmul(const ffi::GroupedMatmulCall& call) { Operation(call).run(); }

}  // namespace
}  // namespace moe_jit::cuda

MOE_JIT_EXPORT(grouped_matmul, moe_jit::ffi::read_grouped_matmul_call, moe_jit::cuda::grouped_matmul)
