// An instruction while it executes. Every operand's bytes are asked for here, and every check on memory is
// made here.
#pragma once

#include "moe_jit/ascend_emulator/machine.h"

namespace moe_jit::emulator {

class Instruction {
  public:
    Instruction(Pipe pipe, const char* call, Site site)
        : core_(core()), pipe_(pipe), call_(call), site_(site) {
        require(pipe_exists(), "a %s core has no pipe %s", core_.kind == CoreKind::Cube ? "cube" : "vector",
                name_of(pipe));
        core_.catch_up_with_scalar(pipe);
        PipeState& state = core_.pipe(pipe);
        ++state.issued;
        own_ = {slot_of(core_.id, pipe), state.issued};
        state.trace.record(state.issued, call, site);
        if (in_order()) state.known[own_.slot] = state.issued - 1;
        ++core_.statistics.instructions[static_cast<int>(pipe)];
    }
    Instruction(const Instruction&) = delete;
    ~Instruction() {
        if (!copy_) return;
        core_.statistics.untouched += untouched_;
        const double start = core_.start(pipe_);
        const double memory = core_.machine.hbm.finish(start, static_cast<double>(untouched_)) - start;
        spend(std::max(transfer_cycles(rates(), *copy_), memory));
    }

    // False in count-only mode: operands are not to be touched.
    bool computes() const { return !core_.machine.options.count_only; }

    // The tensor's first byte, after checks of all bytes of the runs.
    template <typename View>
    const auto* read(const View& view, Runs runs, Access access = {}) {
        return static_cast<const typename View::Storage*>(touch(view, runs, access, true, false));
    }
    template <typename View>
    auto* write(const View& view, Runs runs, Access access = {}) {
        return static_cast<typename View::Storage*>(touch(view, runs, access, false, true));
    }
    template <typename View>
    auto* update(const View& view, Runs runs, Access access = {}) {
        return static_cast<typename View::Storage*>(touch(view, runs, access, true, true));
    }

    template <typename... Arguments>
    void require(bool condition, const char* text, Arguments... arguments) const {
        if (!condition) fail(text, arguments...);
    }
    template <typename... Arguments>
    [[noreturn]] void fail(const char* text, Arguments... arguments) const {
        if constexpr (sizeof...(Arguments) == 0)
            raise(text, {});
        else
            raise(format(text, arguments...), {});
    }

    // Within a repeat a source and the destination are the same blocks or share none, and no later repeat
    // reads what an earlier one wrote; `accumulates`: but for a destination of repeat stride 0 that is this
    // source.
    void overlap(const LocalView& destination, Repeats to, const LocalView& source, Repeats from,
                 bool accumulates = false) const;

    // The scalar cache writes bytes back, of which those of the mask `dirty` become defined.
    void clean(const GlobalView& view, uint64_t bytes, uint64_t dirty);

    std::string name(const LocalView& view) const {
        const std::string buffer =
            view.buffer < 0 ? "" : core_.buffers[static_cast<size_t>(view.buffer)].name + ", ";
        return buffer + format("%s tensor of %u bytes at %s byte %u", name_of(view.position), view.bytes,
                               name_of(view.memory()), view.address);
    }
    std::string name(const GlobalView& view) const {
        const GlobalAllocation* allocation = core_.machine.global->find(view.address);
        if (!allocation) return format("GM address %p", static_cast<const void*>(view.address));
        return format("GM tensor '%s' from byte %lld", allocation->name.c_str(),
                      static_cast<long long>(view.address - allocation->base));
    }

    // Cost: exactly one of these in every instruction.
    void transfer(Memory from, Memory to, uint64_t bytes, uint64_t bursts = 1) {
        core_.statistics.bytes[static_cast<int>(from)][static_cast<int>(to)] += bytes;
        copy_ = Transfer{from, to, bytes, bursts};
        if (from == Memory::GM) core_.machine.scheduler.pace(core_.start(pipe_));
    }
    void vector(uint64_t repeats, uint64_t bytes = 0) {
        core_.statistics.vector_repeats += repeats;
        const double of_bytes = static_cast<double>(bytes) / rates().vector_bytes;
        spend(std::max(of_bytes, static_cast<double>(repeats * kRepeat) / rates().vector_bytes));
    }
    void cube(uint64_t m, uint64_t n, uint64_t k, CubeType type) {
        core_.statistics.cube_operations[static_cast<int>(type)] += 2 * m * n * k;
        spend(cube_cycles(m, n, k, type));
    }
    void scalar() { spend(1); }

    Core& on() const { return core_; }
    Site site() const { return site_; }

  private:
    bool pipe_exists() const {
        if (core_.kind == CoreKind::Cube) return pipe_ != Pipe::V;
        return pipe_ != Pipe::M && pipe_ != Pipe::FIX && pipe_ != Pipe::MTE1;
    }
    bool in_order() const {
        if (!core_.machine.options.barriers) return true;
        return pipe_ != Pipe::V && pipe_ != Pipe::MTE2 && pipe_ != Pipe::MTE3;
    }
    const Rates& rates() const { return core_.machine.options.rates; }

    void spend(double cycles) {
        PipeState& state = core_.pipe(pipe_);
        state.ready = core_.start(pipe_) + cycles;
        core_.statistics.busy[static_cast<int>(pipe_)] += cycles;
        core_.statistics.finish = std::max(core_.statistics.finish, state.ready);
    }

    [[noreturn]] void raise(const std::string& problem, const std::string& tensor) const {
        throw EmulatorError(site_, core_.name(), call_, problem, tensor);
    }

    void* touch(const LocalView& view, Runs runs, Access access, bool reads, bool writes);
    void* touch(const GlobalView& view, Runs runs, Access access, bool reads, bool writes);
    void check_tensor(const LocalView& view, Runs runs, Access access) const;
    void check_run(const LocalView& view, uint64_t begin, uint64_t end, Access access, bool reads,
                   bool writes);
    void check_run(const GlobalView& view, GlobalAllocation& allocation, uint64_t begin, uint64_t end,
                   Access access, bool reads, bool writes);
    void pass_unit_flags(const LocalView& view, uint64_t begin, uint64_t end, uint8_t mode, bool writes);
    std::string explain(const Conflict& conflict, bool writes) const;

    Core& core_;
    const Pipe pipe_;
    const char* const call_;
    const Site site_;
    Stamp own_;
    uint64_t untouched_ = 0;
    std::optional<Transfer> copy_;
};

}  // namespace moe_jit::emulator

#include "moe_jit/ascend_emulator/access.h"
#include "moe_jit/ascend_emulator/overlap.h"
