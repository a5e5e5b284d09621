// run_cases: lists all. run_cases NAME right|wrong [seed]: one run; prints "passed" or the error's parts, a
// line each.
#include <cstdio>
#include <cstdlib>

#include "harness.h"

int main(int count, char** arguments) {
    using namespace cases;
    if (count < 3) {
        for (const auto& [name, it] : table()) std::puts(name.c_str());
        return 0;
    }
    Case& it = table().at(arguments[1]);
    const bool wrong = std::string(arguments[2]) == "wrong";
    if (count > 3) it.options.seed = static_cast<uint32_t>(std::atoi(arguments[3]));

    Buffers gm;
    for (auto* data : {&gm.x, &gm.y, &gm.workspace}) data->assign(4096 + 16, 0);
    em::Launch launch(it.options);
    const auto aligned = [&](std::vector<float>& data) {
        return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(data.data()) + 63) / 64 * 64);
    };
    for (int i = 0; i < 4096; ++i) aligned(gm.x)[i] = static_cast<float>(i);
    gm.input.SetGlobalBuffer(aligned(gm.x), 4096);
    gm.output.SetGlobalBuffer(aligned(gm.y), 4096);
    gm.scratch.SetGlobalBuffer(aligned(gm.workspace));
    launch.input(aligned(gm.x), 4096 * 4, "x");
    launch.output(aligned(gm.y), 4096 * 4, "y");
    launch.workspace(aligned(gm.workspace), 4096 * 4, "workspace");
    try {
        launch.run(it.blocks, [&] {
            em::declare_kernel_type(it.type);
            it.kernel(wrong, gm);
        });
    } catch (const em::EmulatorError& error) {
        std::printf("%s\n%s\n%s\n%d\n", error.what(), error.core.c_str(), error.file.c_str(), error.line);
        return 1;
    }
    std::puts("passed");
    return 0;
}
