// Gather takes elements at byte offsets, GatherMask packs the elements that a pattern of bits marks.
#pragma once

#include "moe_jit/ascend_emulator/instructions/fill.h"

namespace moe_jit::emulator {

template <typename T, typename Form>
void gather(Site site, const LocalTensor<T>& dst, const LocalTensor<T>& src,
            const LocalTensor<uint32_t>& offsets, uint32_t base, const Form& form,
            uint32_t dst_repeat_stride) {
    Instruction op(Pipe::V, "Gather", site);
    require_copyable<T>(op);
    const Lanes lanes = form.lanes(op, lanes_per_repeat<T>());
    op.vector(lanes.total());
    if (lanes.none()) return;
    const uint64_t last = uint64_t{lanes.total() - 1} * lanes.per_repeat + lanes.limit(lanes.total() - 1);
    const uint32_t* in = op.read(offsets, {last * sizeof(uint32_t)});
    op.require(base % sizeof(T) == 0, "srcBaseAddr is %u, no multiple of %s's size", base, format_name<T>());
    op.read(src, {0});
    const auto out = operand_write(op, dst, lanes, {1, dst_repeat_stride});
    if (!op.computes()) return;
    for (uint32_t repeat = 0; repeat < lanes.total(); ++repeat) {
        for (uint32_t lane = 0; lane < lanes.limit(repeat); ++lane) {
            if (!lanes.on(repeat, lane)) continue;
            const uint32_t offset = in[uint64_t{repeat} * lanes.per_repeat + lane];
            op.require(offset % sizeof(T) == 0, "offset %u is no multiple of %s's size", offset,
                       format_name<T>());
            const uint64_t at = uint64_t{base} + offset;
            out(repeat, lane) = op.read(src, {sizeof(T), 1, 0, at}, {sizeof(T)})[at / sizeof(T)];
        }
    }
}

// Patterns 1 to 7: even, odd, the first to the fourth of every four, all.
inline bool in_pattern(uint32_t pattern, uint32_t element) {
    if (pattern == 7) return true;
    return pattern <= 2 ? element % 2 == pattern - 1 : element % 4 == pattern - 3;
}

// Elements of a repeat: 256 bytes, or `mask` in counter mode. takes(repeat, element) says which are kept;
// without data it is asked only if it `knows`.
template <typename T, typename Takes>
void gather_mask(Instruction& op, const LocalTensor<T>& dst, const LocalTensor<T>& src, bool counts,
                 uint32_t mask, const AscendC::GatherMaskParams& p, uint64_t& kept, bool knows, Takes takes) {
    require_copyable<T>(op);
    Lanes lanes;
    lanes.per_repeat = lanes.active = counts ? mask : lanes_per_repeat<T>();
    lanes.repeats = lanes.active ? p.repeatTimes : 0;
    op.require(p.repeatTimes <= 255, "%u repeats, at most 255 are possible", p.repeatTimes);
    op.require(!counts || mask >= 1, "mask is 0 in counter mode");
    const uint32_t parts = (lanes.per_repeat + lanes_per_repeat<T>() - 1) / lanes_per_repeat<T>();
    op.vector(uint64_t{lanes.repeats} * parts);
    op.on().registers.counter_mode = false;
    kept = 0;
    if (lanes.none()) return;
    const auto source = operand_read(op, src, lanes, {p.src0BlockStride, p.src0RepeatStride});
    std::vector<T> values;
    for (uint32_t repeat = 0; (knows || op.computes()) && repeat < lanes.repeats; ++repeat) {
        for (uint32_t element = 0; element < lanes.per_repeat; ++element) {
            if (takes(repeat, element)) values.push_back(op.computes() ? source(repeat, element) : T(0));
        }
    }
    kept = values.size();
    T* out = op.write(dst, {values.size() * sizeof(T)});
    if (op.computes()) std::copy(values.begin(), values.end(), out);
}

}  // namespace moe_jit::emulator

namespace AscendC {

template <typename T>
void Gather(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<uint32_t>& srcOffset,
            const uint32_t srcBaseAddr, const uint32_t count, Site site = Site::here()) {
    moe_jit::emulator::gather(site, dst, src, srcOffset, srcBaseAddr, moe_jit::emulator::CountForm{count}, 8);
}
template <typename T>
void Gather(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<uint32_t>& srcOffset,
            const uint32_t srcBaseAddr, const uint64_t mask, const uint8_t repeatTime,
            const uint16_t dstRepStride, Site site = Site::here()) {
    moe_jit::emulator::gather(site, dst, src, srcOffset, srcBaseAddr,
                              moe_jit::emulator::MaskForm{true, mask, repeatTime}, dstRepStride);
}
template <typename T>
void Gather(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<uint32_t>& srcOffset,
            const uint32_t srcBaseAddr, const uint64_t mask[], const uint8_t repeatTime,
            const uint16_t dstRepStride, Site site = Site::here()) {
    moe_jit::emulator::gather(site, dst, src, srcOffset, srcBaseAddr,
                              moe_jit::emulator::BitsForm{true, mask, repeatTime}, dstRepStride);
}

// The same pattern in every repeat. rsvdCnt: how many elements were kept.
template <typename T>
void GatherMask(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const uint8_t src1Pattern,
                const bool reduceMode, const uint32_t mask, const GatherMaskParams& gatherMaskParams,
                uint64_t& rsvdCnt, Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(Pipe::V, "GatherMask", site);
    op.require(src1Pattern >= 1 && src1Pattern <= 7, "pattern %u is not in 1..7", src1Pattern);
    gather_mask(op, dst, src0, reduceMode, mask, gatherMaskParams, rsvdCnt, true,
                [&](uint32_t, uint32_t element) { return in_pattern(src1Pattern, element); });
}

// Bits of a tensor, src1RepeatStride blocks further in every repeat.
template <typename T, typename U>
void GatherMask(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const LocalTensor<U>& src1Pattern,
                const bool reduceMode, const uint32_t mask, const GatherMaskParams& gatherMaskParams,
                uint64_t& rsvdCnt, Site site = Site::here()) {
    using namespace moe_jit::emulator;
    static_assert(sizeof(U) == sizeof(T) && std::is_unsigned_v<U>,
                  "the pattern has the size of the elements");
    Instruction op(Pipe::V, "GatherMask", site);
    const uint64_t bits = reduceMode ? mask : lanes_per_repeat<T>();
    const uint64_t stride = uint64_t{gatherMaskParams.src1RepeatStride} * kBlock;
    const uint64_t repeats =
        stride ? gatherMaskParams.repeatTimes : std::min<uint64_t>(1, gatherMaskParams.repeatTimes);
    const auto* pattern =
        reinterpret_cast<const uint8_t*>(op.read(src1Pattern, {(bits + 7) / 8, repeats, stride}));
    gather_mask(op, dst, src0, reduceMode, mask, gatherMaskParams, rsvdCnt, false,
                [&](uint32_t repeat, uint32_t element) {
                    return (pattern[repeat * stride + element / 8] >> (element % 8) & 1) != 0;
                });
}

}  // namespace AscendC
