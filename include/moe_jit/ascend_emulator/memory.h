// One on-chip memory of one core: its bytes, which of them are defined, and for every 32-byte block when each
// pipe last wrote and read it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "moe_jit/ascend_emulator/clock.h"

namespace moe_jit::emulator {

// Zeroed by the operating system when first touched: most of a core's memory is never used by a small kernel.
template <typename T>
class LazyArray {
  public:
    LazyArray() = default;
    explicit LazyArray(size_t size)
        : data_(static_cast<T*>(std::calloc(std::max<size_t>(size, 1), sizeof(T)))) {
        if (!data_) throw std::bad_alloc();
    }
    T* get() { return data_.get(); }
    T& operator[](size_t i) { return data_.get()[i]; }
    explicit operator bool() const { return data_ != nullptr; }

  private:
    struct Free {
        void operator()(T* data) const { std::free(data); }
    };
    std::unique_ptr<T, Free> data_;
};

// A bit for every byte of a memory.
class DefinedBytes {
  public:
    explicit DefinedBytes(size_t bytes = 0) : words_((bytes + 63) / 64) {}

    void set(uint64_t begin, uint64_t end) {
        each_word(begin, end, [](uint64_t& word, uint64_t mask) {
            word |= mask;
            return true;
        });
    }
    void clear(uint64_t begin, uint64_t end) {
        each_word(begin, end, [](uint64_t& word, uint64_t mask) {
            word &= ~mask;
            return true;
        });
    }
    // Sets a range and returns how many bytes of it were not set.
    uint64_t claim(uint64_t begin, uint64_t end) {
        uint64_t claimed = 0;
        each_word(begin, end, [&claimed](uint64_t& word, uint64_t mask) {
            claimed += static_cast<uint64_t>(__builtin_popcountll(mask & ~word));
            word |= mask;
            return true;
        });
        return claimed;
    }
    // The first undefined byte of [begin, end), or `end`.
    uint64_t first_undefined(uint64_t begin, uint64_t end) {
        uint64_t found = end;
        uint64_t at = begin / 64;
        each_word(begin, end, [&](uint64_t& word, uint64_t mask) {
            const uint64_t missing = ~word & mask;
            if (missing) found = at * 64 + static_cast<uint64_t>(__builtin_ctzll(missing));
            ++at;
            return missing == 0;
        });
        return found;
    }

  private:
    template <typename Function>
    void each_word(uint64_t begin, uint64_t end, Function function) {
        while (begin < end) {
            const uint64_t word = begin / 64;
            const uint64_t stop = std::min(end, (word + 1) * 64);
            const uint64_t width = stop - begin;
            const uint64_t mask = (width == 64 ? ~uint64_t{0} : (uint64_t{1} << width) - 1) << (begin % 64);
            if (!function(words_[word], mask)) return;
            begin = stop;
        }
    }
    LazyArray<uint64_t> words_;
};

// An earlier access that the one at hand has no happens-before edge to.
struct Conflict {
    bool found = false;
    uint64_t offset = 0;
    Stamp earlier;
    bool wrote = false;
};

class OnChipMemory {
  public:
    OnChipMemory() = default;
    explicit OnChipMemory(Memory memory)
        : size_(traits(memory).capacity),
          blocks_((size_ + kBlock - 1) / kBlock),
          bytes_(size_),
          defined_(size_) {}

    uint32_t size() const { return size_; }
    uint8_t* bytes() { return bytes_.get(); }
    DefinedBytes& defined() { return defined_; }

    // `known` holds, for each pipe of this core, up to where its instructions have finished; `own` is the
    // instruction at hand, which does not conflict with itself.
    Conflict check(uint64_t begin, uint64_t end, bool writes, const uint32_t* known, Stamp own) {
        for (int pipe = 0; pipe < kPipes; ++pipe) {
            Conflict conflict = later_than(written_[pipe], begin, end, pipe, known[pipe], own);
            conflict.wrote = true;
            for (auto* read : {&read_[pipe], &read_before_[pipe]}) {
                if (!conflict.found && writes)
                    conflict = later_than(*read, begin, end, pipe, known[pipe], own);
            }
            if (conflict.found) return conflict;
        }
        return {};
    }

    void record(uint64_t begin, uint64_t end, bool writes, Stamp own) {
        const int pipe = static_cast<int>(pipe_of(own.slot));
        LazyArray<uint32_t>& times = (writes ? written_ : read_)[pipe];
        if (!times) times = LazyArray<uint32_t>(blocks_);
        if (!writes && !read_before_[pipe]) read_before_[pipe] = LazyArray<uint32_t>(blocks_);
        for (uint64_t block = begin / kBlock; block < (end + kBlock - 1) / kBlock; ++block) {
            if (!writes && times[block] != own.time) read_before_[pipe][block] = times[block];
            times[block] = own.time;
        }
    }

  private:
    Conflict later_than(LazyArray<uint32_t>& times, uint64_t begin, uint64_t end, int pipe, uint32_t known,
                        Stamp own) {
        if (!times) return {};
        const uint32_t* first = times.get() + begin / kBlock;
        const uint32_t* last = times.get() + (end + kBlock - 1) / kBlock;
        uint32_t latest = 0;
        for (const uint32_t* time = first; time != last; ++time) latest = std::max(latest, *time);
        if (latest <= known) return {};
        for (const uint32_t* time = first; time != last; ++time) {
            const bool itself = static_cast<int>(pipe_of(own.slot)) == pipe && *time == own.time;
            if (*time > known && !itself) {
                const uint64_t offset = static_cast<uint64_t>(time - times.get()) * kBlock;
                const Stamp earlier{slot_of(core_of(own.slot), static_cast<Pipe>(pipe)), *time};
                return {true, std::max(offset, begin), earlier, false};
            }
        }
        return {};
    }

    uint32_t size_ = 0;
    size_t blocks_ = 0;
    LazyArray<uint8_t> bytes_;
    DefinedBytes defined_;
    LazyArray<uint32_t> written_[kPipes];
    LazyArray<uint32_t> read_[kPipes];
    // The read before the last one: what an instruction overwrites that has read it itself.
    LazyArray<uint32_t> read_before_[kPipes];
};

}  // namespace moe_jit::emulator
