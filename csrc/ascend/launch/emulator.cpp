// Runs the kernel of MOE_JIT_SOURCE on the emulator; the same macros as for an NPU name its entry and
// arguments.
//
// launch(blocks, cores, seed, count_only, names, roles, address, bytes, address, bytes, ...) returns the
// report as JSON, or what an EmulatorError holds as an array of strings. `names` are separated by spaces; a
// role is 'i' for an input, 'o' for an output, 'u' for what is read and written, 'w' for a workspace, '-' for
// an absent argument.
#include MOE_JIT_SOURCE

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/string.h>

#include <sstream>

#include "moe_jit/ascend_emulator/launch.h"
#include "moe_jit/ffi/arguments.h"

namespace moe_jit {
namespace {

using tvm::ffi::Any;
using tvm::ffi::AnyView;
using tvm::ffi::Array;
using tvm::ffi::String;

constexpr int kFirstAddress = 6;

GM_ADDR address_of(const AnyView& argument) {
    return reinterpret_cast<GM_ADDR>(static_cast<intptr_t>(argument.cast<int64_t>()));
}

void announce(emulator::Launch& launch, const AnyView* arguments) {
    std::istringstream names(arguments[4].cast<std::string>());
    const auto roles = arguments[5].cast<std::string>();
    for (size_t i = 0; i < roles.size(); ++i) {
        std::string name;
        names >> name;
        auto* address = address_of(arguments[kFirstAddress + 2 * i]);
        const auto bytes = arguments[kFirstAddress + 2 * i + 1].cast<int64_t>();
        if (roles[i] == 'i') launch.input(address, bytes, name);
        if (roles[i] == 'o') launch.output(address, bytes, name);
        if (roles[i] == 'u') launch.in_out(address, bytes, name);
        if (roles[i] == 'w') launch.workspace(address, bytes, name);
    }
}

Any run(const AnyView* arguments) {
    emulator::Options options;
    options.cores = static_cast<int>(arguments[1].cast<int64_t>());
    options.seed = static_cast<uint32_t>(arguments[2].cast<int64_t>());
    options.count_only = arguments[3].cast<bool>();
    const auto address = [arguments](int i) { return address_of(arguments[kFirstAddress + 2 * i]); };
    try {
        emulator::Launch launch(options);
        announce(launch, arguments);
        const auto blocks = static_cast<int>(arguments[0].cast<int64_t>());
        const auto report = launch.run(blocks, [&] { MOE_JIT_ENTRY(MOE_JIT_ARGUMENTS(address)); });
        return String(report.json());
    } catch (const emulator::EmulatorError& error) {
        return Array<String>{error.what(), error.file, std::to_string(error.line), error.core, error.tensor};
    }
}

}  // namespace
}  // namespace moe_jit

extern "C" TVM_FFI_DLL_EXPORT int __tvm_ffi_launch(void*, const TVMFFIAny* arguments, int32_t,
                                                   TVMFFIAny* result) {
    TVM_FFI_SAFE_CALL_BEGIN();
    *reinterpret_cast<tvm::ffi::Any*>(result) =
        moe_jit::run(reinterpret_cast<const tvm::ffi::AnyView*>(arguments));
    TVM_FFI_SAFE_CALL_END();
}
