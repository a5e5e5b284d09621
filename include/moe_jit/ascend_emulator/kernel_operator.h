// What a kernel includes. The directory of this file stands where a machine with CANN has its own header of
// this name; kernels are the same for both.
#pragma once

#include <cstdint>

#include "moe_jit/ascend_emulator/cross_core.h"
#include "moe_jit/ascend_emulator/events.h"
#include "moe_jit/ascend_emulator/identity.h"
#include "moe_jit/ascend_emulator/instructions/all.h"
#include "moe_jit/ascend_emulator/queue.h"
#include "moe_jit/ascend_emulator/tensor.h"

#define __NPU_ARCH__ 2201
#define __global__
#define __aicore__
#define __gm__
#define __ubuf__
#define __cbuf__
#define __ca__
#define __cb__
#define __cc__
#define __fbuf__
#define __biasbuf__

#define GM_ADDR uint8_t*

#define KERNEL_TYPE_AIV_ONLY ::moe_jit::emulator::KernelType::AivOnly
#define KERNEL_TYPE_AIC_ONLY ::moe_jit::emulator::KernelType::AicOnly
#define KERNEL_TYPE_MIX_AIV_1_0 ::moe_jit::emulator::KernelType::MixAiv10
#define KERNEL_TYPE_MIX_AIC_1_0 ::moe_jit::emulator::KernelType::MixAic10
#define KERNEL_TYPE_MIX_AIC_1_1 ::moe_jit::emulator::KernelType::MixAic11
#define KERNEL_TYPE_MIX_AIC_1_2 ::moe_jit::emulator::KernelType::MixAic12
#define KERNEL_TASK_TYPE_DEFAULT(TYPE) ::moe_jit::emulator::declare_kernel_type(TYPE)

#define ASCEND_IS_AIC (::moe_jit::emulator::core().kind == ::moe_jit::emulator::CoreKind::Cube)
#define ASCEND_IS_AIV (::moe_jit::emulator::core().kind == ::moe_jit::emulator::CoreKind::Vector)
