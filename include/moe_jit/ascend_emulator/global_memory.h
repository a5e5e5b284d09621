// Global memory: the registered allocations, which of their bytes are defined, and who accessed them last.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "moe_jit/ascend_emulator/memory.h"

namespace moe_jit::emulator {

enum class Usage : uint8_t { Input, Output, InOut, Workspace };

// The accesses to a range of bytes that later ones must be ordered after. Concurrent readers, and concurrent
// atomic writers, are all kept.
struct History {
    Stamp write;
    Stamp read;
    bool atomic = false;
    std::unique_ptr<std::vector<Stamp>> more_reads;
    std::unique_ptr<std::vector<Stamp>> more_writes;
};

class GlobalAllocation {
  public:
    GlobalAllocation(uint8_t* base, uint64_t size, std::string name, Usage usage, bool tracked)
        : base(base),
          size(size),
          name(std::move(name)),
          usage(usage),
          touched_((size + kMemoryLine - 1) / kMemoryLine) {
        if (usage == Usage::Input || !tracked) return;
        defined = DefinedBytes(size);
        if (usage == Usage::InOut) defined.set(0, size);
        blocks_.resize((size + kBlock - 1) / kBlock);
    }

    bool tracked() const { return !blocks_.empty(); }

    // Bytes of the lines of [begin, end) that no earlier call named.
    uint64_t touch(uint64_t begin, uint64_t end) {
        return kMemoryLine * touched_.claim(begin / kMemoryLine, (end + kMemoryLine - 1) / kMemoryLine);
    }

    // Checks the access of `own`, whose pipe knows `clock`, against earlier ones and remembers it.
    Conflict access(uint64_t begin, uint64_t end, bool writes, bool atomic, const Clock& clock, Stamp own) {
        while (begin < end) {
            const uint64_t block = begin / kBlock;
            const uint64_t stop = std::min(end, (block + 1) * kBlock);
            const bool whole = begin % kBlock == 0 && (stop % kBlock == 0 || stop == size);
            Conflict conflict = in_block(block, begin, stop, whole, writes, atomic, clock, own);
            if (conflict.found) return conflict;
            begin = stop;
        }
        return {};
    }

    uint8_t* base;
    uint64_t size;
    std::string name;
    Usage usage;
    DefinedBytes defined;

  private:
    Conflict in_block(uint64_t block, uint64_t begin, uint64_t stop, bool whole, bool writes, bool atomic,
                      const Clock& clock, Stamp own) {
        const auto split = split_.find(block);
        if (whole && split == split_.end()) return step(blocks_[block], begin, writes, atomic, clock, own);
        auto& bytes = split != split_.end() ? split->second : divide(block);
        for (uint64_t at = begin; at < stop; ++at) {
            Conflict conflict = step(bytes[at % kBlock], at, writes, atomic, clock, own);
            if (conflict.found) return conflict;
        }
        if (whole && writes && !atomic) {
            blocks_[block] = std::move(bytes[0]);
            split_.erase(block);
        }
        return {};
    }

    // Parts of a block that different instructions access are followed byte by byte.
    std::vector<History>& divide(uint64_t block) {
        std::vector<History> bytes(kBlock);
        const History& whole = blocks_[block];
        for (History& byte : bytes) {
            byte.write = whole.write;
            byte.read = whole.read;
            byte.atomic = whole.atomic;
            if (whole.more_reads) byte.more_reads = std::make_unique<std::vector<Stamp>>(*whole.more_reads);
            if (whole.more_writes)
                byte.more_writes = std::make_unique<std::vector<Stamp>>(*whole.more_writes);
        }
        return split_.emplace(block, std::move(bytes)).first->second;
    }

    static Conflict step(History& history, uint64_t at, bool writes, bool atomic, const Clock& clock,
                         Stamp own) {
        const bool adds_to_adds = writes && atomic && history.atomic;
        if (!adds_to_adds) {
            if (!ordered(history.write, clock, own)) return {true, at, history.write, true};
            if (history.more_writes) {
                for (Stamp stamp : *history.more_writes) {
                    if (!ordered(stamp, clock, own)) return {true, at, stamp, true};
                }
            }
        }
        if (!writes) {
            remember(history.read, history.more_reads, clock, own);
            return {};
        }
        if (!ordered(history.read, clock, own)) return {true, at, history.read, false};
        if (history.more_reads) {
            for (Stamp stamp : *history.more_reads) {
                if (!ordered(stamp, clock, own)) return {true, at, stamp, false};
            }
        }
        history.more_reads.reset();
        history.read = {};
        if (adds_to_adds) {
            remember(history.write, history.more_writes, clock, own);
        } else {
            history.more_writes.reset();
            history.write = own;
        }
        history.atomic = atomic;
        return {};
    }

    static bool ordered(Stamp earlier, const Clock& clock, Stamp own) {
        return clock.knows(earlier) || earlier == own;
    }

    static void remember(Stamp& last, std::unique_ptr<std::vector<Stamp>>& more, const Clock& clock,
                         Stamp own) {
        // A stamp of the same slot is older, and what is ordered after `own` is ordered after it too unless
        // the pipe's instructions may overtake each other, which later accesses of the same pipe are checked
        // for.
        if (last.slot == own.slot || ordered(last, clock, own)) {
            last = own;
            return;
        }
        if (!more) more = std::make_unique<std::vector<Stamp>>();
        for (Stamp& stamp : *more) {
            if (stamp.slot == own.slot || ordered(stamp, clock, own)) {
                stamp = own;
                return;
            }
        }
        more->push_back(own);
    }

    DefinedBytes touched_;  // a bit for each line
    std::vector<History> blocks_;
    std::unordered_map<uint64_t, std::vector<History>> split_;
};

class GlobalMemory {
  public:
    GlobalAllocation& add(void* base, uint64_t size, const std::string& name, Usage usage, bool tracked) {
        allocations_.push_back(
            std::make_unique<GlobalAllocation>(static_cast<uint8_t*>(base), size, name, usage, tracked));
        return *allocations_.back();
    }

    // The allocation that holds `address`, one past its end included; null if there is none.
    GlobalAllocation* find(const uint8_t* address) {
        if (last_ && holds(*last_, address)) return last_;
        GlobalAllocation* at_end = nullptr;
        for (auto& allocation : allocations_) {
            if (holds(*allocation, address)) return last_ = allocation.get();
            if (address == allocation->base + allocation->size) at_end = allocation.get();
        }
        return at_end;
    }

    const std::vector<std::unique_ptr<GlobalAllocation>>& allocations() const { return allocations_; }

  private:
    static bool holds(const GlobalAllocation& allocation, const uint8_t* address) {
        return address >= allocation.base && address < allocation.base + allocation.size;
    }
    std::vector<std::unique_ptr<GlobalAllocation>> allocations_;
    GlobalAllocation* last_ = nullptr;
};

}  // namespace moe_jit::emulator
