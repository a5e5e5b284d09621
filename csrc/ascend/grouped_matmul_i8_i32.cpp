// npu_grouped_matmul: int8 x int8 to int32.
#include "kernel_operator.h"
#include "moe_jit/ascend/grouped_matmul.h"

extern "C" __global__ __aicore__ void grouped_matmul_i8_i32(MOE_JIT_MATMUL_PARAMETERS) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
    using namespace moe_jit::ascend;
    AscendC::TPipe pipe;
    DirectMatmul<Int8, int32_t>(MOE_JIT_MATMUL_ARGUMENTS, pipe).run();
}
