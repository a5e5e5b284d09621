// Kernels of npu_dynamic_quant.
#include "moe_jit/cuda/dynamic_quant.cuh"
#include "moe_jit/cuda/row_launch.h"

namespace moe_jit::cuda {
namespace {

using namespace dynamic_quant;

bool can_stream(const DynamicQuantArgs& args) {
    return args.width % kVector == 0 && args.width <= kRuns * kVector * kMaxThreads &&
           args.rows <= RowStream::kMaxRows && are_aligned({args.x, args.smooth, args.y});
}

template <class X, bool kInt4>
cudaError_t launch_for(const DynamicQuantArgs& args, cudaStream_t stream) {
    if (!can_stream(args)) return launch_rows(direct_kernel<X, kInt4>, args, kDirectThreads, 0, 0, stream);
    const int64_t row_bytes = args.width * static_cast<int64_t>(sizeof(typename X::Storage));
    return launch_rows(streamed_kernel<X, kInt4>, args, threads_for(args.width, kRuns * kVector), row_bytes,
                       RowStream::kStages, stream);
}

template <class X>
cudaError_t launch_input(const DynamicQuantArgs& args, cudaStream_t stream) {
    return args.int4 ? launch_for<X, true>(args, stream) : launch_for<X, false>(args, stream);
}

}  // namespace

cudaError_t launch_dynamic_quant(const DynamicQuantArgs& args, cudaStream_t stream) {
    switch (args.x_element) {
        case Element::kF32:
            return launch_input<F32>(args, stream);
        case Element::kBf16:
            return launch_input<Bf16>(args, stream);
        default:
            return launch_input<F16>(args, stream);
    }
}

}  // namespace moe_jit::cuda
