// npu_dequant_swiglu_quant of int32 x.
#include "kernel_operator.h"
#include "moe_jit/ascend/dequant_swiglu_quant.h"

extern "C" __global__ __aicore__ void dequant_swiglu_quant_i32(GM_ADDR x, GM_ADDR weight_scale,
                                                               GM_ADDR activation_scale, GM_ADDR bias,
                                                               GM_ADDR quant_scale, GM_ADDR quant_offset,
                                                               GM_ADDR group_index, GM_ADDR y, GM_ADDR scale,
                                                               GM_ADDR /*workspace*/, GM_ADDR tiling) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
    using namespace moe_jit::ascend;
    AscendC::TPipe pipe;
    DequantSwigluQuant<int32_t>(
        {x, weight_scale, activation_scale, bias, quant_scale, quant_offset, group_index, y, scale, tiling},
        pipe)
        .run();
}
