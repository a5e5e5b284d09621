// npu_grouped_matmul_finalize_routing with int4 weights.
#include "kernel_operator.h"
#include "moe_jit/ascend/finalize_routing.h"

extern "C" __global__ __aicore__ void grouped_matmul_finalize_routing_i8_i4(MOE_JIT_FINALIZE_PARAMETERS) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
    moe_jit::ascend::FinalizeRouting kernel(MOE_JIT_FINALIZE_ARGUMENTS);
    kernel.run_int4();
}
