// Vector clocks. A slot is a pipe of a core, its time the number of instructions that the pipe was given.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "moe_jit/ascend_emulator/error.h"
#include "moe_jit/ascend_emulator/types.h"

namespace moe_jit::emulator {

using Slot = uint32_t;
inline constexpr Slot slot_of(int core, Pipe pipe) {
    return static_cast<Slot>(core) * kPipes + static_cast<Slot>(pipe);
}
inline constexpr int core_of(Slot slot) { return static_cast<int>(slot / kPipes); }
inline constexpr Pipe pipe_of(Slot slot) { return static_cast<Pipe>(slot % kPipes); }

// One instruction: the `time`-th of its slot. Time 0 is before everything.
struct Stamp {
    Slot slot = 0;
    uint32_t time = 0;
    bool operator==(const Stamp& other) const { return slot == other.slot && time == other.time; }
};

// For every slot, up to which of its instructions all have finished.
class Clock {
  public:
    explicit Clock(size_t slots = 0) : times_(slots, 0) {}

    uint32_t operator[](Slot slot) const { return times_[slot]; }
    uint32_t& operator[](Slot slot) { return times_[slot]; }
    bool knows(Stamp stamp) const { return times_[stamp.slot] >= stamp.time; }
    const uint32_t* of_core(int core) const { return times_.data() + slot_of(core, Pipe::S); }

    void join(const Clock& other) {
        for (size_t i = 0; i < times_.size(); ++i) times_[i] = std::max(times_[i], other.times_[i]);
    }

  private:
    std::vector<uint32_t> times_;
};

// What a flag carries: all that had finished when it was set, and at which cycle.
struct Token {
    Clock clock;
    double cycle = 0;
    Site site;  // of the call that set it
};

}  // namespace moe_jit::emulator
