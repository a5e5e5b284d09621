// The mask register: how calls set it and how instructions read it.
#pragma once

#include "moe_jit/ascend_emulator/instructions/lanes.h"

namespace moe_jit::emulator {

inline void set_prefix_mask(Registers& registers, uint64_t lanes) {
    registers.mask[0] = lanes >= 64 ? ~uint64_t{0} : (uint64_t{1} << lanes) - 1;
    registers.mask[1] = lanes >= 128 ? ~uint64_t{0} : lanes <= 64 ? 0 : (uint64_t{1} << (lanes - 64)) - 1;
}

inline void reset_mask(Registers& registers) { registers.mask[0] = registers.mask[1] = ~uint64_t{0}; }

inline Lanes lanes_of_register(Instruction& op, uint32_t per_repeat, uint32_t repeats, uint32_t limit = 255) {
    const Registers& registers = op.on().registers;
    if (registers.counter_mode) return Lanes::counted(per_repeat, registers.mask[0]);
    op.require(repeats <= limit, "%u repeats, at most %u are possible", repeats, limit);
    return Lanes::masked(per_repeat, registers.mask, repeats);
}

// The forms of a vector call: the first `count` elements; the first `mask` lanes of every repeat; lanes by
// bits. kSet = false takes the mask that SetVectorMask left.
struct CountForm {
    int64_t count;
    bool sets = true;

    // Leaves normal mode and a full mask behind, as the library does.
    Lanes lanes(Instruction& op, uint32_t per_repeat) const {
        Registers& registers = op.on().registers;
        if (!sets) return lanes_of_register(op, per_repeat, 1);
        op.require(count >= 0, "count is %lld", static_cast<long long>(count));
        registers.counter_mode = false;
        reset_mask(registers);
        return Lanes::counted(per_repeat, static_cast<uint64_t>(count));
    }
};

struct MaskForm {
    bool sets;
    uint64_t mask;
    uint32_t repeats;
    uint32_t limit = 255;

    Lanes lanes(Instruction& op, uint32_t per_repeat) const {
        Registers& registers = op.on().registers;
        if (sets && registers.counter_mode) {
            registers.mask[0] = mask;
            registers.mask[1] = 0;
        } else if (sets) {
            set_prefix_mask(registers, mask);
        }
        return lanes_of_register(op, per_repeat, repeats, limit);
    }
};

struct BitsForm {
    bool sets;
    const uint64_t* mask;
    uint32_t repeats;
    uint32_t limit = 255;

    Lanes lanes(Instruction& op, uint32_t per_repeat) const {
        Registers& registers = op.on().registers;
        if (sets) {
            registers.mask[0] = mask[0];
            registers.mask[1] = per_repeat > 64 ? mask[1] : 0;
        }
        return lanes_of_register(op, per_repeat, repeats, limit);
    }
};

struct Footprint {
    LocalView view;
    Strides strides;
    uint32_t bits;

    uint32_t blocks(uint64_t lanes) const {
        return static_cast<uint32_t>((lanes * bits + 8 * kBlock - 1) / (8 * kBlock));
    }
    Repeats of(uint32_t lanes, uint32_t repeats) const {
        return {blocks(lanes), strides.block, strides.repeat, repeats};
    }
};

// Where a destination and a source may share memory, see Instruction::overlap.
inline void check_overlap(Instruction& op, const Lanes& lanes, Footprint dst, Footprint src,
                          bool accumulates = false) {
    const auto contiguous = [&](const Footprint& f) {
        return f.strides.block == 1 && f.strides.repeat == f.blocks(lanes.per_repeat);
    };
    if (!lanes.bitwise && lanes.active == lanes.per_repeat && contiguous(dst) && contiguous(src)) {
        const uint32_t elements = lanes.repeats * lanes.per_repeat + lanes.tail;
        op.overlap(dst.view, dst.of(elements, 1), src.view, src.of(elements, 1));
        return;
    }
    const uint32_t limit = lanes.limit(0);
    if (lanes.repeats)
        op.overlap(dst.view, dst.of(limit, lanes.repeats), src.view, src.of(limit, lanes.repeats),
                   accumulates);
    if (lanes.tail == 0) return;
    dst.view.address += lanes.repeats * dst.strides.repeat * kBlock;
    src.view.address += lanes.repeats * src.strides.repeat * kBlock;
    op.overlap(dst.view, dst.of(lanes.tail, 1), src.view, src.of(lanes.tail, 1), accumulates);
}

}  // namespace moe_jit::emulator

namespace AscendC {

inline void SetMaskCount() { moe_jit::emulator::core().registers.counter_mode = true; }
inline void SetMaskNorm() { moe_jit::emulator::core().registers.counter_mode = false; }
inline void ResetMask() { moe_jit::emulator::reset_mask(moe_jit::emulator::core().registers); }

// Bits of the lanes; in counter mode the low word is the number of elements.
template <typename T, MaskMode mode = MaskMode::NORMAL>
void SetVectorMask(uint64_t maskHigh, uint64_t maskLow) {
    auto& registers = moe_jit::emulator::core().registers;
    registers.mask[0] = maskLow;
    registers.mask[1] = maskHigh;
}

// The first `length` lanes, or elements in counter mode.
template <typename T, MaskMode mode = MaskMode::NORMAL>
void SetVectorMask(int32_t length) {
    auto& registers = moe_jit::emulator::core().registers;
    if (mode == MaskMode::COUNTER) {
        registers.mask[0] = static_cast<uint64_t>(length);
        registers.mask[1] = 0;
    } else {
        moe_jit::emulator::set_prefix_mask(registers, static_cast<uint64_t>(length));
    }
}

}  // namespace AscendC
