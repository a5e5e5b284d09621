// The common course of instructions that work element by element.
#pragma once

#include "moe_jit/ascend_emulator/instructions/masks.h"

namespace moe_jit::emulator {

// A result of the vector unit. An integer that does not fit is refused: what the chip does is not documented.
template <typename T, typename W>
T fitted(Instruction& op, W value) {
    if constexpr (is_float_v<T>) {
        return rounded<T>(value);
    } else {
        const T result = static_cast<T>(value);
        op.require(static_cast<W>(result) == value, "%s overflow, which is not documented", format_name<T>());
        return result;
    }
}

template <typename T>
Wide<T> wide(T value) {
    if constexpr (is_float_v<T>)
        return static_cast<double>(static_cast<float>(value));
    else
        return static_cast<int64_t>(value);
}

// A pattern that shows: NaN, or the largest integers.
template <typename T>
constexpr uint8_t poison_byte() {
    return is_float_v<T> ? 0xff : 0x7f;
}

template <typename T, typename... Formats>
void require_format(Instruction& op) {
    op.require(is_one_of<T, Formats...>, "has no form for %s on this chip", format_name<T>());
}

template <typename T>
constexpr uint32_t lanes_per_repeat() {
    return kRepeat * 8 / bits_of<T>();
}

template <typename T>
Footprint footprint(const LocalTensor<T>& tensor, Strides strides) {
    return {tensor, strides, bits_of<T>()};
}

// Math::check says which formats the instruction takes; Math::apply works on wide values: of the sources, and
// first of the destination if it is updated.
template <typename Math, typename T, typename Form>
void binary(const char* name, Site site, const LocalTensor<T>& dst, const LocalTensor<T>& src0,
            const LocalTensor<T>& src1, const Form& form, const AscendC::BinaryRepeatParams& p) {
    Instruction op(Pipe::V, name, site);
    Math::template check<T>(op);
    const Lanes lanes = form.lanes(op, lanes_per_repeat<T>());
    op.vector(lanes.total());
    if (lanes.none()) return;
    const Strides d{p.dstBlkStride, p.dstRepStride}, a{p.src0BlkStride, p.src0RepStride},
        b{p.src1BlkStride, p.src1RepStride};
    const bool accumulates = Math::kAccumulates && is_one_of<T, half, int32_t, float> &&
                             dst.address == src1.address && (d.repeat == 0 || b.repeat == 0);
    const auto x = operand_read(op, src0, lanes, a);
    const auto y = operand_read(op, src1, lanes, b);
    if constexpr (Math::kUpdates) {
        const auto before = operand_read(op, dst, lanes, d);
        const auto z = operand_write(op, dst, lanes, d);
        check_overlap(op, lanes, footprint(dst, d), footprint(src0, a));
        check_overlap(op, lanes, footprint(dst, d), footprint(src1, b));
        if (!op.computes()) return;
        const auto apply = [&](T t, T u, T v) {
            return fitted<T>(op, Math::apply(wide(t), wide(u), wide(v)));
        };
        each_lane(lanes, apply, z, before, x, y);
    } else {
        const auto z = operand_write(op, dst, lanes, d);
        check_overlap(op, lanes, footprint(dst, d), footprint(src0, a));
        check_overlap(op, lanes, footprint(dst, d), footprint(src1, b), accumulates);
        if (!op.computes()) return;
        each_lane(lanes, [&](T u, T v) { return fitted<T>(op, Math::apply(wide(u), wide(v))); }, z, x, y);
    }
}

template <typename Math, typename T, typename Form>
void unary(const char* name, Site site, const LocalTensor<T>& dst, const LocalTensor<T>& src,
           const Math& math, const Form& form, const AscendC::UnaryRepeatParams& p) {
    Instruction op(Pipe::V, name, site);
    Math::template check<T>(op);
    const Lanes lanes = form.lanes(op, lanes_per_repeat<T>());
    op.vector(lanes.total());
    if (lanes.none()) return;
    const Strides d{p.dstBlkStride, p.dstRepStride}, s{p.srcBlkStride, p.srcRepStride};
    const auto x = operand_read(op, src, lanes, s);
    const auto z = operand_write(op, dst, lanes, d);
    check_overlap(op, lanes, footprint(dst, d), footprint(src, s));
    if (!op.computes()) return;
    each_lane(lanes, [&](T u) { return fitted<T>(op, math.apply(wide(u))); }, z, x);
}

}  // namespace moe_jit::emulator
