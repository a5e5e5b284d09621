// tvm-ffi entry point of npu_dynamic_quant on CUDA. Python has validated every argument.
#include "moe_jit/cuda/dynamic_quant.h"

#include "moe_jit/cuda/binding.h"
#include "moe_jit/ffi/dynamic_quant_call.h"
#include "moe_jit/ffi/tensors.h"

namespace moe_jit::cuda {
namespace {

using ffi::data;

void dynamic_quant(const ffi::DynamicQuantCall& call) {
    const DeviceStream device(call.x);
    DynamicQuantArgs args{};
    args.x = data<const void>(call.x);
    args.x_element = ffi::element_of(call.x);
    args.smooth = data<const void>(call.smooth_scales);
    if (call.smooth_scales.has_value()) args.smooth_element = ffi::element_of(call.smooth_scales.value());
    args.group_ends = data<const int32_t>(call.group_index);
    if (call.group_index.has_value()) args.num_groups = static_cast<int>(call.group_index.value().size(0));
    args.y = data<void>(call.y);
    args.int4 = ffi::element_of(call.y) == Element::kI32;
    args.scale = data<float>(call.scale);
    args.rows = call.x.size(0);
    args.width = static_cast<int>(call.x.size(1));
    args.num_sms = device.num_sms();
    check(launch_dynamic_quant(args, device.stream()), "dynamic_quant");
}

}  // namespace
}  // namespace moe_jit::cuda

MOE_JIT_EXPORT(dynamic_quant, moe_jit::ffi::read_dynamic_quant_call, moe_jit::cuda::dynamic_quant)
