// npu_dequant_swiglu_quant of int32 x.
#include "kernel_operator.h"
#include "moe_jit/ascend/dequant_swiglu_quant.h"

extern "C" __global__ __aicore__ void dequant_swiglu_quant_i32(MOE_JIT_DEQUANT_SWIGLU_QUANT_PARAMETERS) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    using namespace moe_jit::ascend;
    AscendC::TPipe pipe;
    DequantSwigluQuant<int32_t>(MOE_JIT_DEQUANT_SWIGLU_QUANT_ARGUMENTS, pipe).run();
}
