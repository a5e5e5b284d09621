// npu_grouped_matmul_finalize_routing with int8 weights.
#include "kernel_operator.h"
#include "moe_jit/ascend/finalize_routing.h"

extern "C" __global__ __aicore__ void grouped_matmul_finalize_routing_i8(
    GM_ADDR x, GM_ADDR weight, GM_ADDR group_list, GM_ADDR scale, GM_ADDR bias, GM_ADDR offset,
    GM_ADDR per_token_scale, GM_ADDR shared_input, GM_ADDR logit, GM_ADDR row_index, GM_ADDR y,
    GM_ADDR workspace, GM_ADDR tiling) {
    KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
    moe_jit::ascend::FinalizeRouting kernel({x, weight, group_list, scale, bias, offset, per_token_scale,
                                             shared_input, logit, row_index, y, workspace, tiling});
    kernel.run_int8();
}
