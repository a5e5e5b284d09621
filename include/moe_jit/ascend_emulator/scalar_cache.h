// The scalar unit's data cache: lines of 64 bytes that no other unit keeps up to date. Nothing is ever
// evicted, so that a kernel cannot come to depend on it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>

#include "moe_jit/ascend_emulator/chip.h"
#include "moe_jit/ascend_emulator/error.h"

namespace moe_jit::emulator {

struct CacheLine {
    uint8_t bytes[kCacheLine];
    uint64_t valid = 0;  // a bit for each byte
    uint64_t dirty = 0;
    Site site;  // of the last store
};

class ScalarCache {
  public:
    static uintptr_t line_of(const void* address) {
        return reinterpret_cast<uintptr_t>(address) & ~uintptr_t{kCacheLine - 1};
    }

    // The line of `address`; bytes of [begin, end) that it does not hold are fetched.
    CacheLine& fetch(const uint8_t* address, const uint8_t* begin, const uint8_t* end) {
        CacheLine& line = lines_[line_of(address)];
        const auto* base = reinterpret_cast<const uint8_t*>(line_of(address));
        for (uint32_t i = 0; i < kCacheLine; ++i) {
            const uint64_t bit = uint64_t{1} << i;
            if ((line.valid & bit) || base + i < begin || base + i >= end) continue;
            line.bytes[i] = base[i];
            line.valid |= bit;
        }
        return line;
    }

    std::map<uintptr_t, CacheLine>& lines() { return lines_; }

    // A byte of [begin, end) that was written and not yet cleaned, or null.
    const uint8_t* first_dirty(const uint8_t* begin, const uint8_t* end) {
        for (auto at = lines_.lower_bound(line_of(begin)); at != lines_.end(); ++at) {
            if (at->first >= reinterpret_cast<uintptr_t>(end)) break;
            for (uint32_t i = 0; i < kCacheLine; ++i) {
                const auto* byte = reinterpret_cast<const uint8_t*>(at->first + i);
                if ((at->second.dirty >> i & 1) && byte >= begin && byte < end) return byte;
            }
        }
        return nullptr;
    }

  private:
    std::map<uintptr_t, CacheLine> lines_;
};

}  // namespace moe_jit::emulator
