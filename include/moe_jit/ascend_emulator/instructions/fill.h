// Duplicate, Brcb and Copy: numbers and blocks written many times.
#pragma once

#include "moe_jit/ascend_emulator/instructions/elementwise.h"

namespace moe_jit::emulator {

template <typename T>
void require_copyable(Instruction& op) {
    require_format<T, int16_t, uint16_t, half, bfloat16_t, int32_t, uint32_t, float>(op);
}

template <typename T, typename Form>
void duplicate(Site site, const LocalTensor<T>& dst, T value, const Form& form, Strides strides) {
    Instruction op(Pipe::V, "Duplicate", site);
    require_copyable<T>(op);
    const Lanes lanes = form.lanes(op, lanes_per_repeat<T>());
    op.vector(lanes.total());
    if (lanes.none()) return;
    const auto out = operand_write(op, dst, lanes, strides);
    if (op.computes()) each_lane(lanes, [&] { return value; }, out);
}

// Unlike in other instructions, the counter counts within a repeat, and the number of repeats holds.
template <typename T, typename Form>
void copy(Site site, const LocalTensor<T>& dst, const LocalTensor<T>& src, const Form& form, uint32_t repeats,
          const AscendC::CopyRepeatParams& p) {
    Instruction op(Pipe::V, "Copy", site);
    require_copyable<T>(op);
    op.require(p.dstRepeatSize <= 4095 && p.srcRepeatSize <= 4095, "repeat strides are at most 4095 blocks");
    Lanes lanes = form.lanes(op, lanes_per_repeat<T>());
    const Registers& registers = op.on().registers;
    if (registers.counter_mode) {
        lanes = {};
        lanes.per_repeat = lanes.active = static_cast<uint32_t>(registers.mask[0]);
        lanes.repeats = lanes.active ? repeats : 0;
    }
    const uint32_t parts = (lanes.per_repeat + lanes_per_repeat<T>() - 1) / lanes_per_repeat<T>();
    op.vector(uint64_t{lanes.total()} * parts);
    if (lanes.none()) return;
    const Strides d{p.dstStride, p.dstRepeatSize}, s{p.srcStride, p.srcRepeatSize};
    const auto in = operand_read(op, src, lanes, s);
    const auto out = operand_write(op, dst, lanes, d);
    check_overlap(op, lanes, footprint(dst, d), footprint(src, s));
    if (op.computes()) each_lane(lanes, [](T value) { return value; }, out, in);
}

}  // namespace moe_jit::emulator

namespace AscendC {

template <typename T>
void Duplicate(const LocalTensor<T>& dst, const T& scalarValue, const int32_t& count,
               Site site = Site::here()) {
    moe_jit::emulator::duplicate(site, dst, scalarValue, moe_jit::emulator::CountForm{count}, {});
}
template <typename T, bool isSetMask = true>
void Duplicate(const LocalTensor<T>& dst, const T& scalarValue, uint64_t mask, const uint8_t repeatTime,
               const uint16_t dstBlockStride, const uint8_t dstRepeatStride, Site site = Site::here()) {
    moe_jit::emulator::duplicate(site, dst, scalarValue,
                                 moe_jit::emulator::MaskForm{isSetMask, mask, repeatTime},
                                 {dstBlockStride, dstRepeatStride});
}
template <typename T, bool isSetMask = true>
void Duplicate(const LocalTensor<T>& dst, const T& scalarValue, const uint64_t mask[],
               const uint8_t repeatTime, const uint16_t dstBlockStride, const uint8_t dstRepeatStride,
               Site site = Site::here()) {
    moe_jit::emulator::duplicate(site, dst, scalarValue,
                                 moe_jit::emulator::BitsForm{isSetMask, mask, repeatTime},
                                 {dstBlockStride, dstRepeatStride});
}

template <typename T, bool isSetMask = true>
void Copy(const LocalTensor<T>& dst, const LocalTensor<T>& src, const uint64_t mask, const uint8_t repeatTime,
          const CopyRepeatParams& repeatParams, Site site = Site::here()) {
    moe_jit::emulator::copy(site, dst, src, moe_jit::emulator::MaskForm{isSetMask, mask, repeatTime},
                            repeatTime, repeatParams);
}
template <typename T, bool isSetMask = true>
void Copy(const LocalTensor<T>& dst, const LocalTensor<T>& src, const uint64_t mask[],
          const uint8_t repeatTime, const CopyRepeatParams& repeatParams, Site site = Site::here()) {
    moe_jit::emulator::copy(site, dst, src, moe_jit::emulator::BitsForm{isSetMask, mask, repeatTime},
                            repeatTime, repeatParams);
}

// Each of the 8 elements of a repeat fills one block of 32 bytes.
template <typename T>
void Brcb(const LocalTensor<T>& dst, const LocalTensor<T>& src, const uint8_t repeatTime,
          const BrcbRepeatParams& repeatParams, Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(Pipe::V, "Brcb", site);
    require_copyable<T>(op);
    op.vector(repeatTime);
    if (repeatTime == 0) return;
    op.require(repeatParams.dstBlkStride != 0, "the destination's block stride is 0, which is undefined");
    constexpr uint32_t kPerBlock = kBlock / sizeof(T);
    const Lanes lanes = Lanes::counted(8 * kPerBlock, uint64_t{repeatTime} * 8 * kPerBlock);
    const Strides strides{repeatParams.dstBlkStride, repeatParams.dstRepStride};
    const uint64_t bytes = repeatTime * 8 * sizeof(T);
    const uint64_t end =
        dst.address + ((repeatTime - 1) * uint64_t{strides.repeat} + 7 * strides.block + 1) * kBlock;
    op.require(dst.address >= src.address + bytes || src.address >= end, "source and destination overlap");
    const T* in = op.read(src, {bytes});
    const auto out = operand_write(op, dst, lanes, strides);
    if (!op.computes()) return;
    for (uint32_t repeat = 0; repeat < repeatTime; ++repeat) {
        for (uint32_t lane = 0; lane < lanes.per_repeat; ++lane)
            out(repeat, lane) = in[repeat * 8 + lane / kPerBlock];
    }
}

}  // namespace AscendC
