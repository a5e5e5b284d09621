// LoadData and LoadDataWithTranspose: fractals from L1 to L0A and L0B.
#pragma once

#include "moe_jit/ascend_emulator/instructions/data_copy.h"

namespace moe_jit::emulator {

template <typename Params>
void check_load(const Instruction& op, Memory to, const Params& p) {
    op.require(to == Memory::L0A || to == Memory::L0B, "the destination must lie in L0A or L0B, not %s",
               name_of(to));
    op.require(p.addrMode == 0, "addrMode 1 is not modelled");
}

// Every repeat moves one fractal. Source is a LocalTensor in L1 or a GlobalTensor.
template <typename T, typename Source>
void load_fractals(Instruction& op, Memory from, const LocalTensor<T>& dst, const Source& src,
                   const AscendC::LoadData2DParams& p) {
    const Memory to = dst.memory();
    check_load(op, to, p);
    op.require(!p.ifTranspose || (bits_of<T>() == 16 && from == Memory::L1),
               "ifTranspose takes 16-bit elements from L1 only; see LoadDataWithTranspose");
    op.transfer(from, to, uint64_t{p.repeatTimes} * kFractal, p.repeatTimes);
    if (p.repeatTimes == 0) return;
    const uint64_t start = uint64_t{p.startIndex} * kFractal, stride = uint64_t{p.srcStride} * kFractal;
    const uint64_t dst_stride = (uint64_t{p.dstGap} + 1) * kFractal;
    const Access access{from == Memory::GM ? 1u : 0u};
    const uint8_t* in =
        bytes_of(op.read(src, {kFractal, stride ? p.repeatTimes : 1u, stride, start}, access));
    uint8_t* out = bytes_of(op.write(dst, {kFractal, p.repeatTimes, dst_stride}));
    if (!op.computes()) return;
    for (uint64_t i = 0; i < p.repeatTimes; ++i) {
        const uint8_t* fractal = in + start + i * stride;
        uint8_t* target = out + i * dst_stride;
        if (!p.ifTranspose) {
            std::memcpy(target, fractal, kFractal);
            continue;
        }
        for (uint32_t row = 0; row < 16; ++row) {
            for (uint32_t column = 0; column < 16; ++column) {
                std::memcpy(target + (row * 16 + column) * 2, fractal + (column * 16 + row) * 2, 2);
            }
        }
    }
}

inline void move_element(uint8_t* out, uint64_t to, const uint8_t* in, uint64_t from, uint32_t bits) {
    if (bits >= 8) {
        std::memcpy(out + to * bits / 8, in + from * bits / 8, bits / 8);
        return;
    }
    const uint32_t value = in[from / 2] >> (from % 2 * 4) & 15u;
    const uint32_t shift = static_cast<uint32_t>(to % 2 * 4);
    out[to / 2] = static_cast<uint8_t>((out[to / 2] & ~(15u << shift)) | (value << shift));
}

}  // namespace moe_jit::emulator

namespace AscendC {

template <typename T>
void LoadData(const LocalTensor<T>& dst, const LocalTensor<T>& src, const LoadData2DParams& loadDataParams,
              Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(Pipe::MTE1, "LoadData", site);
    op.require(src.memory() == Memory::L1, "the source must lie in L1, not %s", name_of(src.memory()));
    load_fractals(op, Memory::L1, dst, src, loadDataParams);
}

template <typename T>
void LoadData(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const LoadData2DParams& loadDataParams,
              Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(Pipe::MTE2, "LoadData", site);
    op.require(bits_of<T>() >= 8, "has no form for %s from GM", format_name<T>());
    load_fractals(op, Memory::GM, dst, src, loadDataParams);
}

// Joins consecutive fractals to a square (2 of 8 bits: 32 x 32; 1 of 16; 2 of 32: 16 x 16; 4 of 4: 64 x 64),
// transposes it and cuts it into fractals again.
template <typename T>
void LoadDataWithTranspose(const LocalTensor<T>& dst, const LocalTensor<T>& src,
                           const LoadData2dTransposeParams& p, Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(Pipe::MTE1, "LoadDataWithTranspose", site);
    const Memory to = dst.memory();
    check_load(op, to, p);
    op.require(src.memory() == Memory::L1, "the source must lie in L1, not %s", name_of(src.memory()));
    op.require(bits_of<T>() != 4 || to == Memory::L0B, "int4b_t can be loaded to L0B only");
    constexpr TransposeShape shape = transpose_shape<T>();
    constexpr uint32_t bits = bits_of<T>(), c0 = elements_per_block<T>();
    constexpr uint64_t square = uint64_t{shape.fractals} * kFractal;
    op.transfer(Memory::L1, to, p.repeatTimes * square, p.repeatTimes);
    if (p.repeatTimes == 0) return;
    const uint64_t start = p.startIndex * square, stride = p.srcStride * square;
    const uint64_t dst_stride = (uint64_t{p.dstGap} + 1) * kFractal;
    const uint64_t fractal_stride = (uint64_t{p.dstFracGap} + 1) * kFractal;
    const uint8_t* in = bytes_of(op.read(src, {square, stride ? p.repeatTimes : 1u, stride, start}));
    uint8_t* out = nullptr;
    std::vector<uint64_t> written;
    for (uint64_t i = 0; i < p.repeatTimes; ++i) {
        out = bytes_of(op.write(dst, {kFractal, shape.fractals, fractal_stride, i * dst_stride}));
        for (uint32_t j = 0; j < shape.fractals; ++j) written.push_back(i * dst_stride + j * fractal_stride);
    }
    std::sort(written.begin(), written.end());
    op.require(std::adjacent_find(written.begin(), written.end()) == written.end(),
               "fractals of the destination overlap (dstGap %u, dstFracGap %u)", p.dstGap, p.dstFracGap);
    if (!op.computes()) return;
    for (uint64_t i = 0; i < p.repeatTimes; ++i) {
        for (uint32_t j = 0; j < shape.fractals; ++j) {
            for (uint32_t element = 0; element < 16 * c0; ++element) {
                const uint64_t from = shape.source(j, element / c0, element % c0, c0);
                move_element(out + i * dst_stride + j * fractal_stride, element, in + start + i * stride,
                             from, bits);
            }
        }
    }
}

}  // namespace AscendC
