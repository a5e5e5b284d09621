// DataCopyPad: bursts of any number of bytes. In on-chip memory each burst starts at a multiple of 32 bytes.
#pragma once

#include "moe_jit/ascend_emulator/instructions/data_copy.h"

namespace moe_jit::emulator {

// What lies around the data of a burst in on-chip memory. Bytes that no parameter defines are poisoned, also
// those that the chip fills with the burst's first element when both paddings are 0.
struct Padding {
    uint64_t left;   // bytes
    uint64_t right;  // bytes, up to the next multiple of 32 behind it
    bool defined;
    uint64_t value;  // of one element
};

template <typename T>
Padding padding_of(const Instruction& op, uint64_t bytes, const AscendC::DataCopyPadExtParams<T>& p) {
    const uint64_t left = p.leftPadding * sizeof(T), right = p.rightPadding * sizeof(T);
    op.require(left <= kBlock && right <= kBlock,
               "leftPadding and rightPadding are at most 32 bytes, not %llu and %llu",
               static_cast<unsigned long long>(left), static_cast<unsigned long long>(right));
    const Registers& registers = op.on().registers;
    Padding padding{left, rounded_up(left + bytes + right, kBlock) - left - bytes, false, 0};
    if (p.isPad) {
        padding.defined = left + right != 0;
        std::memcpy(&padding.value, &p.paddingValue, sizeof(T));
        op.require(sizeof(T) < 8 || padding.value == 0, "64-bit elements can be padded with 0 only");
    } else if (registers.pad_value_set) {
        padding.defined = left + right != 0;
        padding.value = registers.pad_value;
    }
    return padding;
}

template <typename T>
void pad(uint8_t* begin, uint64_t bytes, const Padding& padding) {
    if (!padding.defined) {
        std::memset(begin, poison_byte<T>(), bytes);
        return;
    }
    for (uint64_t at = 0; at < bytes; at += sizeof(T)) std::memcpy(begin + at, &padding.value, sizeof(T));
}

template <typename T>
void check_unaligned_copy(const Instruction& op, const LocalTensor<T>& tensor,
                          const AscendC::DataCopyExtParams& p) {
    op.require(tensor.memory() == Memory::UB, "exists between GM and UB only on this chip, not for %s",
               name_of(tensor.memory()));
    check_bursts(op, p.blockCount);
    op.require(p.blockLen <= 2097151, "blockLen is %u, at most 2097151 bytes are possible", p.blockLen);
    op.require(p.blockLen % sizeof(T) == 0, "blockLen is %u, no multiple of %s's size", p.blockLen,
               format_name<T>());
}

}  // namespace moe_jit::emulator

namespace AscendC {

// GM to UB.
template <typename T>
void DataCopyPad(const LocalTensor<T>& dst, const GlobalTensor<T>& src,
                 const DataCopyExtParams& dataCopyParams, const DataCopyPadExtParams<T>& padParams,
                 Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(Pipe::MTE2, "DataCopyPad", site);
    check_unaligned_copy(op, dst, dataCopyParams);
    const uint64_t bytes = dataCopyParams.blockLen, count = dataCopyParams.blockCount;
    op.transfer(Memory::GM, dst.memory(), count * bytes, count);
    if (count == 0 || bytes == 0) return;
    const Padding padding = padding_of(op, bytes, padParams);
    const uint64_t whole = padding.left + bytes + padding.right;
    const uint64_t src_stride = bytes + dataCopyParams.srcStride;
    const uint64_t dst_stride = whole + uint64_t{dataCopyParams.dstStride} * kBlock;
    const uint8_t* in = bytes_of(op.read(src, {bytes, count, src_stride}, {1}));
    uint8_t* out = bytes_of(op.write(dst, {whole, count, dst_stride}));
    if (!op.computes()) return;
    for (uint64_t i = 0; i < count; ++i) {
        uint8_t* burst = out + i * dst_stride;
        pad<T>(burst, padding.left, padding);
        std::memcpy(burst + padding.left, in + i * src_stride, bytes);
        pad<T>(burst + padding.left + bytes, padding.right, padding);
    }
}

// UB to GM; what fills a burst up to 32 bytes stays behind.
template <typename T>
void DataCopyPad(const GlobalTensor<T>& dst, const LocalTensor<T>& src,
                 const DataCopyExtParams& dataCopyParams, Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(Pipe::MTE3, "DataCopyPad", site);
    check_unaligned_copy(op, src, dataCopyParams);
    const uint64_t bytes = dataCopyParams.blockLen;
    const uint64_t src_stride = rounded_up(bytes, kBlock) + uint64_t{dataCopyParams.srcStride} * kBlock;
    store(op, dst, src, {dataCopyParams.blockCount, bytes, src_stride, bytes + dataCopyParams.dstStride}, 1);
}

// What DataCopyPad fills paddings with when isPad is false.
template <typename T>
void SetPadValue(T paddingValue) {
    auto& registers = moe_jit::emulator::core().registers;
    registers.pad_value = 0;
    std::memcpy(&registers.pad_value, &paddingValue, sizeof(T));
    registers.pad_value_set = true;
}

}  // namespace AscendC
