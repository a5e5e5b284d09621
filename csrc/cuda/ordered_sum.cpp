// tvm-ffi entry point of ordered_sum. Python has validated every argument.
#include "moe_jit/cuda/ordered_sum.h"

#include "moe_jit/cuda/binding.h"
#include "moe_jit/cuda/row_cache.h"
#include "moe_jit/ffi/ordered_sum_call.h"
#include "moe_jit/ffi/tensors.h"

namespace moe_jit::cuda {
namespace {

using ffi::data;
using ffi::element_of;

void set_shared_input(const ffi::OrderedSumCall& call, OrderedSumArgs& args) {
    if (!call.shared_input.has_value()) return;
    args.shared = data<const void>(call.shared_input);
    args.shared_element = element_of(call.shared_input.value());
    args.shared_weight = static_cast<float>(call.shared_input_weight);
    args.shared_begin = call.shared_input_offset;
    args.shared_rows = call.shared_input.value().size(0);
}

void ordered_sum(const ffi::OrderedSumCall& call) {
    const DeviceStream device(call.rows);
    const auto groups = static_cast<int>(call.group_list.size(0));
    OrderedSumArgs args{};
    args.rows = data<const float>(call.rows);
    args.row_index = data<const void>(call.row_index);
    args.index_element = element_of(call.row_index);
    args.groups = {data<const int64_t>(call.group_list), groups, static_cast<int>(call.group_list_type),
                   call.rows.size(0), groups};
    args.n = static_cast<int>(call.rows.size(1));
    const int64_t row_bytes = args.n * static_cast<int64_t>(sizeof(float));
    args.discards = are_whole_lines(args.rows, row_bytes) &&
                    stay_in_cache(args.groups.num_rows * row_bytes, device.cache_bytes());
    args.token_scale = data<const float>(call.per_token_scale);
    args.logit = data<const float>(call.logit);
    args.bias = data<const uint16_t>(call.bias);
    set_shared_input(call, args);
    args.y = data<float>(call.y);
    args.out_rows = call.y.size(0);
    tvm::ffi::Optional<tvm::ffi::Tensor> index;
    if (const int64_t ints = ordered_sum_index_ints(args.groups.num_rows, args.out_rows); ints > 0) {
        index = device.allocate(ints * static_cast<int64_t>(sizeof(int32_t)));
        args.index = static_cast<int32_t*>(index.value().data_ptr());
    }
    check(launch_ordered_sum(args, device.stream()), "the ordered sum");
}

}  // namespace
}  // namespace moe_jit::cuda

MOE_JIT_EXPORT(ordered_sum, moe_jit::ffi::read_ordered_sum_call, moe_jit::cuda::ordered_sum)
