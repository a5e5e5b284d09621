// Runs a kernel on the emulated chip. For hosts; kernels include kernel_operator.h only.
#pragma once

#include <sys/mman.h>

#include <cstring>
#include <functional>

#include "moe_jit/ascend_emulator/identity.h"
#include "moe_jit/ascend_emulator/report.h"

namespace moe_jit::emulator {

class Launch {
  public:
    explicit Launch(Options options = {}) : options_(std::move(options)) {}
    Launch(const Launch&) = delete;

    // Global memory that the kernel may touch, in bytes. Inputs are read only; the contents of outputs and of
    // workspaces are overwritten by a pattern before the kernel runs and are undefined until it writes them.
    void input(const void* data, uint64_t bytes, const std::string& name) {
        add(data, bytes, name, Usage::Input);
    }
    void output(void* data, uint64_t bytes, const std::string& name) {
        add(data, bytes, name, Usage::Output);
    }
    void in_out(void* data, uint64_t bytes, const std::string& name) { add(data, bytes, name, Usage::InOut); }
    void workspace(void* data, uint64_t bytes, const std::string& name) {
        add(data, bytes, name, Usage::Workspace);
    }

    // Addresses without memory behind them, for the tensors of a count-only run.
    uint8_t* reserve(uint64_t bytes) {
        void* data =
            mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (data == MAP_FAILED) throw std::bad_alloc();
        reserved_.push_back({data, bytes, [](void* at, uint64_t size) { munmap(at, size); }});
        return static_cast<uint8_t*>(data);
    }

    // Calls `kernel` on every core that its declared type asks for. Raises EmulatorError for whatever the
    // chip would refuse, not do, or do differently from one run to the next.
    Report run(int blocks, const std::function<void()>& kernel) {
        const KernelType type = type_of(kernel);
        if (blocks < 1) throw EmulatorError({}, "host", "launch", "blocks: given " + std::to_string(blocks));
        Machine machine(options_, type, blocks);
        machine.global = &global_;
        if (!options_.count_only) poison();
        std::vector<Scheduler::Task> tasks;
        for (auto& core : machine.cores) {
            Core* self = core.get();
            tasks.push_back({[self, &kernel] {
                                 kernel();
                                 check_end_of_core(*self);
                             },
                             [self] { current_core = self; }, [self] { return self->name(); }});
        }
        struct Leave {
            ~Leave() { current_core = nullptr; }
        } leave;
        machine.scheduler.run(std::move(tasks), options_.seed, options_.wait_limit_s);
        for (auto& core : machine.cores) check_flags(*core);
        return Report(machine);
    }

  private:
    struct Reserved {
        void* data;
        uint64_t bytes;
        void (*release)(void*, uint64_t);
    };

    void add(const void* data, uint64_t bytes, const std::string& name, Usage usage) {
        global_.add(const_cast<void*>(data), bytes, name, usage, !options_.count_only);
    }

    void poison() {
        for (auto& allocation : global_.allocations()) {
            if (allocation->usage != Usage::Output && allocation->usage != Usage::Workspace) continue;
            std::memset(allocation->base, 0xff, allocation->size);  // NaN in every float format
        }
    }

    static KernelType type_of(const std::function<void()>& kernel) {
        current_core = nullptr;
        try {
            kernel();
        } catch (const KernelTypeFound& found) {
            return found.type;
        }
        throw EmulatorError({}, "host", "launch", "the kernel does not begin with KERNEL_TASK_TYPE_DEFAULT");
    }

    static void check_end_of_core(Core& core) {
        const auto fail = [&](const std::string& problem) {
            throw EmulatorError({}, core.name(), "end of the kernel", problem);
        };
        if (!core.left_behind.empty()) fail(core.left_behind);
        for (int source = 0; source < kPipes; ++source) {
            for (int destination = 0; destination < kPipes; ++destination) {
                for (int id = 0; id < kEventIds; ++id) {
                    if (!core.events[source][destination][id]) continue;
                    fail(std::string("event ") + name_of(static_cast<Pipe>(source)) + "_" +
                         name_of(static_cast<Pipe>(destination)) + " " + std::to_string(id) + " is left set");
                }
            }
        }
        for (size_t block = 0; block < std::size(core.unit_flags); ++block) {
            if (core.unit_flags[block])
                fail("unit flag of L0C block " + std::to_string(block) + " is left set");
        }
        for (auto& [address, line] : core.cache.lines()) {
            if (!line.dirty) continue;
            const GlobalAllocation* allocation =
                core.machine.global->find(reinterpret_cast<const uint8_t*>(address));
            fail("scalar writes were never cleaned from the data cache: DataCacheCleanAndInvalid is missing" +
                 (allocation ? " [GM tensor '" + allocation->name + "']" : std::string()));
        }
    }

    static void check_flags(const Core& core) {
        for (int id = 0; id < kCrossCoreIds; ++id) {
            const size_t waiting =
                core.sets[0][id].size() + core.sets[1][id].size() + core.sets[2][id].size();
            if (core.flags[id].empty() && !waiting) continue;
            throw EmulatorError(
                {}, core.name(), "end of the kernel",
                core.flags[id].empty()
                    ? "cross-core flag " + std::to_string(id) + " was set, but not by the other cores"
                    : "cross-core flag " + std::to_string(id) + " is left at " +
                          std::to_string(core.flags[id].size()));
        }
    }

  public:
    ~Launch() {
        for (Reserved& memory : reserved_) memory.release(memory.data, memory.bytes);
    }

  private:
    Options options_;
    GlobalMemory global_;
    std::vector<Reserved> reserved_;
};

}  // namespace moe_jit::emulator
