// npu_grouped_matmul: bfloat16 x int8.
#include "kernel_operator.h"
#include "moe_jit/ascend/antiquant/matmul.h"

extern "C" __global__ __aicore__ void grouped_matmul_bf16_i8(GM_ADDR x, GM_ADDR weight, GM_ADDR bias,
                                                             GM_ADDR scale, GM_ADDR offset,
                                                             GM_ADDR antiquant_scale,
                                                             GM_ADDR antiquant_offset,
                                                             GM_ADDR per_token_scale, GM_ADDR group_list,
                                                             GM_ADDR y, GM_ADDR workspace, GM_ADDR tiling) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
    using namespace moe_jit::ascend;
    AscendC::TPipe pipe;
    AntiquantMatmul<Int8Weight, bfloat16_t>(
        {x, weight, bias, scale, offset, antiquant_scale, antiquant_offset, per_token_scale, group_list, y,
         workspace, tiling},
        pipe)
        .run();
}
