// Loads and stores of the scalar unit in global memory, and the instruction that writes its cache back.
#pragma once

#include <cstring>

#include "moe_jit/ascend_emulator/instruction.h"

namespace moe_jit::emulator {

namespace detail {
struct ScalarView : GlobalView {
    using Storage = uint8_t;
    explicit ScalarView(const GlobalView& view) : GlobalView(view) {}
};

// Inputs never change, so that their lines cannot be stale; count-only runs have no data but inputs.
inline GlobalAllocation* cached_allocation(const Instruction& op, const GlobalView& view) {
    GlobalAllocation* allocation = op.on().machine.global->find(view.address);
    return allocation && allocation->usage != Usage::Input && op.computes() ? allocation : nullptr;
}
}  // namespace detail

inline void scalar_load(const GlobalView& view, uint64_t offset, void* value, uint64_t bytes, Site site) {
    Instruction op(Pipe::S, "GlobalTensor::GetValue", site);
    op.scalar();
    const detail::ScalarView tensor(view);
    const uint8_t* source = view.address + offset;
    GlobalAllocation* allocation = detail::cached_allocation(op, tensor);
    const bool own_store = allocation && op.on().cache.first_dirty(source, source + bytes);
    if (!own_store) op.read(tensor, {bytes, 1, 0, offset}, {static_cast<uint32_t>(bytes)});
    if (!allocation) {
        std::memcpy(value, source, bytes);
        return;
    }
    for (uint64_t i = 0; i < bytes; ++i) {
        CacheLine& line =
            op.on().cache.fetch(source + i, allocation->base, allocation->base + allocation->size);
        const uint64_t at = reinterpret_cast<uintptr_t>(source + i) % kCacheLine;
        const bool dirty = line.dirty >> at & 1;
        op.require(
            dirty || line.bytes[at] == source[i],
            "stale scalar cache: '%s' changed after this core cached it; DataCacheCleanAndInvalid is missing",
            allocation->name.c_str());
        static_cast<uint8_t*>(value)[i] = line.bytes[at];
    }
}

inline void scalar_store(const GlobalView& view, uint64_t offset, const void* value, uint64_t bytes,
                         Site site) {
    Instruction op(Pipe::S, "GlobalTensor::SetValue", site);
    op.scalar();
    if (!op.computes()) return;
    uint8_t* target = view.address + offset;
    GlobalAllocation* allocation = op.on().machine.global->find(view.address);
    op.require(allocation && target + bytes <= allocation->base + allocation->size &&
                   (!view.bounded || offset + bytes <= view.bytes),
               "out of bounds: byte %llu of %s", static_cast<unsigned long long>(offset),
               op.name(view).c_str());
    op.require(allocation->usage != Usage::Input, "writes to an input of the kernel, '%s'",
               allocation->name.c_str());
    for (uint64_t i = 0; i < bytes; ++i) {
        CacheLine& line =
            op.on().cache.fetch(target + i, allocation->base, allocation->base + allocation->size);
        const uint64_t at = reinterpret_cast<uintptr_t>(target + i) % kCacheLine;
        line.bytes[at] = static_cast<const uint8_t*>(value)[i];
        line.dirty |= uint64_t{1} << at;
        line.site = site;
    }
}

// Writes the bytes of one line from `from` on back to memory if any of them is dirty, and forgets them. The
// whole rest of the line is written: a neighbour that another core changed meanwhile would be lost.
inline void clean_line(Instruction& op, uintptr_t address, CacheLine& line, uint32_t from) {
    const uint64_t part = ~uint64_t{0} << from;
    auto* base = reinterpret_cast<uint8_t*>(address);
    if (line.dirty & part) {
        uint32_t begin = from;
        while (begin < kCacheLine && !(line.valid >> begin & 1)) ++begin;
        uint32_t end = begin;
        while (end < kCacheLine && (line.valid >> end & 1)) ++end;
        for (uint32_t i = begin; i < end; ++i) {
            const bool dirty = line.dirty >> i & 1;
            op.require(
                dirty || line.bytes[i] == base[i],
                "writes a stale cache line back over newer data: cores must not share a line of %u bytes",
                kCacheLine);
        }
        detail::ScalarView view({});
        view.address = base + begin;
        op.clean(view, end - begin, line.dirty >> begin);
        std::memcpy(base + begin, line.bytes + begin, end - begin);
    }
    line.valid &= ~part;
    line.dirty &= ~part;
}

inline void clean_cache(const GlobalView& view, bool whole, Site site) {
    Instruction op(Pipe::S, "DataCacheCleanAndInvalid", site);
    op.scalar();
    if (!op.computes()) return;
    auto& lines = op.on().cache.lines();
    if (whole) {
        for (auto& [address, line] : lines) clean_line(op, address, line, 0);
        lines.clear();
    } else {
        const auto found = lines.find(ScalarCache::line_of(view.address));
        if (found != lines.end()) {
            clean_line(op, found->first, found->second,
                       static_cast<uint32_t>(reinterpret_cast<uintptr_t>(view.address) % kCacheLine));
        }
    }
    op.on().machine.scheduler.yield(site);
}

}  // namespace moe_jit::emulator

namespace AscendC {

enum class CacheLine : uint8_t { SINGLE_CACHE_LINE, ENTIRE_DATA_CACHE };
enum class DcciDst : uint8_t { CACHELINE_ALL, CACHELINE_UB, CACHELINE_OUT, CACHELINE_ATOMIC };

}  // namespace AscendC
