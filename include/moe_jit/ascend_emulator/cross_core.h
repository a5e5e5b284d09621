// Order between cores: flags with counters, and the barrier of all cores.
#pragma once

#include "moe_jit/ascend_emulator/events.h"

namespace moe_jit::emulator {

inline bool cores_fit(const Machine& machine) {
    const KernelTraits& kernel = traits(machine.type);
    const int cubes = machine.options.cores;
    return machine.blocks * kernel.cubes <= cubes && machine.blocks * kernel.vectors <= 2 * cubes;
}

inline void require_all_core_synchronisation(const Synchronisation& call) {
    const Machine& machine = call.on().machine;
    call.require(traits(machine.type).synchronises, std::string("kernel type ") + traits(machine.type).name +
                                                        " has no synchronisation between cores");
    call.require(cores_fit(machine), std::to_string(machine.blocks) + " blocks of " +
                                         traits(machine.type).name + " are more than the chip has cores (" +
                                         std::to_string(machine.options.cores) +
                                         " AIC): cores that have not started cannot arrive");
}

// Adds to the counter of `target`. Sets of different pipes of one core may arrive in either order.
inline void deliver(const Synchronisation& call, Core& target, int id, CrossCoreToken token) {
    auto& flags = target.flags[id];
    call.require(static_cast<int>(flags.size()) < kCrossCoreLimit,
                 "counter overflow: flag " + std::to_string(id) + " of " + target.name() + " is at " +
                     std::to_string(kCrossCoreLimit) + " already");
    const bool may_overtake =
        !flags.empty() && flags.back().source == token.source && flags.back().pipe != token.pipe;
    flags.push_back(std::move(token));
    if (may_overtake && target.machine.random() % 2)
        std::swap(flags[flags.size() - 1], flags[flags.size() - 2]);
}

// The cores that must all set before any counter of `targets` rises.
struct FlagGroup {
    std::vector<Core*> sources;
    std::vector<Core*> targets;
};

inline FlagGroup flag_group(Core& core, int mode) {
    FlagGroup group;
    Machine& machine = core.machine;
    const int vectors = traits(machine.type).vectors;
    for (auto& other : machine.cores) {
        const bool same_kind = other->kind == core.kind;
        const bool same_block = other->block == core.block;
        if (same_kind && (mode == 0 || (mode == 1 && same_block))) {
            group.sources.push_back(other.get());
            group.targets.push_back(other.get());
        }
    }
    if (mode != 2) return group;
    const auto vectors_of_block = [&](std::vector<Core*>& list) {
        for (int i = 0; i < vectors; ++i) list.push_back(&machine.vector(core.block * vectors + i));
    };
    if (core.kind == CoreKind::Cube) {
        group.sources.push_back(&core);
        vectors_of_block(group.targets);
    } else {
        vectors_of_block(group.sources);
        group.targets.push_back(&machine.cube(core.block));
    }
    return group;
}

inline void check_cross_core(const Synchronisation& call, int mode, int id) {
    const Machine& machine = call.on().machine;
    call.require(traits(machine.type).synchronises, std::string("kernel type ") + traits(machine.type).name +
                                                        " has no synchronisation between cores");
    call.require(mode >= 0 && mode <= 2, "mode " + std::to_string(mode) + " is not in 0..2");
    const bool mixed = machine.type == KernelType::MixAic11 || machine.type == KernelType::MixAic12;
    call.require(mode == 0 || mixed,
                 "mode " + std::to_string(mode) + " needs a kernel type with cube and vector cores");
    call.require(mode != 1 || call.on().kind == CoreKind::Vector,
                 "mode 1 is for the vector cores of a group");
    call.require(id >= 0 && id < kCrossCoreIds, "flag id " + std::to_string(id) + " is not in 0..15");
    for (int reserved : kSyncAllIds) {
        call.require(id != reserved, "flag id " + std::to_string(id) + " is reserved: SyncAll uses 11-14");
    }
    if (mode == 0) require_all_core_synchronisation(call);
}

inline void cross_core_set(int mode, Pipe pipe, int id, Site site) {
    const Synchronisation call("CrossCoreSetFlag<" + std::to_string(mode) + ", PIPE_" + name_of(pipe) + ">(" +
                                   std::to_string(id) + ")",
                               site);
    check_cross_core(call, mode, id);
    call.require(pipe != Pipe::S && pipe != Pipe::ALL,
                 std::string("not available for PIPE_") + name_of(pipe));
    call.require_pipe(pipe);
    Core& self = call.on();
    self.sets[mode][id].push_back({self.token(pipe, site), self.id, pipe});
    call.require(static_cast<int>(self.sets[mode][id].size()) <= kCrossCoreLimit,
                 "counter overflow: " + self.name() + " has set flag " + std::to_string(id) + " " +
                     std::to_string(kCrossCoreLimit + 1) + " times ahead of the other cores");
    const FlagGroup group = flag_group(self, mode);
    for (Core* source : group.sources) {
        if (source->sets[mode][id].empty()) return;
    }
    CrossCoreToken merged = std::move(group.sources.front()->sets[mode][id].front());
    for (Core* source : group.sources) {
        auto& sets = source->sets[mode][id];
        if (source != group.sources.front()) {
            merged.token.clock.join(sets.front().token.clock);
            merged.token.cycle = std::max(merged.token.cycle, sets.front().token.cycle);
        }
        sets.pop_front();
    }
    for (Core* target : group.targets) deliver(call, *target, id, merged);
}

inline void cross_core_wait(Pipe pipe, int id, Site site) {
    const Synchronisation call("CrossCoreWaitFlag(" + std::to_string(id) + ")", site);
    Core& self = call.on();
    call.require(traits(self.machine.type).synchronises, std::string("kernel type ") +
                                                             traits(self.machine.type).name +
                                                             " has no synchronisation between cores");
    call.require(id >= 0 && id < kCrossCoreIds, "flag id " + std::to_string(id) + " is not in 0..15");
    auto& flags = self.flags[id];
    self.machine.scheduler.wait([&flags] { return !flags.empty(); }, site,
                                "cross-core flag " + std::to_string(id));
    self.receive(pipe, flags.front().token);
    flags.pop_front();
}

inline void sync_all(bool vectors_only, Site site) {
    const Synchronisation call(vectors_only ? "SyncAll<true>" : "SyncAll<false>", site);
    Core& self = call.on();
    Machine& machine = self.machine;
    require_all_core_synchronisation(call);
    call.require(vectors_only || traits(machine.type).cubes > 0,
                 "SyncAll<false> in a kernel without cube cores hangs");
    call.require(!vectors_only || self.kind == CoreKind::Vector,
                 "called by a cube core: only vector cores arrive");
    join_pipes(self, site);
    AllCores& barrier = machine.barriers[vectors_only];
    const Token token = self.token(Pipe::S, site);
    if (barrier.arrived++ == 0) {
        barrier.token = token;
    } else {
        barrier.token.clock.join(token.clock);
        barrier.token.cycle = std::max(barrier.token.cycle, token.cycle);
    }
    const int expected =
        machine.blocks * (traits(machine.type).vectors + (vectors_only ? 0 : traits(machine.type).cubes));
    if (barrier.arrived == expected) {
        barrier.arrived = 0;
        barrier.passed = barrier.token;
        ++barrier.rounds;
    } else {
        const uint32_t round = barrier.rounds;
        machine.scheduler.wait([&barrier, round] { return barrier.rounds != round; }, site,
                               "the other cores at SyncAll");
    }
    for (int pipe = 0; pipe < kPipes; ++pipe) self.receive(static_cast<Pipe>(pipe), barrier.passed);
}

}  // namespace moe_jit::emulator

namespace AscendC {

template <uint8_t mode, pipe_t pipe>
void CrossCoreSetFlag(uint16_t id, moe_jit::emulator::Site site = moe_jit::emulator::Site::here()) {
    moe_jit::emulator::cross_core_set(mode, pipe, id, site);
}

// The scalar unit waits, and with it all that is issued later.
template <uint8_t mode = 0, pipe_t pipe = PIPE_S>
void CrossCoreWaitFlag(uint16_t id, moe_jit::emulator::Site site = moe_jit::emulator::Site::here()) {
    moe_jit::emulator::cross_core_wait(pipe, id, site);
}

template <bool isAIVOnly = true>
void SyncAll(moe_jit::emulator::Site site = moe_jit::emulator::Site::here()) {
    moe_jit::emulator::sync_all(isAIVOnly, site);
}

}  // namespace AscendC
