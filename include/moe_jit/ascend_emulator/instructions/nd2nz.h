// DataCopy with Nd2NzParams: rows in global memory become columns of fractals in L1.
#pragma once

#include "moe_jit/ascend_emulator/instructions/data_copy.h"

namespace AscendC {

// 4-bit matrices are copied as 8-bit ones of half the columns: all parameters count bytes then.
template <typename T>
void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const Nd2NzParams& p,
              Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(Pipe::MTE2, "DataCopy (Nd2Nz)", site);
    op.require(sizeof(T) <= 4, "has no form for %s on this chip", format_name<T>());
    op.require(dst.memory() == Memory::L1, "the destination must lie in L1, not %s", name_of(dst.memory()));
    op.require(p.ndNum <= 4095 && p.nValue <= 16384, "ndNum %u (at most 4095), nValue %u (at most 16384)",
               p.ndNum, p.nValue);
    const uint64_t row_bytes = p.dValue * sizeof(T);
    op.transfer(Memory::GM, Memory::L1, p.ndNum * p.nValue * row_bytes, uint64_t{p.ndNum} * p.nValue);
    if (p.ndNum == 0 || row_bytes == 0 || p.nValue == 0) return;
    const auto in_range = [](uint32_t stride) { return stride >= 1 && stride <= 16384; };
    op.require(p.srcDValue >= 1 && in_range(p.dstNzC0Stride) && in_range(p.dstNzNStride) &&
                   p.dstNzMatrixStride <= 16384,
               "srcDValue %u, dstNzC0Stride %u, dstNzNStride %u: at least 1; strides of the destination at "
               "most 16384",
               p.srcDValue, p.dstNzC0Stride, p.dstNzNStride);
    const uint64_t src_row = p.srcDValue * sizeof(T), columns = rounded_up(row_bytes, kBlock) / kBlock;
    const uint64_t dst_row = uint64_t{p.dstNzNStride} * kBlock,
                   dst_column = uint64_t{p.dstNzC0Stride} * kBlock;
    for (uint64_t matrix = 0; matrix < p.ndNum; ++matrix) {
        const uint64_t from = matrix * p.srcNdMatrixStride * sizeof(T),
                       to = matrix * p.dstNzMatrixStride * sizeof(T);
        const uint8_t* in = bytes_of(op.read(src, {row_bytes, p.nValue, src_row, from}, {1}));
        uint8_t* out = nullptr;
        for (uint64_t column = 0; column < columns; ++column) {
            out = bytes_of(op.write(dst, {kBlock, p.nValue, dst_row, to + column * dst_column}));
        }
        if (!op.computes()) continue;
        for (uint64_t row = 0; row < p.nValue; ++row) {
            for (uint64_t column = 0; column < columns; ++column) {
                uint8_t* block = out + to + row * dst_row + column * dst_column;
                const uint64_t part = std::min<uint64_t>(kBlock, row_bytes - column * kBlock);
                std::memcpy(block, in + from + row * src_row + column * kBlock, part);
                std::memset(block + part, 0, kBlock - part);
            }
        }
    }
}

}  // namespace AscendC
