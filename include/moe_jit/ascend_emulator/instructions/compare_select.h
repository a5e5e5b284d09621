// Compare writes one bit for each element, Select chooses by such bits.
#pragma once

#include "moe_jit/ascend_emulator/instructions/elementwise.h"

namespace moe_jit::emulator {

using AscendC::CMPMODE;
using AscendC::SELMODE;

template <typename W>
bool holds(CMPMODE mode, W a, W b) {
    switch (mode) {
        case CMPMODE::LT:
            return a < b;
        case CMPMODE::GT:
            return a > b;
        case CMPMODE::EQ:
            return a == b;
        case CMPMODE::LE:
            return a <= b;
        case CMPMODE::GE:
            return a >= b;
        case CMPMODE::NE:
            return a != b;
    }
    return false;
}

// All lanes of all repeats take part: this chip ignores masks here. The bits of a repeat follow those of the
// one before it, the first in the lowest bit.
template <typename T>
Lanes compared_lanes(Instruction& op, CMPMODE mode, uint64_t repeats) {
    require_format<T, half, int32_t, float>(op);
    op.require(!std::is_same_v<T, int32_t> || mode == CMPMODE::EQ, "int32_t has no mode but EQ");
    return Lanes::counted(lanes_per_repeat<T>(), repeats * lanes_per_repeat<T>());
}

template <typename T>
uint64_t whole_repeats(const Instruction& op, uint64_t count) {
    op.require(count % lanes_per_repeat<T>() == 0,
               "%llu elements are no multiple of 256 bytes, the rest would be left out",
               static_cast<unsigned long long>(count));
    return count / lanes_per_repeat<T>();
}

// other(repeat, lane) is the right-hand side.
template <typename T, typename U, typename Other>
void compare(Instruction& op, const LocalTensor<U>& dst, const Operand<const T>& source, CMPMODE mode,
             const Lanes& lanes, Other other) {
    static_assert(sizeof(U) == 1, "bits are written to int8_t or uint8_t");
    const uint64_t bytes = uint64_t{lanes.repeats} * lanes.per_repeat / 8;
    auto* out = reinterpret_cast<uint8_t*>(op.write(dst, {bytes}));
    if (!op.computes()) return;
    std::memset(out, 0, bytes);
    for (uint32_t repeat = 0; repeat < lanes.repeats; ++repeat) {
        for (uint32_t lane = 0; lane < lanes.per_repeat; ++lane) {
            const uint64_t bit = uint64_t{repeat} * lanes.per_repeat + lane;
            if (holds(mode, wide(source(repeat, lane)), wide<T>(other(repeat, lane))))
                out[bit / 8] |= 1u << (bit % 8);
        }
    }
}

template <typename T, typename U>
void compare_tensors(Instruction& op, const LocalTensor<U>& dst, const LocalTensor<T>& src0,
                     const LocalTensor<T>& src1, CMPMODE mode, uint64_t repeats, Strides a, Strides b) {
    const Lanes lanes = compared_lanes<T>(op, mode, repeats);
    op.vector(repeats);
    if (lanes.none()) return;
    const auto x = operand_read(op, src0, lanes, a);
    const auto y = operand_read(op, src1, lanes, b);
    compare<T>(op, dst, x, mode, lanes, [&](uint32_t repeat, uint32_t lane) { return y(repeat, lane); });
}

template <typename T, typename U>
void compare_scalar(Instruction& op, const LocalTensor<U>& dst, const LocalTensor<T>& src, T value,
                    CMPMODE mode, uint64_t repeats, Strides s) {
    const Lanes lanes = compared_lanes<T>(op, mode, repeats);
    op.vector(repeats);
    if (lanes.none()) return;
    const auto x = operand_read(op, src, lanes, s);
    compare<T>(op, dst, x, mode, lanes, [&](uint32_t, uint32_t) { return value; });
}

// Where bit b of the mask is 1 the first source, else the second. In mode 0 every repeat uses the same bits.
template <typename T, typename U, typename Form, typename Other>
void select(const char* name, Site site, const LocalTensor<T>& dst, const LocalTensor<U>& bits,
            const LocalTensor<T>& src0, SELMODE mode, const Form& form, const AscendC::BinaryRepeatParams& p,
            Other second) {
    Instruction op(Pipe::V, name, site);
    require_format<T, half, float>(op);
    require_format<U, uint8_t, uint16_t, uint32_t, uint64_t>(op);
    const Lanes lanes = form.lanes(op, lanes_per_repeat<T>());
    op.vector(lanes.total());
    if (lanes.none()) return;
    const bool same_bits = mode == SELMODE::VSEL_CMPMASK_SPR;
    const Strides d{p.dstBlkStride, p.dstRepStride}, a{p.src0BlkStride, p.src0RepStride};
    const uint64_t used =
        same_bits ? lanes.per_repeat : uint64_t{lanes.repeats} * lanes.per_repeat + lanes.tail;
    const auto* mask = reinterpret_cast<const uint8_t*>(op.read(bits, {(used + 7) / 8}));
    const auto x = operand_read(op, src0, lanes, a);
    const auto other = second(op, lanes);
    const auto out = operand_write(op, dst, lanes, d);
    check_overlap(op, lanes, footprint(dst, d), footprint(src0, a));
    if (!op.computes()) return;
    for (uint32_t repeat = 0; repeat < lanes.total(); ++repeat) {
        for (uint32_t lane = 0; lane < lanes.limit(repeat); ++lane) {
            if (!lanes.on(repeat, lane)) continue;
            const uint64_t bit = same_bits ? lane : uint64_t{repeat} * lanes.per_repeat + lane;
            out(repeat, lane) = mask[bit / 8] >> (bit % 8) & 1 ? x(repeat, lane) : other(repeat, lane);
        }
    }
}

template <typename T, typename U, typename Form>
void select_tensors(Site site, const LocalTensor<T>& dst, const LocalTensor<U>& bits,
                    const LocalTensor<T>& src0, const LocalTensor<T>& src1, SELMODE mode, const Form& form,
                    const AscendC::BinaryRepeatParams& p) {
    select("Select", site, dst, bits, src0, mode, form, p, [&](Instruction& op, const Lanes& lanes) {
        op.require(mode != SELMODE::VSEL_TENSOR_SCALAR_MODE, "this mode takes a scalar");
        const Strides d{p.dstBlkStride, p.dstRepStride}, b{p.src1BlkStride, p.src1RepStride};
        check_overlap(op, lanes, footprint(dst, d), footprint(src1, b));
        return operand_read(op, src1, lanes, b);
    });
}

template <typename T, typename U, typename Form>
void select_scalar(Site site, const LocalTensor<T>& dst, const LocalTensor<U>& bits,
                   const LocalTensor<T>& src0, T value, SELMODE mode, const Form& form,
                   const AscendC::BinaryRepeatParams& p) {
    select("Select", site, dst, bits, src0, mode, form, p, [&](Instruction& op, const Lanes&) {
        op.require(mode == SELMODE::VSEL_TENSOR_SCALAR_MODE, "this mode takes a tensor");
        return [value](uint32_t, uint32_t) { return value; };
    });
}

}  // namespace moe_jit::emulator

namespace AscendC {

template <typename T, typename U>
void Compare(const LocalTensor<U>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1,
             CMPMODE cmpMode, uint32_t count, Site site = Site::here()) {
    moe_jit::emulator::Instruction op(PIPE_V, "Compare", site);
    const uint64_t repeats = moe_jit::emulator::whole_repeats<T>(op, count);
    moe_jit::emulator::compare_tensors(op, dst, src0, src1, cmpMode, repeats, {}, {});
}
// `Mask` is a number or a pointer, and has no effect.
template <typename T, typename U, bool isSetMask = true, typename Mask>
void Compare(const LocalTensor<U>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1,
             CMPMODE cmpMode, const Mask, uint8_t repeatTime, const BinaryRepeatParams& p,
             Site site = Site::here()) {
    moe_jit::emulator::Instruction op(PIPE_V, "Compare", site);
    moe_jit::emulator::compare_tensors(op, dst, src0, src1, cmpMode, repeatTime,
                                       {p.src0BlkStride, p.src0RepStride},
                                       {p.src1BlkStride, p.src1RepStride});
}
template <typename T, typename U>
void Compares(const LocalTensor<U>& dst, const LocalTensor<T>& src0, const T src1Scalar, CMPMODE cmpMode,
              uint32_t count, Site site = Site::here()) {
    moe_jit::emulator::Instruction op(PIPE_V, "Compares", site);
    const uint64_t repeats = moe_jit::emulator::whole_repeats<T>(op, count);
    moe_jit::emulator::compare_scalar(op, dst, src0, src1Scalar, cmpMode, repeats, {});
}
template <typename T, typename U, bool isSetMask = true, typename Mask>
void Compares(const LocalTensor<U>& dst, const LocalTensor<T>& src0, const T src1Scalar, CMPMODE cmpMode,
              const Mask, uint8_t repeatTime, const UnaryRepeatParams& p, Site site = Site::here()) {
    moe_jit::emulator::Instruction op(PIPE_V, "Compares", site);
    moe_jit::emulator::compare_scalar(op, dst, src0, src1Scalar, cmpMode, repeatTime,
                                      {p.srcBlkStride, p.srcRepStride});
}

template <typename T, typename U>
void Select(const LocalTensor<T>& dst, const LocalTensor<U>& selMask, const LocalTensor<T>& src0,
            const LocalTensor<T>& src1, SELMODE selMode, uint32_t count, Site site = Site::here()) {
    moe_jit::emulator::select_tensors(site, dst, selMask, src0, src1, selMode,
                                      moe_jit::emulator::CountForm{count}, {});
}
template <typename T, typename U>
void Select(const LocalTensor<T>& dst, const LocalTensor<U>& selMask, const LocalTensor<T>& src0, T src1,
            SELMODE selMode, uint32_t count, Site site = Site::here()) {
    moe_jit::emulator::select_scalar(site, dst, selMask, src0, src1, selMode,
                                     moe_jit::emulator::CountForm{count}, {});
}
template <typename T, typename U, bool isSetMask = true>
void Select(const LocalTensor<T>& dst, const LocalTensor<U>& selMask, const LocalTensor<T>& src0,
            const LocalTensor<T>& src1, SELMODE selMode, uint64_t mask, uint8_t repeatTime,
            const BinaryRepeatParams& repeatParams, Site site = Site::here()) {
    moe_jit::emulator::select_tensors(site, dst, selMask, src0, src1, selMode,
                                      moe_jit::emulator::MaskForm{isSetMask, mask, repeatTime}, repeatParams);
}
template <typename T, typename U, bool isSetMask = true>
void Select(const LocalTensor<T>& dst, const LocalTensor<U>& selMask, const LocalTensor<T>& src0, T src1,
            SELMODE selMode, uint64_t mask, uint8_t repeatTime, const BinaryRepeatParams& repeatParams,
            Site site = Site::here()) {
    moe_jit::emulator::select_scalar(site, dst, selMask, src0, src1, selMode,
                                     moe_jit::emulator::MaskForm{isSetMask, mask, repeatTime}, repeatParams);
}

}  // namespace AscendC
