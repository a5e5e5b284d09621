// tvm-ffi entry point of the grouped product on tensor cores: one x whose rows a group list divides, or one
// for each expert; one weight [experts, k, n] or one [k, n] for each expert; one y, or one for each expert.
// Python has validated every argument, sizes and alignment included.
#include "moe_jit/cuda/grouped_matmul.h"

#include <array>

#include "moe_jit/core/operator_modes.h"
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

struct Rows {
    const void* data;
    int64_t pitch;  // bytes
};

struct Buffers {
    char* stacked_x;
    int64_t *counts, *y_shift;
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
          device_(x_) {
        for (const auto& x : call.x) rows_ += x.size(0);
    }

    int64_t rows() const { return rows_; }

    void run() const {
        Scratch counted(nullptr);
        carve(counted);
        const auto memory = device_.allocate(counted.bytes);
        Scratch scratch(static_cast<char*>(memory.data_ptr()));
        const Buffers buffers = carve(scratch);
        const int sms = device_.num_sms();
        if (!has_group_list()) list_groups(buffers);
        const Rows x = prepare_x(buffers);
        if (is_list()) prepare_lists(buffers);
        check(launch_group_schedule(schedule_args(buffers, sms), device_.stream()), "the group schedule");
        check(launch_product(product_args(buffers, x, sms), device_.stream()), "the grouped product");
    }

  private:
    bool is_int4() const { return kind_ == ProductKind::kInt4; }
    // 16-bit rows against quantised rows of K, see launch_order_pairs().
    bool is_reordered() const {
        const bool blocked = weight_.ndim() - !is_list() > 2;
        return kind_ == ProductKind::kAntiquant && !blocked && weight_.stride(weight_.ndim() - 1) != 1;
    }
    // Groups have sizes that the host knows where each has an x or a y.
    bool has_group_list() const {
        return call_.x.size() == 1 && call_.y.size() == 1 && call_.group_list.has_value();
    }
    bool is_stacked_x() const { return call_.x.size() > 1; }
    int64_t k() const { return is_int4() ? 8 * x_.size(1) : x_.size(1); }
    int64_t n() const { return y_.size(1); }
    bool is_list() const { return !weights_.is_single(); }
    int num_experts() const { return static_cast<int>(weights_.num_experts()); }
    int num_groups() const {
        return has_group_list() ? static_cast<int>(call_.group_list.value().size(0)) : num_experts();
    }

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
        b.stacked_x = scratch.take<char>(is_stacked_x() ? rows() * x_.size(1) * element_bytes(x_) : 0);
        b.counts = scratch.take<int64_t>(has_group_list() ? 0 : num_groups());
        b.y_shift = scratch.take<int64_t>(call_.y.size() > 1 ? num_groups() : 0);
        if (!is_list()) return b;
        b.weight_at = scratch.take<int32_t>(num_experts());
        for (size_t i = 0; i < b.stacked.size(); ++i) {
            if (!parameters()[i]->has_value()) continue;
            b.stacked[i] =
                scratch.take<char>(num_experts() * bytes_of(TensorView(parameters()[i]->value()[0])));
        }
        return b;
    }

    // Their sizes, and where their results begin from where they would in one tensor, in elements.
    void list_groups(const Buffers& b) const {
        const Tensors& sized = is_stacked_x() ? call_.x : call_.y;
        HostGroups groups{};
        int64_t row = 0;
        for (const auto& tensor : sized) {
            const int g = groups.count++;
            groups.rows[g] = tensor.size(0);
            if (call_.y.size() > 1) {
                const char* natural = data<const char>(y_) + row * n() * element_bytes(y_);
                groups.shift[g] = (data<const char>(TensorView(call_.y[g])) - natural) / element_bytes(y_);
            }
            row += tensor.size(0);
        }
        check(
            launch_list_groups(groups, b.counts, call_.y.size() > 1 ? b.y_shift : nullptr, device_.stream()),
            "the list of groups");
    }

    Rows rows_of_x(const Buffers& b) const {
        const int64_t row_bytes = x_.size(1) * element_bytes(x_);
        if (!is_stacked_x()) return {data<const void>(x_), x_.stride(0) * element_bytes(x_)};
        ListedRows list{};
        int64_t end = 0;
        for (const auto& x : call_.x) {
            list.data[list.count] = data<const char>(TensorView(x));
            list.pitch[list.count] = x.stride(0) * element_bytes(x_);
            list.end[list.count++] = end += x.size(0);
        }
        check(launch_stack_rows(list, row_bytes, b.stacked_x, device_.stream()), "the stacking of x");
        return {b.stacked_x, row_bytes};
    }

    // The same in the order and form that the product takes.
    Rows prepare_x(const Buffers& b) const {
        Rows x = rows_of_x(b);
        if (is_int4()) {
            check(launch_unpack_int4(data<const uint32_t>(x_), rows(), k(), x_.stride(0),
                                     reinterpret_cast<int8_t*>(b.prepared_x), device_.stream()),
                  "the unpacking of x");
            x = {b.prepared_x, k()};
        } else if (is_reordered()) {
            check(launch_order_pairs(x.data, rows(), k(), x.pitch, weights_.is_int4() ? 4 : 8, b.prepared_x,
                                     device_.stream()),
                  "the ordering of x");
            x = {b.prepared_x, k() * element_bytes(x_)};
        }
        if (call_.offset.has_value()) {
            check(launch_row_sums(data<const int8_t>(x_), rows(), k(), x_.stride(0), b.row_sums,
                                  device_.stream()),
                  "the row sums of x");
        }
        return x;
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
        const bool listed = has_group_list();
        args.group_list = listed ? data<const int64_t>(call_.group_list) : b.counts;
        args.group_list_type =
            listed ? static_cast<int>(call_.group_list_type) : static_cast<int>(GroupListType::kCounts);
        args.num_groups = num_groups();
        args.num_experts = num_experts();
        args.num_rows = rows();
        args.tile_tokens = product_tile_tokens();
        args.row_offsets = b.row_offsets;
        args.tile_offsets = b.tile_offsets;
        args.expert_ids = b.expert_ids;
        args.counters = b.counters;
        args.y = data<void>(y_);
        args.row_bytes =
            call_.y.size() > 1 ? 0 : n() * element_bytes(y_);  // of several y, groups are all rows
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

    ProductArgs product_args(const Buffers& b, const Rows& x, int sms) const {
        ProductArgs args{};
        args.x = x.data;
        args.x_pitch = x.pitch;
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
        args.y_shift = call_.y.size() > 1 ? b.y_shift : nullptr;
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
    int64_t rows_ = 0;
};

// Products `first` to `last` of a call without groups.
ffi::GroupedMatmulCall part_of(const ffi::GroupedMatmulCall& call, int64_t first, int64_t last) {
    const auto part = [&](const Tensors& list) { return Tensors(list.begin() + first, list.begin() + last); };
    ffi::GroupedMatmulCall result = call;
    result.x = part(call.x);
    result.weight = part(call.weight);
    result.y = part(call.y);
    for (auto member :
         {&ffi::GroupedMatmulCall::bias, &ffi::GroupedMatmulCall::scale, &ffi::GroupedMatmulCall::offset,
          &ffi::GroupedMatmulCall::antiquant_scale, &ffi::GroupedMatmulCall::antiquant_offset}) {
        if ((call.*member).has_value()) result.*member = part((call.*member).value());
    }
    return result;
}

// Separate products are one for each run of equal sizes.
void run_separate(const ffi::GroupedMatmulCall& call) {
    const auto has_size = [&](size_t i, size_t j) {
        return call.x[i].size(1) == call.x[j].size(1) && call.y[i].size(1) == call.y[j].size(1);
    };
    for (size_t first = 0, last; first < call.x.size(); first = last) {
        for (last = first + 1; last < call.x.size() && has_size(first, last);) ++last;
        const ffi::GroupedMatmulCall part = part_of(call, first, last);
        if (const Operation operation(part); operation.rows() > 0) operation.run();
    }
}

void grouped_matmul(const ffi::GroupedMatmulCall& call) {
    const bool separate = static_cast<ffi::GroupType>(call.group_type) == ffi::GroupType::kNone;
    separate ? run_separate(call) : Operation(call).run();
}

}  // namespace
}  // namespace moe_jit::cuda

MOE_JIT_EXPORT(grouped_matmul, moe_jit::ffi::read_grouped_matmul_call, moe_jit::cuda::grouped_matmul)
