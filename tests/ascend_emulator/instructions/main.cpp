#include "driver.h"

namespace {

std::string message;

}  // namespace

// images[m]: contents of memory m before and after, sizes[m] bytes (0: none), with GM as memory 0. Returns an
// error message, empty on success.
extern "C" const char* run_instruction(const char* name, const int64_t* parameters, int count,
                                       uint8_t** images, const int64_t* sizes, int cube) {
    using namespace driver;
    const em::KernelType type = cube ? em::KernelType::AicOnly : em::KernelType::AivOnly;
    message.clear();
    try {
        const auto body = table().find(name);
        if (body == table().end()) throw std::invalid_argument(std::string("no instruction ") + name);
        em::Launch launch;
        if (sizes[0]) launch.in_out(images[0], static_cast<uint64_t>(sizes[0]), "gm");
        launch.run(1, [&] {
            em::declare_kernel_type(type);
            em::Core& core = em::core();
            for (int memory = 1; memory < em::kMemories; ++memory) {
                if (!sizes[memory]) continue;
                em::OnChipMemory& on_chip = core.memory(static_cast<em::Memory>(memory));
                std::memcpy(on_chip.bytes(), images[memory], static_cast<size_t>(sizes[memory]));
                on_chip.defined().set(0, static_cast<uint64_t>(sizes[memory]));
            }
            Parameters p(parameters, count);
            body->second(p, images[0]);
            p.done();
            for (int memory = 1; memory < em::kMemories; ++memory) {
                if (!sizes[memory]) continue;
                em::OnChipMemory& on_chip = core.memory(static_cast<em::Memory>(memory));
                std::memcpy(images[memory], on_chip.bytes(), static_cast<size_t>(sizes[memory]));
            }
        });
    } catch (const std::exception& error) {
        message = *error.what() ? error.what() : "error without a text";
    }
    return message.c_str();
}
