// Cast: every conversion and rounding mode that the chip has; the others are refused.
#pragma once

#include "moe_jit/ascend_emulator/instructions/cast_rules.h"
#include "moe_jit/ascend_emulator/instructions/elementwise.h"

namespace moe_jit::emulator {

// From int4: exact. To int4: rounded and saturated.
template <typename To, typename From>
void cast_int4(Instruction& op, const Lanes& lanes, RoundMode mode, const LocalTensor<To>& dst,
               const LocalTensor<From>& src, Strides d, Strides s) {
    op.require(lanes.active % 2 == 0 && lanes.tail % 2 == 0, "an odd number of 4-bit elements");
    for (uint32_t lane = 0; lanes.bitwise && lane < lanes.per_repeat; lane += 2) {
        op.require(lanes.bit(lane) == lanes.bit(lane + 1), "the mask divides the byte of lanes %u and %u",
                   lane, lane + 1);
    }
    const auto in = operand_read(op, src, lanes, s);
    const auto out = operand_write(op, dst, lanes, d);
    check_overlap(op, lanes, footprint(dst, d), footprint(src, s));
    if (!op.computes()) return;
    for (uint32_t repeat = 0; repeat < lanes.total(); ++repeat) {
        for (uint32_t lane = 0; lane < lanes.limit(repeat); ++lane) {
            if (!lanes.on(repeat, lane)) continue;
            if constexpr (std::is_same_v<From, AscendC::int4b_t>) {
                const int64_t at = int64_t{Operand<From>{nullptr, s}.at(repeat, lane)};
                out(repeat, lane) = rounded<To>(int64_t{int4_of(in.data, at)});
            } else {
                const double value = wide(in(repeat, lane));
                set_int4(out.data, Operand<To>{nullptr, d}.at(repeat, lane),
                         saturated_int4(round_whole(value, mode)));
            }
        }
    }
}

template <typename To, typename From, typename Form>
void cast(Site site, const LocalTensor<To>& dst, const LocalTensor<From>& src, RoundMode mode,
          const Form& form, const AscendC::UnaryRepeatParams& p) {
    using AscendC::int4b_t;
    Instruction op(Pipe::V, "Cast", site);
    constexpr ModeSet allowed = cast_modes<From, To>();
    op.require(allowed != kNoMode, "there is no conversion from %s to %s on this chip", format_name<From>(),
               format_name<To>());
    op.require((allowed & modes(mode)) != 0, "the conversion from %s to %s has no mode %s",
               format_name<From>(), format_name<To>(), mode_name(mode));
    constexpr uint32_t bits = std::max({bits_of<From>(), bits_of<To>(), 16u});
    const Lanes lanes = form.lanes(op, kRepeat * 8 / bits);
    op.vector(lanes.total());
    if (lanes.none()) return;
    const Strides d{p.dstBlkStride, p.dstRepStride}, s{p.srcBlkStride, p.srcRepStride};
    if constexpr (allowed == kNoMode) {
        return;
    } else if constexpr (is_one_of<int4b_t, From, To>) {
        cast_int4(op, lanes, mode, dst, src, d, s);
    } else {
        const auto in = operand_read(op, src, lanes, s);
        const auto out = operand_write(op, dst, lanes, d);
        check_overlap(op, lanes, footprint(dst, d), footprint(src, s));
        if (!op.computes()) return;
        if constexpr (std::is_same_v<From, int32_t> && std::is_same_v<To, half>) {
            const Registers& registers = op.on().registers;
            op.require(registers.deq_scale_set,
                       "int32_t to half multiplies by DEQSCALE, which was never set");
            const double scale = half_to_float(registers.deq_scale);
            each_lane(
                lanes, [&](int32_t value) { return rounded<half>(static_cast<double>(value) * scale); }, out,
                in);
        } else {
            const bool to_unsigned = std::is_same_v<To, uint8_t>;
            each_lane(
                lanes,
                [&](From value) {
                    if (to_unsigned) op.require(!(wide(value) < 0), "a negative number has no uint8_t");
                    return converted<To>(value, mode);
                },
                out, in);
        }
    }
}

// Repeat strides that make a contiguous array of the narrower operand: a repeat holds fewer of its blocks.
template <typename To, typename From>
AscendC::UnaryRepeatParams contiguous_cast() {
    constexpr uint32_t bits = std::max({bits_of<From>(), bits_of<To>(), 16u});
    return {1, 1, static_cast<uint8_t>(8 * bits_of<To>() / bits),
            static_cast<uint8_t>(8 * bits_of<From>() / bits)};
}

}  // namespace moe_jit::emulator

namespace AscendC {

template <typename T, typename U>
void Cast(const LocalTensor<T>& dst, const LocalTensor<U>& src, const RoundMode& roundMode,
          const uint32_t count, Site site = Site::here()) {
    moe_jit::emulator::cast(site, dst, src, roundMode, moe_jit::emulator::CountForm{count},
                            moe_jit::emulator::contiguous_cast<T, U>());
}
template <typename T, typename U, bool isSetMask = true>
void Cast(const LocalTensor<T>& dst, const LocalTensor<U>& src, const RoundMode& roundMode,
          const uint64_t mask, const uint8_t repeatTime, const UnaryRepeatParams& repeatParams,
          Site site = Site::here()) {
    moe_jit::emulator::cast(site, dst, src, roundMode,
                            moe_jit::emulator::MaskForm{isSetMask, mask, repeatTime}, repeatParams);
}
template <typename T, typename U, bool isSetMask = true>
void Cast(const LocalTensor<T>& dst, const LocalTensor<U>& src, const RoundMode& roundMode,
          const uint64_t mask[], const uint8_t repeatTime, const UnaryRepeatParams& repeatParams,
          Site site = Site::here()) {
    moe_jit::emulator::cast(site, dst, src, roundMode,
                            moe_jit::emulator::BitsForm{isSetMask, mask, repeatTime}, repeatParams);
}

// What Cast from int32_t to half multiplies by.
inline void SetDeqScale(half scale) {
    auto& registers = moe_jit::emulator::core().registers;
    registers.deq_scale = scale.bits;
    registers.deq_scale_set = true;
}

}  // namespace AscendC
