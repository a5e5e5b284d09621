// Which core this is, and the kernel's type.
#pragma once

#include "moe_jit/ascend_emulator/machine.h"

namespace moe_jit::emulator {

// Raised out of a kernel that is called to learn its type.
struct KernelTypeFound {
    KernelType type;
};

inline void declare_kernel_type(KernelType type) {
    if (!current_core) throw KernelTypeFound{type};
}

}  // namespace moe_jit::emulator

namespace AscendC {

inline int64_t GetBlockIdx() { return moe_jit::emulator::core().index; }

inline int64_t GetBlockNum() { return moe_jit::emulator::core().machine.blocks; }

inline int64_t GetSubBlockIdx() { return moe_jit::emulator::core().sub_block; }

inline int64_t GetSubBlockNum() {
    const auto& core = moe_jit::emulator::core();
    const auto& kernel = moe_jit::emulator::traits(core.machine.type);
    return core.kind == moe_jit::emulator::CoreKind::Vector ? kernel.vectors : 1;
}

// Of vector to cube cores, as seen from a vector core; 1 on a cube core.
inline int64_t GetTaskRatio() { return GetSubBlockNum(); }

}  // namespace AscendC
