// Kernels of npu_dequant_swiglu_quant.
#include "moe_jit/cuda/row_launch.h"
#include "moe_jit/cuda/swiglu/direct.cuh"

namespace moe_jit::cuda {
namespace {

using namespace swiglu;

bool can_stream(const DequantSwigluQuantArgs& args) {
    const int x_bytes = args.x_element == Element::kI32 ? 4 : 2;
    return args.dynamic && args.half * x_bytes % 16 == 0 && args.half <= kThreadResults * kMaxThreads &&
           args.rows <= RowStream::kMaxRows && args.glu.bias * args.glu.bias <= kLargestSquares &&
           are_aligned({args.x, args.weight_scale, args.bias, args.quant_scale, args.y});
}

template <class X, GluMode kMode>
cudaError_t launch_for(const DequantSwigluQuantArgs& args, cudaStream_t stream) {
    if (!can_stream(args)) return launch_rows(direct_kernel<X, kMode>, args, kDirectThreads, 0, 0, stream);
    constexpr int kSlots = RowStream::kStages;
    const int64_t row_bytes = 2 * args.half * static_cast<int64_t>(sizeof(typename X::Storage));
    if (args.half > 32 * kThreadResults && args.half <= 32 * kWarpResults) {
        return launch_rows(streamed_kernel<X, kMode, kWarpResults>, args, 32, row_bytes, kSlots, stream);
    }
    return launch_rows(streamed_kernel<X, kMode, kThreadResults>, args,
                       threads_for(args.half, kThreadResults), row_bytes, kSlots, stream);
}

template <class X>
cudaError_t launch_input(const DequantSwigluQuantArgs& args, cudaStream_t stream) {
    switch (args.glu.mode) {
        case GluMode::kSwiglu:
            return launch_for<X, GluMode::kSwiglu>(args, stream);
        case GluMode::kClampedInterleaved:
            return launch_for<X, GluMode::kClampedInterleaved>(args, stream);
        case GluMode::kClampedHalves:
            return launch_for<X, GluMode::kClampedHalves>(args, stream);
        default:
            return launch_for<X, GluMode::kClampedSilu>(args, stream);
    }
}

}  // namespace

cudaError_t launch_dequant_swiglu_quant(const DequantSwigluQuantArgs& args, cudaStream_t stream) {
    switch (args.x_element) {
        case Element::kI32:
            return args.bias ? launch_input<Integers<true>>(args, stream)
                             : launch_input<Integers<false>>(args, stream);
        case Element::kBf16:
            return launch_input<Bf16>(args, stream);
        default:
            return launch_input<F16>(args, stream);
    }
}

}  // namespace moe_jit::cuda
