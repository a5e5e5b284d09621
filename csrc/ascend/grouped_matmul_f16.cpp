// npu_grouped_matmul: float16.
#include "kernel_operator.h"
#include "moe_jit/ascend/grouped_matmul.h"

extern "C" __global__ __aicore__ void grouped_matmul_f16(MOE_JIT_MATMUL_PARAMETERS) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
    using namespace moe_jit::ascend;
    AscendC::TPipe pipe;
    DirectMatmul<Float16<half>, half>(MOE_JIT_MATMUL_ARGUMENTS, pipe).run();
}
