// tvm-ffi entry point of npu_dequant_swiglu_quant on CUDA. Python has validated every argument.
#include "moe_jit/cuda/dequant_swiglu_quant.h"

#include "moe_jit/cuda/binding.h"
#include "moe_jit/ffi/dequant_swiglu_quant_call.h"
#include "moe_jit/ffi/tensors.h"

namespace moe_jit::cuda {
namespace {

using ffi::data;

void set_tables(const ffi::DequantSwigluQuantCall& call, DequantSwigluQuantArgs& args) {
    args.weight_scale = data<const float>(call.weight_scale);
    args.activation_scale = data<const float>(call.activation_scale);
    args.bias = data<const void>(call.bias);
    if (call.bias.has_value()) {
        args.bias_element = ffi::element_of(call.bias.value());
        args.bias_is_shared = call.bias.value().size(0) == 1;
    }
    args.quant_scale = data<const float>(call.quant_scale);
    args.quant_offset = data<const float>(call.quant_offset);
    const auto& quant = call.quant_scale.has_value() ? call.quant_scale : call.quant_offset;
    args.quant_is_scalar = quant.has_value() && quant.value().size(1) == 1;
    if (call.group_index.has_value()) {
        args.group_index = data<const int64_t>(call.group_index);
        args.num_groups = static_cast<int>(call.group_index.value().size(0));
        args.groups_are_pairs = call.group_index.value().ndim() == 2;
    }
}

void dequant_swiglu_quant(const ffi::DequantSwigluQuantCall& call) {
    const DeviceStream device(call.x);
    DequantSwigluQuantArgs args{};
    args.x = data<const void>(call.x);
    args.x_element = ffi::element_of(call.x);
    set_tables(call, args);
    args.y = data<int8_t>(call.y);
    args.scale = data<float>(call.scale);
    args.rows = call.x.size(0);
    args.half = static_cast<int>(call.y.size(1));
    args.activate_left = call.activate_left;
    args.dynamic = call.dynamic;
    args.glu = {static_cast<GluMode>(call.swiglu_mode), static_cast<float>(call.clamp_limit),
                static_cast<float>(call.glu_alpha), static_cast<float>(call.glu_bias)};
    args.recipe = args.group_index ? QuantRecipe::kDivideByScale : QuantRecipe::kMultiplyByReciprocal;
    args.num_sms = device.num_sms();
    check(launch_dequant_swiglu_quant(args, device.stream()), "dequant_swiglu_quant");
}

}  // namespace
}  // namespace moe_jit::cuda

MOE_JIT_EXPORT(dequant_swiglu_quant, moe_jit::ffi::read_dequant_swiglu_quant_call,
               moe_jit::cuda::dequant_swiglu_quant)
