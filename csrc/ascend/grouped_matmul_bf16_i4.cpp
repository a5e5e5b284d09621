// npu_grouped_matmul: bfloat16 x int4.
#include "kernel_operator.h"
#include "moe_jit/ascend/antiquant/matmul.h"

extern "C" __global__ __aicore__ void grouped_matmul_bf16_i4(MOE_JIT_MATMUL_PARAMETERS) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
    using namespace moe_jit::ascend;
    AscendC::TPipe pipe;
    AntiquantMatmul<Int4Weight, bfloat16_t>(MOE_JIT_MATMUL_ARGUMENTS, pipe).run();
}
