// ReduceMax, ReduceMin and ReduceSum: one result for a whole tensor.
#pragma once

#include "moe_jit/ascend_emulator/instructions/layouts.h"
#include "moe_jit/ascend_emulator/instructions/reduce.h"

namespace moe_jit::emulator {

// Elements of the work buffer that the library's rounds of reductions fill.
template <typename T>
uint64_t work_of_extreme(uint64_t repeats, bool with_index) {
    constexpr uint64_t block = kBlock / sizeof(T), lanes = lanes_per_repeat<T>();
    const auto next = [](uint64_t elements) { return 2 * ((elements + lanes - 1) / lanes); };
    const uint64_t first = rounded_up(2 * repeats, block);
    if (!with_index) return first;
    const uint64_t second = rounded_up(next(2 * repeats), block);
    if (next(2 * repeats) <= 2) return first + second;
    return first + second + rounded_up(next(next(2 * repeats)), block);
}

struct WholeTensor {
    Lanes lanes;
    Strides strides;
    bool contiguous;   // index of an element = its place
    uint64_t repeats;  // that the size of the work buffer follows from
};

template <typename T>
WholeTensor first_elements(Instruction& op, int64_t count) {
    const Lanes lanes = CountForm{count}.lanes(op, lanes_per_repeat<T>());
    return {lanes, {}, true, std::max<uint64_t>(1, static_cast<uint64_t>(count) / lanes_per_repeat<T>())};
}

template <typename T, typename Form>
WholeTensor masked_elements(Instruction& op, const Form& form, int64_t repeats, int64_t stride) {
    op.require(repeats >= 0 && stride >= 0 && stride <= 65535, "%lld repeats with stride %lld",
               static_cast<long long>(repeats), static_cast<long long>(stride));
    op.require(!op.on().registers.counter_mode, "counter mode is not modelled here");
    const Lanes lanes = form.lanes(op, lanes_per_repeat<T>());
    const bool all = !lanes.bitwise && lanes.active == lanes.per_repeat && stride == 8;
    return {lanes, {1, static_cast<uint32_t>(stride)}, all, static_cast<uint64_t>(repeats)};
}

inline constexpr uint32_t kAnyRepeats = INT32_MAX;

// The work buffer holds nothing afterwards; it may be the source itself or hold the destination.
template <typename T>
void spoil(Instruction& op, const LocalTensor<T>& work, uint64_t elements) {
    T* data = op.write(work, {elements * sizeof(T)});
    if (op.computes()) std::memset(static_cast<void*>(data), poison_byte<T>(), elements * sizeof(T));
}

template <typename T>
void find_extreme(Instruction& op, bool largest, const LocalTensor<T>& dst, const LocalTensor<T>& src,
                  const LocalTensor<T>& work, const WholeTensor& whole, bool with_index) {
    require_format<T, half, float>(op);
    const Lanes& lanes = whole.lanes;
    op.vector(lanes.total() + (2 * lanes.total() + lanes_per_repeat<T>() - 1) / lanes_per_repeat<T>());
    if (lanes.none()) return;
    op.require(!with_index || whole.contiguous, "an index needs all lanes and a stride of 8 blocks here");
    const auto source = operand_read(op, src, lanes, whole.strides);
    T value{};
    uint32_t index = 0;
    bool found = false;
    for (uint32_t repeat = 0; op.computes() && repeat < lanes.total(); ++repeat) {
        const auto group = group_of(source, lanes, repeat, 0, lanes.per_repeat);
        const uint32_t lane = group.extreme(largest);
        const double candidate = wide(group.values[lane]), so_far = wide(value);
        const bool better = std::isnan(candidate) ? !std::isnan(so_far)
                            : largest             ? candidate > so_far
                                                  : candidate < so_far;
        if (found && !better) continue;
        value = group.values[lane];
        index = repeat * lanes.per_repeat + lane;
        found = true;
    }
    op.require(!with_index || sizeof(T) == 4 || index <= 65535, "index %u does not fit in half", index);
    spoil(op, work, work_of_extreme<T>(whole.repeats, with_index));
    T* out = op.write(dst, {(with_index ? 2 : 1) * sizeof(T)},
                      {static_cast<uint32_t>((with_index ? 2 : 1) * sizeof(T))});
    if (!op.computes()) return;
    out[0] = value;
    if (with_index) out[1] = index_as<T>(index);
}

// Repeats one after another, or in pairs like the lanes of a repeat.
template <typename T>
void sum_all(Instruction& op, const LocalTensor<T>& dst, const LocalTensor<T>& src,
             const LocalTensor<T>& work, const WholeTensor& whole, bool in_order) {
    require_format<T, half, float>(op);
    const Lanes& lanes = whole.lanes;
    op.vector(lanes.total() +
              (in_order ? 0 : (lanes.total() + lanes_per_repeat<T>() - 1) / lanes_per_repeat<T>()));
    if (lanes.none()) return;
    const auto source = operand_read(op, src, lanes, whole.strides);
    std::vector<T> sums;
    for (uint32_t repeat = 0; op.computes() && repeat < lanes.total(); ++repeat) {
        sums.push_back(group_of(source, lanes, repeat, 0, lanes.per_repeat).sum());
    }
    if (!in_order) spoil(op, work, rounded_up(whole.repeats, kBlock / sizeof(T)));
    T* out = op.write(dst, {sizeof(T)}, {sizeof(T)});
    if (!op.computes()) return;
    if (in_order) {
        out[0] = sums[0];
        for (size_t i = 1; i < sums.size(); ++i) out[0] = rounded<T>(wide(out[0]) + wide(sums[i]));
        return;
    }
    while (sums.size() > 1) {
        std::vector<T> next;
        for (size_t first = 0; first < sums.size(); first += lanes_per_repeat<T>()) {
            Group<T> group(lanes_per_repeat<T>());
            const size_t size = std::min<size_t>(lanes_per_repeat<T>(), sums.size() - first);
            std::copy_n(sums.begin() + static_cast<std::ptrdiff_t>(first), size, group.values);
            next.push_back(group.sum());
        }
        sums = next;
    }
    out[0] = sums[0];
}

}  // namespace moe_jit::emulator

namespace AscendC {

// calIndex: the place of the first extreme follows its value, as bits in the format of the elements.
#define MOE_JIT_REDUCE_EXTREME(NAME, LARGEST)                                                              \
    template <typename T>                                                                                  \
    void NAME(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<T>& sharedTmpBuffer, \
              const int32_t count, bool calIndex = false, Site site = Site::here()) {                      \
        moe_jit::emulator::Instruction op(PIPE_V, #NAME, site);                                            \
        moe_jit::emulator::find_extreme(op, LARGEST, dst, src, sharedTmpBuffer,                            \
                                        moe_jit::emulator::first_elements<T>(op, count), calIndex);        \
    }                                                                                                      \
    template <typename T>                                                                                  \
    void NAME(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<T>& sharedTmpBuffer, \
              const int32_t mask, const int32_t repeatTime, const int32_t srcRepStride,                    \
              bool calIndex = false, Site site = Site::here()) {                                           \
        using namespace moe_jit::emulator;                                                                 \
        Instruction op(PIPE_V, #NAME, site);                                                               \
        const MaskForm form{true, static_cast<uint64_t>(mask), static_cast<uint32_t>(repeatTime),          \
                            kAnyRepeats};                                                                  \
        find_extreme(op, LARGEST, dst, src, sharedTmpBuffer,                                               \
                     masked_elements<T>(op, form, repeatTime, srcRepStride), calIndex);                    \
    }                                                                                                      \
    template <typename T>                                                                                  \
    void NAME(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<T>& sharedTmpBuffer, \
              const uint64_t mask[], const int32_t repeatTime, const int32_t srcRepStride,                 \
              bool calIndex = false, Site site = Site::here()) {                                           \
        using namespace moe_jit::emulator;                                                                 \
        Instruction op(PIPE_V, #NAME, site);                                                               \
        const BitsForm form{true, mask, static_cast<uint32_t>(repeatTime), kAnyRepeats};                   \
        find_extreme(op, LARGEST, dst, src, sharedTmpBuffer,                                               \
                     masked_elements<T>(op, form, repeatTime, srcRepStride), calIndex);                    \
    }
MOE_JIT_REDUCE_EXTREME(ReduceMax, true)
MOE_JIT_REDUCE_EXTREME(ReduceMin, false)
#undef MOE_JIT_REDUCE_EXTREME

// The sums of the repeats are added one after another here, in pairs in the forms with a mask.
template <typename T>
void ReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<T>& sharedTmpBuffer,
               const int32_t count, Site site = Site::here()) {
    moe_jit::emulator::Instruction op(PIPE_V, "ReduceSum", site);
    moe_jit::emulator::sum_all(op, dst, src, sharedTmpBuffer, moe_jit::emulator::first_elements<T>(op, count),
                               true);
}
template <typename T>
void ReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<T>& sharedTmpBuffer,
               const int32_t mask, const int32_t repeatTime, const int32_t srcRepStride,
               Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(PIPE_V, "ReduceSum", site);
    const MaskForm form{true, static_cast<uint64_t>(mask), static_cast<uint32_t>(repeatTime), kAnyRepeats};
    sum_all(op, dst, src, sharedTmpBuffer, masked_elements<T>(op, form, repeatTime, srcRepStride), false);
}
template <typename T>
void ReduceSum(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LocalTensor<T>& sharedTmpBuffer,
               const uint64_t mask[], const int32_t repeatTime, const int32_t srcRepStride,
               Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(PIPE_V, "ReduceSum", site);
    const BitsForm form{true, mask, static_cast<uint32_t>(repeatTime), kAnyRepeats};
    sum_all(op, dst, src, sharedTmpBuffer, masked_elements<T>(op, form, repeatTime, srcRepStride), false);
}

}  // namespace AscendC
