// Reductions of each repeat or each block, and of a whole tensor. Sums add neighbours in pairs, pairs of
// these, and so on, and round every time; of equal extremes the first one is found.
#pragma once

#include "moe_jit/ascend_emulator/instructions/elementwise.h"

namespace moe_jit::emulator {

using AscendC::ReduceOrder;
using AscendC::ReduceType;

template <typename T>
T index_as(uint32_t index) {
    T value{};
    std::memcpy(&value, &index, sizeof(T));
    return value;
}

// The elements of one repeat or block that take part; the others are skipped, and count as zero in sums.
template <typename T>
struct Group {
    static constexpr uint32_t kSize = kRepeat / sizeof(T);
    T values[kSize] = {};
    bool taken[kSize] = {};
    const uint32_t size;  // a power of two

    explicit Group(uint32_t size) : size(size) {}

    T sum() const {
        T level[kSize];
        std::copy_n(values, size, level);
        for (uint32_t pairs = size / 2; pairs; pairs /= 2) {
            for (uint32_t i = 0; i < pairs; ++i)
                level[i] = rounded<T>(wide(level[2 * i]) + wide(level[2 * i + 1]));
        }
        return level[0];
    }

    uint32_t extreme(bool largest) const {
        uint32_t best = 0;
        while (!taken[best]) ++best;
        for (uint32_t i = best + 1; i < size; ++i) {
            const double value = wide(values[i]), so_far = wide(values[best]);
            const bool better = std::isnan(value) ? !std::isnan(so_far)
                                : largest         ? value > so_far
                                                  : value < so_far;
            if (taken[i] && better) best = i;
        }
        return best;
    }

    T reduced(ReduceType type) const {
        return type == ReduceType::SUM ? sum() : values[extreme(type == ReduceType::MAX)];
    }
};

template <typename T>
Group<T> group_of(const Operand<const T>& source, const Lanes& lanes, uint32_t repeat, uint32_t first,
                  uint32_t size) {
    Group<T> group(size);
    for (uint32_t i = 0; i < size && first + i < lanes.limit(repeat); ++i) {
        if (!lanes.on(repeat, first + i)) continue;
        group.values[i] = source(repeat, first + i);
        group.taken[i] = 1;
    }
    return group;
}

// Bytes of one result in the destination, which is also what strides count and what must divide the address.
template <typename T>
uint32_t result_bytes(ReduceType type, ReduceOrder order) {
    if (type == ReduceType::SUM || order == ReduceOrder::ORDER_ONLY_VALUE) return sizeof(T);
    return order == ReduceOrder::ORDER_ONLY_INDEX ? sizeof(uint32_t) : 2 * sizeof(T);
}

template <typename T>
void put_result(T* target, const Group<T>& group, ReduceType type, ReduceOrder order) {
    if (type == ReduceType::SUM) {
        target[0] = group.sum();
        return;
    }
    const uint32_t index = group.extreme(type == ReduceType::MAX);
    switch (order) {
        case ReduceOrder::ORDER_ONLY_VALUE:
            target[0] = group.values[index];
            break;
        case ReduceOrder::ORDER_ONLY_INDEX:
            std::memcpy(target, &index, sizeof(index));
            break;
        case ReduceOrder::ORDER_VALUE_INDEX:
            target[0] = group.values[index];
            target[1] = index_as<T>(index);
            break;
        case ReduceOrder::ORDER_INDEX_VALUE:
            target[0] = index_as<T>(index);
            target[1] = group.values[index];
            break;
    }
}

struct ReduceStrides {
    int64_t dst_repeat;
    int64_t src_block;
    int64_t src_repeat;

    void check(const Instruction& op) const {
        for (const int64_t stride : {dst_repeat, src_block, src_repeat}) {
            op.require(stride >= 0 && stride <= 65535, "stride %lld is not in 0..65535",
                       static_cast<long long>(stride));
        }
    }
    Strides source() const { return {static_cast<uint32_t>(src_block), static_cast<uint32_t>(src_repeat)}; }
};

// Masks are a number of lanes or a pointer to two words.
inline int32_t mask_argument(int64_t lanes) { return static_cast<int32_t>(lanes); }
inline const uint64_t* mask_argument(const uint64_t* bits) { return bits; }

// One result for each repeat.
template <typename T, typename Form>
void reduce_repeats(const char* name, Site site, ReduceType type, const LocalTensor<T>& dst,
                    const LocalTensor<T>& src, const Form& form, const ReduceStrides& strides,
                    ReduceOrder order) {
    Instruction op(Pipe::V, name, site);
    require_format<T, half, float>(op);
    strides.check(op);
    const Lanes lanes = form.lanes(op, lanes_per_repeat<T>());
    op.vector(lanes.total());
    if (lanes.none()) return;
    const auto source = operand_read(op, src, lanes, strides.source());
    const uint32_t size = result_bytes<T>(type, order);
    const uint64_t step = static_cast<uint64_t>(strides.dst_repeat) * size;
    T* out = op.write(dst, {size, lanes.total(), step}, {size});
    if (!op.computes()) return;
    for (uint32_t repeat = 0; repeat < lanes.total(); ++repeat) {
        put_result(out + repeat * step / sizeof(T), group_of(source, lanes, repeat, 0, lanes.per_repeat),
                   type, order);
    }
}

// One result for each block of 32 bytes; blocks without a lane leave their result as it is.
template <typename T, typename Form>
void reduce_blocks(const char* name, Site site, ReduceType type, const LocalTensor<T>& dst,
                   const LocalTensor<T>& src, const Form& form, const ReduceStrides& strides) {
    Instruction op(Pipe::V, name, site);
    require_format<T, half, float>(op);
    strides.check(op);
    const Lanes lanes = form.lanes(op, lanes_per_repeat<T>());
    op.vector(lanes.total());
    if (lanes.none()) return;
    const auto source = operand_read(op, src, lanes, strides.source());
    constexpr uint32_t kPerBlock = kBlock / sizeof(T);
    const uint64_t row = 8 * sizeof(T), step = static_cast<uint64_t>(strides.dst_repeat) * row;
    op.write(dst, {0, lanes.total(), step}, {static_cast<uint32_t>(row)});
    for (uint32_t repeat = 0; repeat < lanes.total(); ++repeat) {
        for (uint32_t block = 0; block < 8; ++block) {
            const uint32_t first = block * kPerBlock, end = std::min(first + kPerBlock, lanes.limit(repeat));
            uint32_t lane = first;
            while (lane < end && !lanes.on(repeat, lane)) ++lane;
            if (lane >= end) continue;
            const uint64_t at = repeat * step + block * sizeof(T);
            T* out = op.write(dst, {sizeof(T), 1, 0, at}, {sizeof(T)});
            if (op.computes())
                out[at / sizeof(T)] = group_of(source, lanes, repeat, first, kPerBlock).reduced(type);
        }
    }
}

}  // namespace moe_jit::emulator

namespace AscendC {

// Both forms of a mask, each for all lanes of a repeat and for its blocks.
template <ReduceType reduceType, typename T, typename U, bool isSetMask = true>
void ReduceRepeat(const LocalTensor<T>& dst, const LocalTensor<U>& src, const uint64_t mask[],
                  const int32_t repeatTime, const int32_t dstRepStride, const int32_t srcBlkStride,
                  const int32_t srcRepStride, ReduceOrder order = ReduceOrder::ORDER_VALUE_INDEX,
                  Site site = Site::here()) {
    moe_jit::emulator::reduce_repeats(
        "ReduceRepeat", site, reduceType, dst, src,
        moe_jit::emulator::BitsForm{isSetMask, mask, static_cast<uint32_t>(repeatTime)},
        {dstRepStride, srcBlkStride, srcRepStride}, order);
}
template <ReduceType reduceType, typename T, typename U, bool isSetMask = true>
void ReduceRepeat(const LocalTensor<T>& dst, const LocalTensor<U>& src, const int32_t mask,
                  const int32_t repeatTime, const int32_t dstRepStride, const int32_t srcBlkStride,
                  const int32_t srcRepStride, ReduceOrder order = ReduceOrder::ORDER_VALUE_INDEX,
                  Site site = Site::here()) {
    moe_jit::emulator::reduce_repeats("ReduceRepeat", site, reduceType, dst, src,
                                      moe_jit::emulator::MaskForm{isSetMask, static_cast<uint64_t>(mask),
                                                                  static_cast<uint32_t>(repeatTime)},
                                      {dstRepStride, srcBlkStride, srcRepStride}, order);
}
template <ReduceType reduceType, typename T, typename U, bool isSetMask = true>
void ReduceDataBlock(const LocalTensor<T>& dst, const LocalTensor<U>& src, const uint64_t mask[],
                     const int32_t repeatTime, const int32_t dstRepStride, const int32_t srcBlkStride,
                     const int32_t srcRepStride, Site site = Site::here()) {
    moe_jit::emulator::reduce_blocks(
        "ReduceDataBlock", site, reduceType, dst, src,
        moe_jit::emulator::BitsForm{isSetMask, mask, static_cast<uint32_t>(repeatTime)},
        {dstRepStride, srcBlkStride, srcRepStride});
}
template <ReduceType reduceType, typename T, typename U, bool isSetMask = true>
void ReduceDataBlock(const LocalTensor<T>& dst, const LocalTensor<U>& src, const int32_t mask,
                     const int32_t repeatTime, const int32_t dstRepStride, const int32_t srcBlkStride,
                     const int32_t srcRepStride, Site site = Site::here()) {
    moe_jit::emulator::reduce_blocks("ReduceDataBlock", site, reduceType, dst, src,
                                     moe_jit::emulator::MaskForm{isSetMask, static_cast<uint64_t>(mask),
                                                                 static_cast<uint32_t>(repeatTime)},
                                     {dstRepStride, srcBlkStride, srcRepStride});
}

// Older names of the same instructions. BlockReduce takes the number of repeats before the mask.
#define MOE_JIT_WHOLE_REDUCE(NAME, TYPE)                                                                   \
    template <typename T, bool isSetMask = true, typename Mask>                                            \
    void NAME(const LocalTensor<T>& dst, const LocalTensor<T>& src, const Mask mask,                       \
              const int32_t repeatTimes, const int32_t dstRepStride, const int32_t srcBlkStride,           \
              const int32_t srcRepStride, ReduceOrder order = ReduceOrder::ORDER_VALUE_INDEX,              \
              Site site = Site::here()) {                                                                  \
        ReduceRepeat<TYPE, T, T, isSetMask>(dst, src, moe_jit::emulator::mask_argument(mask), repeatTimes, \
                                            dstRepStride, srcBlkStride, srcRepStride, order, site);        \
    }
#define MOE_JIT_BLOCK_REDUCE(NAME, TYPE)                                                                     \
    template <typename T, bool isSetMask = true, typename Mask>                                              \
    void NAME(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t repeatTime,                \
              const Mask mask, const int32_t dstRepStride, const int32_t srcBlkStride,                       \
              const int32_t srcRepStride, Site site = Site::here()) {                                        \
        ReduceDataBlock<TYPE, T, T, isSetMask>(dst, src, moe_jit::emulator::mask_argument(mask), repeatTime, \
                                               dstRepStride, srcBlkStride, srcRepStride, site);              \
    }
MOE_JIT_WHOLE_REDUCE(WholeReduceSum, ReduceType::SUM)
MOE_JIT_WHOLE_REDUCE(WholeReduceMax, ReduceType::MAX)
MOE_JIT_WHOLE_REDUCE(WholeReduceMin, ReduceType::MIN)
MOE_JIT_BLOCK_REDUCE(BlockReduceSum, ReduceType::SUM)
MOE_JIT_BLOCK_REDUCE(BlockReduceMax, ReduceType::MAX)
MOE_JIT_BLOCK_REDUCE(BlockReduceMin, ReduceType::MIN)
#undef MOE_JIT_WHOLE_REDUCE
#undef MOE_JIT_BLOCK_REDUCE

}  // namespace AscendC
