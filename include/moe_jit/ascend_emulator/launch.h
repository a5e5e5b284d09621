// Runs a kernel on the emulated chip. For hosts; kernels include kernel_operator.h only.
#pragma once

#include <sys/mman.h>

#include <cstring>
#include <functional>

#include "moe_jit/ascend_emulator/end_of_kernel.h"
#include "moe_jit/ascend_emulator/identity.h"
#include "moe_jit/ascend_emulator/report.h"

namespace moe_jit::emulator {

class Launch {
  public:
    explicit Launch(Options options = {}) : options_(std::move(options)) {}
    Launch(const Launch&) = delete;
    ~Launch() {
        for (Reserved& memory : reserved_) munmap(memory.data, memory.bytes);
    }

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
        reserved_.push_back({data, bytes});
        return static_cast<uint8_t*>(data);
    }

    // Calls `kernel` on every core that its declared type asks for. Raises EmulatorError for whatever the
    // chip would refuse, not do, or do differently from one run to the next.
    Report run(int blocks, const std::function<void()>& kernel) {
        const KernelType type = type_of(kernel);
        if (blocks < 1) throw EmulatorError({}, "host", "launch", "blocks: given " + std::to_string(blocks));
        Machine machine(options_, type, blocks);
        GlobalMemory global;
        for (const Registration& it : registered_) {
            global.add(it.data, it.bytes, it.name, it.usage, !options_.count_only);
            const bool undefined = it.usage == Usage::Output || it.usage == Usage::Workspace;
            if (undefined && !options_.count_only)
                std::memset(it.data, 0xff, it.bytes);  // NaN in every format
        }
        machine.global = &global;
        std::vector<Scheduler::Task> tasks;
        for (auto& core : machine.cores) {
            Core* self = core.get();
            tasks.push_back({[self, &kernel] { run_core(*self, kernel); }, [self] { current_core = self; },
                             [self] { return self->name(); }});
        }
        struct Leave {
            ~Leave() { current_core = nullptr; }
        } leave;
        machine.scheduler.run(std::move(tasks), options_.seed, options_.wait_limit_s);
        for (auto& core : machine.cores) EndOfKernel(*core).check_flags();
        return Report(machine);
    }

  private:
    struct Registration {
        void* data;
        uint64_t bytes;
        std::string name;
        Usage usage;
    };

    struct Reserved {
        void* data;
        uint64_t bytes;
    };

    void add(const void* data, uint64_t bytes, const std::string& name, Usage usage) {
        registered_.push_back({const_cast<void*>(data), bytes, name, usage});
    }

    static void run_core(Core& self, const std::function<void()>& kernel) {
        if (const Core* before = self.machine.predecessor(self)) {
            self.machine.scheduler.wait([before] { return before->ended; }, {}, "a free core");
            for (PipeState& pipe : self.pipes) pipe.ready = before->statistics.finish;
        }
        kernel();
        EndOfKernel(self).check_core();
        self.ended = true;
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

    Options options_;
    std::vector<Registration> registered_;
    std::vector<Reserved> reserved_;
};

}  // namespace moe_jit::emulator
