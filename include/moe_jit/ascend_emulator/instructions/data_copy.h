// Copies between memories: contiguous, in bursts with gaps, with unaligned lengths, and from rows to NZ.
#pragma once

#include "moe_jit/ascend_emulator/instructions/atomics.h"
#include "moe_jit/ascend_emulator/instructions/layouts.h"

namespace moe_jit::emulator {

// `count` bursts of `bytes`, whose starts lie the given distances apart. All in bytes.
struct Bursts {
    uint64_t count;
    uint64_t bytes;
    uint64_t src_stride;
    uint64_t dst_stride;

    bool none() const { return count == 0 || bytes == 0; }
    Runs source() const { return {bytes, count, src_stride, 0}; }
    Runs destination() const { return {bytes, count, dst_stride, 0}; }
};

inline void check_bursts(const Instruction& op, uint64_t count) {
    op.require(count <= 4095, "blockCount is %llu, at most 4095 are possible",
               static_cast<unsigned long long>(count));
}

inline Bursts bursts_of(const AscendC::DataCopyParams& p) {
    const uint64_t bytes = uint64_t{p.blockLen} * kBlock;
    return {p.blockCount, bytes, bytes + uint64_t{p.srcGap} * kBlock, bytes + uint64_t{p.dstGap} * kBlock};
}

template <typename T>
Bursts one_burst(const Instruction& op, uint64_t elements) {
    const uint64_t bytes = elements * bits_of<T>() / 8;
    op.require(bytes % kBlock == 0, "%llu bytes are no multiple of 32, the rest would not be copied",
               static_cast<unsigned long long>(bytes));
    return {1, bytes, 0, 0};
}

inline const uint8_t* bytes_of(const void* data) { return static_cast<const uint8_t*>(data); }
inline uint8_t* bytes_of(void* data) { return static_cast<uint8_t*>(data); }

inline void copy_bursts(uint8_t* dst, const uint8_t* src, const Bursts& b) {
    for (uint64_t i = 0; i < b.count; ++i)
        std::memcpy(dst + i * b.dst_stride, src + i * b.src_stride, b.bytes);
}

// GM to UB or L1.
template <typename T>
void load(Instruction& op, const LocalTensor<T>& dst, const GlobalTensor<T>& src, const Bursts& b) {
    check_bursts(op, b.count);
    op.require(dst.memory() == Memory::UB || dst.memory() == Memory::L1, "there is no path from GM to %s",
               name_of(dst.memory()));
    op.transfer(Memory::GM, dst.memory(), b.count * b.bytes, b.count);
    if (b.none()) return;
    const auto* in = op.read(src, b.source(), {fractional_alignment<T>()});
    auto* out = op.write(dst, b.destination());
    if (op.computes()) copy_bursts(bytes_of(out), bytes_of(in), b);
}

// UB or L1 to GM.
template <typename T>
void store(Instruction& op, const GlobalTensor<T>& dst, const LocalTensor<T>& src, const Bursts& b,
           uint32_t alignment) {
    check_bursts(op, b.count);
    op.require(src.memory() == Memory::UB || src.memory() == Memory::L1, "there is no path from %s to GM",
               name_of(src.memory()));
    op.transfer(src.memory(), Memory::GM, b.count * b.bytes, b.count);
    if (b.none()) return;
    const auto* in = op.read(src, b.source());
    GlobalStore<T> out(op, dst);
    out.claim(b.destination(), alignment);
    if (!op.computes()) return;
    for (uint64_t i = 0; i < b.count; ++i) {
        out.put(i * b.dst_stride, in + i * b.src_stride / sizeof(*in), b.bytes / sizeof(*in));
    }
}

// Between on-chip memories. The units are those of the destination: blocks of 32 bytes in UB, 64 bytes in BT
// and 128 in FB, where distances are from start to start instead of gaps.
inline Bursts local_bursts(const Instruction& op, Memory from, Memory to, const AscendC::DataCopyParams& p) {
    if (to == Memory::UB) return bursts_of(p);
    const bool into_bias = to == Memory::BT;
    const uint64_t unit = into_bias ? 64 : 128, bytes = p.blockLen * unit;
    op.require(from == Memory::L1, "there is no path from %s to %s", name_of(from), name_of(to));
    if (into_bias) return {p.blockCount, bytes, bytes + uint64_t{p.srcGap} * kBlock, bytes + p.dstGap * unit};
    return {p.blockCount, bytes, uint64_t{p.srcGap} * kBlock, p.dstGap * unit};
}

constexpr Pipe local_copy_pipe(Memory to) {
    return to == Memory::BT ? Pipe::MTE1 : to == Memory::FB ? Pipe::FIX : Pipe::V;
}

template <typename T>
void move(Instruction& op, const LocalTensor<T>& dst, const LocalTensor<T>& src, const Bursts& b) {
    const Memory from = src.memory(), to = dst.memory();
    op.require((from == Memory::UB && to == Memory::UB) ||
                   (from == Memory::L1 && (to == Memory::BT || to == Memory::FB)),
               "there is no path from %s to %s", name_of(from), name_of(to));
    check_bursts(op, b.count);
    op.transfer(from, to, b.count * b.bytes, b.count);
    if (b.none()) return;
    if (from == to) {
        const uint64_t source_end = src.address + b.source().end(), end = dst.address + b.destination().end();
        op.require(dst.address >= source_end || src.address >= end, "source and destination overlap");
    }
    const auto* in = op.read(src, b.source());
    auto* out = op.write(dst, b.destination());
    if (op.computes()) copy_bursts(bytes_of(out), bytes_of(in), b);
}

}  // namespace moe_jit::emulator

namespace AscendC {

// GM to UB or L1.
template <typename T>
void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const DataCopyParams& repeatParams,
              Site site = Site::here()) {
    moe_jit::emulator::Instruction op(PIPE_MTE2, "DataCopy", site);
    moe_jit::emulator::load(op, dst, src, moe_jit::emulator::bursts_of(repeatParams));
}
template <typename T>
void DataCopy(const LocalTensor<T>& dst, const GlobalTensor<T>& src, const uint32_t count,
              Site site = Site::here()) {
    moe_jit::emulator::Instruction op(PIPE_MTE2, "DataCopy", site);
    moe_jit::emulator::load(op, dst, src, moe_jit::emulator::one_burst<T>(op, count));
}

// UB or L1 to GM.
template <typename T>
void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const DataCopyParams& repeatParams,
              Site site = Site::here()) {
    moe_jit::emulator::Instruction op(PIPE_MTE3, "DataCopy", site);
    moe_jit::emulator::store(op, dst, src, moe_jit::emulator::bursts_of(repeatParams),
                             moe_jit::emulator::fractional_alignment<T>());
}
template <typename T>
void DataCopy(const GlobalTensor<T>& dst, const LocalTensor<T>& src, const uint32_t count,
              Site site = Site::here()) {
    moe_jit::emulator::Instruction op(PIPE_MTE3, "DataCopy", site);
    moe_jit::emulator::store(op, dst, src, moe_jit::emulator::one_burst<T>(op, count),
                             moe_jit::emulator::fractional_alignment<T>());
}

// UB to UB, L1 to BT, L1 to FB.
template <typename T>
void DataCopy(const LocalTensor<T>& dst, const LocalTensor<T>& src, const DataCopyParams& repeatParams,
              Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(local_copy_pipe(dst.memory()), "DataCopy", site);
    move(op, dst, src, local_bursts(op, src.memory(), dst.memory(), repeatParams));
}
template <typename T>
void DataCopy(const LocalTensor<T>& dst, const LocalTensor<T>& src, const uint32_t count,
              Site site = Site::here()) {
    using namespace moe_jit::emulator;
    Instruction op(local_copy_pipe(dst.memory()), "DataCopy", site);
    move(op, dst, src, one_burst<T>(op, count));
}

}  // namespace AscendC
