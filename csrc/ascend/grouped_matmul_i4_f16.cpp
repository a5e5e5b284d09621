// npu_grouped_matmul: int4 x int4 to float16.
#include "kernel_operator.h"
#include "moe_jit/ascend/int4/matmul.h"

extern "C" __global__ __aicore__ void grouped_matmul_i4_f16(MOE_JIT_MATMUL_PARAMETERS) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
    using namespace moe_jit::ascend;
    Int4Matmul<half>(MOE_JIT_MATMUL_ARGUMENTS).run();
}
