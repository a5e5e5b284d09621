// Documented calls of this chip that the emulator does not model: they end the kernel and say so. Hints that
// change no result do nothing.
#pragma once

#include "moe_jit/ascend_emulator/instruction.h"

namespace AscendC {

#define MOE_JIT_UNSUPPORTED(NAME)                                                                  \
    template <typename... Arguments>                                                               \
    [[noreturn]] void NAME(const Arguments&...) {                                                  \
        moe_jit::emulator::Instruction(PIPE_S, #NAME, {}).fail("is not modelled by the emulator"); \
    }
MOE_JIT_UNSUPPORTED(AddDeqRelu)
MOE_JIT_UNSUPPORTED(AddRelu)
MOE_JIT_UNSUPPORTED(AddReluCast)
MOE_JIT_UNSUPPORTED(Axpy)
MOE_JIT_UNSUPPORTED(BroadCastVecToMM)
MOE_JIT_UNSUPPORTED(CastDequant)
MOE_JIT_UNSUPPORTED(CreateVecIndex)
MOE_JIT_UNSUPPORTED(Fill)
MOE_JIT_UNSUPPORTED(FusedMulAdd)
MOE_JIT_UNSUPPORTED(Gatherb)
MOE_JIT_UNSUPPORTED(GetCmpMask)
MOE_JIT_UNSUPPORTED(InitConstValue)
MOE_JIT_UNSUPPORTED(LeakyRelu)
MOE_JIT_UNSUPPORTED(LoadDataUnzip)
MOE_JIT_UNSUPPORTED(LoadDataWithSparse)
MOE_JIT_UNSUPPORTED(LoadImageToLocal)
MOE_JIT_UNSUPPORTED(MmadWithSparse)
MOE_JIT_UNSUPPORTED(MrgSort)
MOE_JIT_UNSUPPORTED(MulAddDst)
MOE_JIT_UNSUPPORTED(MulAddRelu)
MOE_JIT_UNSUPPORTED(MulCast)
MOE_JIT_UNSUPPORTED(Not)
MOE_JIT_UNSUPPORTED(PairReduceSum)
MOE_JIT_UNSUPPORTED(SetAtomicMax)
MOE_JIT_UNSUPPORTED(SetAtomicMin)
MOE_JIT_UNSUPPORTED(SetCmpMask)
MOE_JIT_UNSUPPORTED(SetFixPipeConfig)
MOE_JIT_UNSUPPORTED(SetFixpipeNz2ndFlag)
MOE_JIT_UNSUPPORTED(SetFixpipePreQuantFlag)
MOE_JIT_UNSUPPORTED(SetFmatrix)
MOE_JIT_UNSUPPORTED(SetLoadDataRepeat)
MOE_JIT_UNSUPPORTED(Sort32)
MOE_JIT_UNSUPPORTED(SubRelu)
MOE_JIT_UNSUPPORTED(SubReluCast)
MOE_JIT_UNSUPPORTED(TransDataTo5HD)
MOE_JIT_UNSUPPORTED(Transpose)
#undef MOE_JIT_UNSUPPORTED

// Products of floats with ten bits of mantissa.
inline void SetHF32Mode(bool hf32Mode, Site site = Site::here()) {
    moe_jit::emulator::Instruction op(PIPE_S, "SetHF32Mode", site);
    op.scalar();
    op.require(!hf32Mode, "is not modelled by the emulator");
}

// In which order Mmad passes through its result; only of interest for the speed with a unit flag.
inline void SetMMRowMajor() {}
inline void SetMMColumnMajor() {}

inline void ICachePreLoad(int64_t) {}

}  // namespace AscendC
