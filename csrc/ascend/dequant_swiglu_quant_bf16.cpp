// npu_dequant_swiglu_quant of bf16 x.
#include "kernel_operator.h"
#include "moe_jit/ascend/dequant_swiglu_quant.h"

extern "C" __global__ __aicore__ void dequant_swiglu_quant_bf16(MOE_JIT_DEQUANT_SWIGLU_QUANT_PARAMETERS) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    using namespace moe_jit::ascend;
    AscendC::TPipe pipe;
    DequantSwigluQuant<bfloat16_t>(MOE_JIT_DEQUANT_SWIGLU_QUANT_ARGUMENTS, pipe).run();
}
