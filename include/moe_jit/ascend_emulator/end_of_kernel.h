// What a kernel must not leave behind for the next one.
#pragma once

#include "moe_jit/ascend_emulator/machine.h"

namespace moe_jit::emulator {

class EndOfKernel {
  public:
    explicit EndOfKernel(Core& core) : core_(core) {}

    // When the core's kernel has returned.
    void check_core() const {
        if (!core_.left_behind.empty()) fail(core_.left_behind, core_.left_at);
        for (int source = 0; source < kPipes; ++source) {
            for (int destination = 0; destination < kPipes; ++destination) {
                for (int id = 0; id < kEventIds; ++id) {
                    check_event(static_cast<Pipe>(source), static_cast<Pipe>(destination), id);
                }
            }
        }
        for (size_t block = 0; block < std::size(core_.unit_flags); ++block) {
            if (core_.unit_flags[block])
                fail("unit flag of L0C block " + std::to_string(block) + " is left set", {});
        }
        for (auto& [address, line] : core_.cache.lines()) {
            if (line.dirty) fail_dirty(reinterpret_cast<const uint8_t*>(address), line.site);
        }
    }

    // When those of all cores have.
    void check_flags() const {
        for (int id = 0; id < kCrossCoreIds; ++id) {
            const std::string flag = "cross-core flag " + std::to_string(id);
            if (!core_.flags[id].empty()) {
                fail(flag + " is left at " + std::to_string(core_.flags[id].size()),
                     core_.flags[id].front().token.site);
            }
            for (const auto& sets : core_.sets) {
                if (!sets[id].empty())
                    fail(flag + " was set, but not by the other cores", sets[id].front().token.site);
            }
        }
    }

  private:
    [[noreturn]] void fail(const std::string& problem, Site site, const std::string& tensor = {}) const {
        throw EmulatorError(site, core_.name(), "end of the kernel", problem, tensor);
    }

    void check_event(Pipe source, Pipe destination, int id) const {
        const std::optional<Token>& flag = core_.event(source, destination, id);
        if (!flag) return;
        fail(std::string("event ") + name_of(source) + "_" + name_of(destination) + " " + std::to_string(id) +
                 " is left set",
             flag->site);
    }

    [[noreturn]] void fail_dirty(const uint8_t* address, Site site) const {
        const GlobalAllocation* allocation = core_.machine.global->find(address);
        fail("scalar writes were never cleaned from the data cache: DataCacheCleanAndInvalid is missing",
             site, allocation ? "GM tensor '" + allocation->name + "'" : std::string());
    }

    Core& core_;
};

}  // namespace moe_jit::emulator
