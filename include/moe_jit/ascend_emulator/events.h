// Order between the pipes of one core: event flags and barriers.
#pragma once

#include "moe_jit/ascend_emulator/instruction.h"

namespace moe_jit::emulator {

// Flags and barriers are not instructions of a pipe: they have no operands and take no time.
class Synchronisation {
  public:
    Synchronisation(std::string call, Site site) : core_(core()), call_(std::move(call)), site_(site) {}

    Core& on() const { return core_; }
    Site site() const { return site_; }
    void require(bool condition, const std::string& problem) const {
        if (!condition) throw EmulatorError(site_, core_.name(), call_, problem);
    }
    void require_pipe(Pipe pipe) const {
        const bool cube_only = pipe == Pipe::M || pipe == Pipe::MTE1 || pipe == Pipe::FIX;
        const bool exists = core_.kind == CoreKind::Cube ? pipe != Pipe::V : !cube_only;
        require(exists, "core " + core_.name() + " has no pipe " + name_of(pipe));
    }

  private:
    Core& core_;
    std::string call_;
    Site site_;
};

inline std::string name_of(AscendC::HardEvent event) {
    return std::string(name_of(source_of(event))) + "_" + name_of(destination_of(event));
}

inline void check_event(const Synchronisation& call, AscendC::HardEvent event, int id) {
    call.require_pipe(source_of(event));
    call.require_pipe(destination_of(event));
    call.require(id >= 0 && id < kEventIds, "event id " + std::to_string(id) + " is not in 0..7");
}

inline void set_event(AscendC::HardEvent event, int id, Site site) {
    const Synchronisation call("SetFlag<" + name_of(event) + ">(" + std::to_string(id) + ")", site);
    check_event(call, event, id);
    std::optional<Token>& flag = call.on().event(source_of(event), destination_of(event), id);
    call.require(!flag, "set twice without a WaitFlag in between");
    flag = call.on().token(source_of(event), site);
}

inline void wait_event(AscendC::HardEvent event, int id, Site site) {
    const Synchronisation call("WaitFlag<" + name_of(event) + ">(" + std::to_string(id) + ")", site);
    check_event(call, event, id);
    std::optional<Token>& flag = call.on().event(source_of(event), destination_of(event), id);
    call.require(flag.has_value(), "wait without a SetFlag before it");
    call.on().receive(destination_of(event), *flag);
    flag.reset();
}

// All pipes have finished what they were given before any goes on.
inline void join_pipes(Core& core, Site site) {
    Token all = core.token(Pipe::S, site);
    for (int pipe = 0; pipe < kPipes; ++pipe) {
        const Token one = core.token(static_cast<Pipe>(pipe), site);
        all.clock.join(one.clock);
        all.cycle = std::max(all.cycle, one.cycle);
    }
    for (int pipe = 0; pipe < kPipes; ++pipe) core.receive(static_cast<Pipe>(pipe), all);
}

inline void pipe_barrier(Pipe pipe, Site site) {
    const Synchronisation call(std::string("PipeBarrier<PIPE_") + name_of(pipe) + ">", site);
    call.require(pipe != Pipe::S, "not available for the scalar pipe");
    for (int i = 0; i < kPipes; ++i) {
        if (pipe == Pipe::ALL || pipe == static_cast<Pipe>(i)) ++call.on().registers.barriers[i];
    }
    if (pipe == Pipe::ALL) return join_pipes(call.on(), site);
    call.require_pipe(pipe);
    PipeState& state = call.on().pipe(pipe);
    state.known[slot_of(call.on().id, pipe)] = state.issued;
}

}  // namespace moe_jit::emulator

namespace AscendC {

// The last two ids are the framework's; a program with a TPipe gets its ids from it.
inline void CheckManualEvent(HardEvent event, int32_t id, moe_jit::emulator::Site site) {
    using namespace moe_jit::emulator;
    const Synchronisation call("event " + name_of(event), site);
    call.require(id < kEventIds - kReservedEventIds || id >= kEventIds || call.on().tpipe,
                 "event id " + std::to_string(id) + " is reserved");
}

template <HardEvent event>
void SetFlag(int32_t id, moe_jit::emulator::Site site = moe_jit::emulator::Site::here()) {
    CheckManualEvent(event, id, site);
    moe_jit::emulator::set_event(event, id, site);
}

template <HardEvent event>
void WaitFlag(int32_t id, moe_jit::emulator::Site site = moe_jit::emulator::Site::here()) {
    CheckManualEvent(event, id, site);
    moe_jit::emulator::wait_event(event, id, site);
}

template <pipe_t pipe>
void PipeBarrier(moe_jit::emulator::Site site = moe_jit::emulator::Site::here()) {
    moe_jit::emulator::pipe_barrier(pipe, site);
}

}  // namespace AscendC
