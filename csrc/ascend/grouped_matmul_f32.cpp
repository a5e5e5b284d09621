// npu_grouped_matmul: float32.
#include "kernel_operator.h"
#include "moe_jit/ascend/grouped_matmul.h"

extern "C" __global__ __aicore__ void grouped_matmul_f32(MOE_JIT_MATMUL_PARAMETERS) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
    using namespace moe_jit::ascend;
    AscendC::TPipe pipe;
    DirectMatmul<Float32, float>(MOE_JIT_MATMUL_ARGUMENTS, pipe).run();
}
