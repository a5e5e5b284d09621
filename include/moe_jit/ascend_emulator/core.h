// One emulated core: identity, memories, pipes, flags and statistics.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "moe_jit/ascend_emulator/clock.h"
#include "moe_jit/ascend_emulator/error.h"
#include "moe_jit/ascend_emulator/global_memory.h"
#include "moe_jit/ascend_emulator/memory.h"
#include "moe_jit/ascend_emulator/registers.h"
#include "moe_jit/ascend_emulator/scalar_cache.h"
#include "moe_jit/ascend_emulator/statistics.h"
#include "moe_jit/ascend_emulator/views.h"

namespace AscendC {
class TPipe;
}

namespace moe_jit::emulator {

struct Machine;

// A buffer that a TPipe made. `tensors` counts AllocTensor calls; a tensor of an earlier one must not be
// used.
struct Buffer {
    enum class State : uint8_t { Free, Allocated, Queued, Taken };  // of a queue's buffer

    std::string name;
    AscendC::TPosition position;
    Memory memory;
    uint32_t begin;
    uint32_t end;
    State state = State::Free;
    bool live = false;
    uint32_t tensors = 0;
    Site site{};         // of the last AllocTensor
    int32_t event = -1;  // id of the event that the next user of a queue's buffer waits for
};

// Where recent instructions of a pipe were called, so that a message can name both sides of a hazard.
class Trace {
  public:
    struct Call {
        uint32_t time = 0;
        const char* name = "";
        Site site;
    };
    void record(uint32_t time, const char* name, Site site) { calls_[time % kKept] = {time, name, site}; }
    std::string text(uint32_t time) const {
        const Call& call = calls_[time % kKept];
        return call.time == time ? std::string(call.name) + " at " + call.site.text()
                                 : "an earlier instruction";
    }

  private:
    static constexpr uint32_t kKept = 256;
    std::vector<Call> calls_ = std::vector<Call>(kKept);
};

struct PipeState {
    Clock known;  // what has finished before the pipe's next instruction starts
    uint32_t issued = 0;
    uint32_t scalar_version = 0;  // of the scalar unit's waits that `known` includes
    double ready = 0;             // cycle at which its last instruction ends
    Trace trace;
};

// A set of a cross-core flag; `pipe` is the one that set it, `source` the core.
struct CrossCoreToken {
    Token token;
    int source;
    Pipe pipe;
};

class Core {
  public:
    Core(Machine& machine, CoreKind kind, int index, int id, int block, int sub_block, size_t slots)
        : machine(machine), kind(kind), index(index), id(id), block(block), sub_block(sub_block) {
        for (PipeState& pipe : pipes) pipe.known = Clock(slots);
        for (int i = 1; i < kMemories; ++i) {
            const Memory memory = static_cast<Memory>(i);
            if (traits(memory).owner == kind) memories[i] = OnChipMemory(memory);
        }
        allocated.resize(kMemories, 0);
    }

    std::string name() const { return (kind == CoreKind::Cube ? "AIC " : "AIV ") + std::to_string(index); }
    OnChipMemory& memory(Memory which) { return memories[static_cast<int>(which)]; }
    PipeState& pipe(Pipe which) { return pipes[static_cast<int>(which)]; }

    // The cycle at which the next instruction of `which` can start.
    double start(Pipe which) { return std::max(pipe(which).ready, pipe(Pipe::S).ready); }

    // A wait of the scalar unit holds back everything that is issued after it: every pipe's next instruction
    // starts after what the scalar unit knows to have finished. Its own stores to memory are not part of
    // that.
    void catch_up_with_scalar(Pipe which) {
        PipeState& state = pipe(which);
        if (which == Pipe::S || state.scalar_version == scalar_version) return;
        const Slot own_stores = slot_of(id, Pipe::S);
        const uint32_t kept = state.known[own_stores];
        state.known.join(pipe(Pipe::S).known);
        state.known[own_stores] = kept;
        state.scalar_version = scalar_version;
    }

    // All that has finished once the instructions given to `which` so far have.
    Token token(Pipe which, Site site) {
        catch_up_with_scalar(which);
        PipeState& state = pipe(which);
        Token token{state.known, start(which), site};
        token.clock[slot_of(id, which)] = state.issued;
        return token;
    }

    void receive(Pipe which, const Token& token) {
        PipeState& state = pipe(which);
        state.known.join(token.clock);
        state.ready = std::max(state.ready, token.cycle);
        if (which == Pipe::S) ++scalar_version;
    }

    std::optional<Token>& event(Pipe source, Pipe destination, int number) {
        return events[static_cast<int>(source)][static_cast<int>(destination)][number];
    }

    Machine& machine;
    const CoreKind kind;
    const int index;  // among the cores of its kind
    const int id;     // among all cores
    const int block;
    const int sub_block;

    PipeState pipes[kPipes];
    uint32_t scalar_version = 0;
    OnChipMemory memories[kMemories];
    std::optional<Token> events[kPipes][kPipes][kEventIds];
    std::deque<CrossCoreToken> flags[kCrossCoreIds];    // as many as the counter says
    std::deque<CrossCoreToken> sets[3][kCrossCoreIds];  // by mode; wait for those of other cores
    bool unit_flags[kMemoryTraits[static_cast<int>(Memory::L0C)].capacity / kFlagBlock] = {};
    std::vector<Buffer> buffers;
    uint32_t resets = 0;                                          // of the TPipe
    std::vector<uint32_t> allocated;                              // bytes, per memory
    int tensors[static_cast<int>(AscendC::TPosition::MAX)] = {};  // allocated from queues, per position
    ScalarCache cache;
    Registers registers;
    Statistics statistics;
    bool ended = false;
    AscendC::TPipe* tpipe = nullptr;
    Site left_at;             // where what `left_behind` names came from
    std::string left_behind;  // a problem found where nothing can be raised, in ~TPipe
};

inline thread_local Core* current_core = nullptr;

// The core whose kernel code runs now.
inline Core& core() {
    if (!current_core) {
        throw EmulatorError({}, "no core", "call",
                            "KERNEL_TASK_TYPE_DEFAULT must be the first statement of a kernel");
    }
    return *current_core;
}

}  // namespace moe_jit::emulator
