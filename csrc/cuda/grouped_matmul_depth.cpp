// tvm-ffi entry point of the grouped product on tensor cores whose groups divide K: one x whose transpose is
// contiguous, one weight [k, n] or a slice of it for each group, one y or one for each group. Python has
// validated every argument, sizes and alignment included.
#include "moe_jit/cuda/binding.h"
#include "moe_jit/cuda/expert_lists.h"
#include "moe_jit/cuda/grouped_matmul.h"
#include "moe_jit/cuda/scratch.h"
#include "moe_jit/ffi/grouped_matmul_call.h"

namespace moe_jit::cuda {
namespace {

using ffi::data;
using ffi::TensorView;

constexpr int64_t kMapBytes = 128;

class Operation {
  public:
    explicit Operation(const ffi::GroupedMatmulCall& call)
        : call_(call),
          x_(call.x[0]),
          y_(call.y[0]),
          groups_(static_cast<int>(call.group_list.value().size(0))),
          device_(x_) {}

    void run() const {
        Scratch counted(nullptr);
        arguments(counted);
        counted.take<int64_t>(groups_);
        const auto memory = device_.allocate(counted.bytes);
        Scratch scratch(static_cast<char*>(memory.data_ptr()));
        DepthProductArgs args = arguments(scratch);
        const DepthSlices slices = listed_slices();
        if (slices.count > 1) args.slices = &slices;
        if (call_.y.size() > 1) args.y_shift = list_results(args, scratch.take<int64_t>(groups_));
        check(launch_depth_product(args, device_.stream()), "the grouped product");
    }

  private:
    const int64_t* list_results(const DepthProductArgs& args, int64_t* shift) const {
        HostGroups groups{};
        const int64_t result_bytes = args.group_tokens * args.n * element_bytes();
        for (const auto& tensor : call_.y) {
            const char* natural = static_cast<const char*>(args.y) + groups.count * result_bytes;
            groups.rows[groups.count] = args.group_tokens;
            groups.shift[groups.count++] = (data<const char>(TensorView(tensor)) - natural) / element_bytes();
        }
        check(launch_list_groups(groups, nullptr, shift, device_.stream()), "the list of results");
        return shift;
    }

    int64_t element_bytes() const { return x_.dtype().bits / 8; }

    DepthSlices listed_slices() const {
        DepthSlices slices{};
        for (const auto& tensor : call_.weight) {
            const TensorView slice(tensor);
            slices.data[slices.count] = data<const char>(slice);
            slices.depth[slices.count++] = static_cast<int32_t>(slice.size(0));
        }
        return slices;
    }

    DepthProductArgs arguments(Scratch& scratch) const {
        DepthProductArgs args{};
        args.weight_maps = scratch.take<char>(groups_ * kMapBytes);  // first: aligned as the allocation is
        args.token_maps = scratch.take<char>(groups_ * kMapBytes);
        args.depths = scratch.take<int32_t>(groups_);
        args.row_offsets = args.row_ends = scratch.take<int32_t>(groups_ + 1);
        args.tile_offsets = args.tile_ends = scratch.take<int32_t>(groups_ + 1);
        args.counters = scratch.take<int32_t>(1);
        args.x = data<const void>(x_);
        args.x_pitch = x_.stride(1) * element_bytes();
        args.group_tokens = static_cast<int>(x_.size(0));
        args.rows = int64_t{groups_} * args.group_tokens;
        args.k = x_.size(1);
        args.n = y_.size(y_.ndim() - 1);
        args.weight = data<const void>(TensorView(call_.weight[0]));
        args.expert_bytes = args.k * args.n * element_bytes();
        args.expert_places = 1;
        args.depth_stored = args.k;
        args.segments = 1;
        args.y = data<void>(y_);
        args.group_list = data<const int64_t>(call_.group_list);
        args.group_list_type = static_cast<int>(call_.group_list_type);
        args.num_groups = groups_;
        args.num_sms = device_.num_sms();
        args.pdl = true;
        return args;
    }

    const ffi::GroupedMatmulCall& call_;
    TensorView x_, y_;
    int groups_;
    DeviceStream device_;
};

void grouped_matmul(const ffi::GroupedMatmulCall& call) { Operation(call).run(); }

}  // namespace
}  // namespace moe_jit::cuda

MOE_JIT_EXPORT(grouped_matmul, moe_jit::ffi::read_grouped_matmul_call, moe_jit::cuda::grouped_matmul)
