// The rule on operands of a vector instruction that share memory.
#pragma once

#include <bitset>

#include "moe_jit/ascend_emulator/instruction.h"

namespace moe_jit::emulator {

inline void Instruction::overlap(const LocalView& destination, Repeats to, const LocalView& source,
                                 Repeats from, bool accumulates) const {
    const uint32_t target = destination.address / kBlock;
    const uint32_t origin = source.address / kBlock;
    if (target + to.end() <= origin || origin + from.end() <= target) return;
    const bool same = target == origin && to == from;
    if (same && (to.repeats == 1 || to.repeat_stride >= (to.blocks - 1) * to.block_stride + 1)) return;
    if (same && accumulates && to.repeat_stride == 0) return;
    constexpr size_t kBlocks = traits(Memory::UB).capacity / kBlock;
    std::bitset<kBlocks> written;
    for (uint32_t repeat = 0; repeat < std::max(to.repeats, from.repeats); ++repeat) {
        std::bitset<kBlocks> reads;
        std::bitset<kBlocks> writes;
        for (uint32_t i = 0; i < from.blocks && repeat < from.repeats; ++i) {
            reads.set(origin + from.block(repeat, i));
        }
        for (uint32_t i = 0; i < to.blocks && repeat < to.repeats; ++i)
            writes.set(target + to.block(repeat, i));
        const char* problem = nullptr;
        if ((reads & written).any())
            problem = "reads what an earlier repeat wrote";
        else if ((reads & writes).any() && reads != writes)
            problem = "source and destination overlap in part";
        if (problem) {
            raise(format("operand overlap: repeat %u %s; destination %s", repeat, problem,
                         name(destination).c_str()),
                  name(source));
        }
        written |= writes;
    }
}

}  // namespace moe_jit::emulator
