// report_main SCENARIO: runs it and prints the launch's report as JSON, or the error.
#include <cstdio>

#include "harness.h"

namespace {

using namespace cases;

constexpr uint32_t kTile = 4096;  // floats: 16 KiB

// `tiles` tiles in, one vector instruction of 64 repeats each, and out again; `buffers` of each queue.
void stream(GM_ADDR x, GM_ADDR y, uint32_t tiles, uint8_t buffers) {
    TPipe pipe;
    TQue<TPosition::VECIN, 2> in;
    TQue<TPosition::VECOUT, 2> out;
    pipe.InitBuffer(in, buffers, kTile * 4);
    pipe.InitBuffer(out, buffers, kTile * 4);
    GlobalTensor<float> source, target;
    source.SetGlobalBuffer(reinterpret_cast<float*>(x));
    target.SetGlobalBuffer(reinterpret_cast<float*>(y));
    for (uint32_t tile = 0; tile < tiles; ++tile) {
        const uint64_t offset = (GetBlockIdx() * tiles + tile) * uint64_t{kTile};
        LocalTensor<float> a = in.AllocTensor<float>();
        load(a, source[offset], kTile);
        in.EnQue(a);
        a = in.DeQue<float>();
        LocalTensor<float> b = out.AllocTensor<float>();
        em::Instruction op(PIPE_V, "add one", Site::here());
        const float* from = op.read(a, {kTile * 4});
        float* to = op.write(b, {kTile * 4});
        op.vector(64);
        for (uint32_t i = 0; op.computes() && i < kTile; ++i) to[i] = from[i] + 1;
        out.EnQue(b);
        in.FreeTensor(a);
        b = out.DeQue<float>();
        store(target[offset], b, kTile);
        out.FreeTensor(b);
    }
}

em::Report run_stream(bool count_only, int blocks, uint32_t tiles, uint8_t buffers, int cores = 24) {
    em::Options options;
    options.cores = cores;
    options.count_only = count_only;
    em::Launch launch(options);
    const uint64_t bytes = uint64_t(blocks) * tiles * kTile * 4;
    std::vector<float> x(count_only ? 0 : bytes / 4, 1), y(x.size());
    auto* source = count_only ? launch.reserve(bytes) : reinterpret_cast<uint8_t*>(x.data());
    auto* target = count_only ? launch.reserve(bytes) : reinterpret_cast<uint8_t*>(y.data());
    launch.input(source, bytes, "x");
    launch.output(target, bytes, "y");
    em::Report report = launch.run(blocks, [&] {
        KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
        stream(source, target, tiles, buffers);
    });
    for (float value : y) {
        if (value != 2) throw em::EmulatorError({}, "host", "stream", "wrong result");
    }
    return report;
}

// When 100 requests of 4096 bytes have been served by a memory of 100 bytes a cycle that are all made in
// cycle 0, and another one long after.
void request_memory() {
    em::SharedBandwidth memory(100);
    for (int i = 0; i < 100; ++i) std::printf("%.3f\n", memory.finish(0, 4096));
    std::printf("%.3f\n", memory.finish(1e6, 4096));
}

// The vector cores wait for the cube, which loads a tile twice: once from memory, once from the L2 cache.
em::Report run_handover() {
    std::vector<float> x(65536, 1), workspace(256);
    em::Launch launch;
    launch.input(x.data(), x.size() * 4, "x");
    launch.workspace(workspace.data(), 1024, "workspace");
    Buffers gm;
    gm.input.SetGlobalBuffer(x.data());
    gm.scratch.SetGlobalBuffer(workspace.data());
    return launch.run(1, [&] {
        KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_MIX_AIC_1_2);
        if ASCEND_IS_AIC {
            load(local(TPosition::A1, 4096, 65536), gm.input, 65536);
            load(local(TPosition::B1, 4096 + 262144, 32768), gm.input, 32768);
            load_operands(gm);
            multiply(local(TPosition::CO1, 0), local(TPosition::A2, 0), local(TPosition::B2, 0));
            order<HardEvent::M_FIX>();
            take(gm.scratch, local(TPosition::CO1, 0));
            CrossCoreSetFlag<2, PIPE_FIX>(8);
        } else {
            CrossCoreWaitFlag(8);
            load(local(TPosition::VECIN, 0), gm.scratch, 128);
        }
    });
}

// Each core writes who it is: block, blocks, sub block, sub blocks, task ratio.
void identities(em::KernelType type, int blocks) {
    std::vector<float> y(8 * 96, -1);
    em::Launch launch;
    launch.in_out(y.data(), y.size() * 4, "y");
    GlobalTensor<float> out;
    out.SetGlobalBuffer(y.data());
    launch.run(blocks, [&] {
        em::declare_kernel_type(type);
        const int64_t core = GetBlockIdx() + (ASCEND_IS_AIV ? 48 : 0);
        const int64_t values[] = {GetBlockIdx(), GetBlockNum(), GetSubBlockIdx(), GetSubBlockNum(),
                                  GetTaskRatio()};
        em::Instruction op(PIPE_MTE3, "write", Site::here());
        float* row = op.write(out[core * 8], {20});
        for (int i = 0; i < 5; ++i) row[i] = static_cast<float>(values[i]);
    });
    for (int core = 0; core < 96; ++core) {
        const float* row = &y[static_cast<size_t>(core) * 8];
        if (row[0] < 0) continue;
        std::printf("%d %s %g %g %g %g %g\n", static_cast<int>(type), core < 48 ? "AIC" : "AIV", row[0],
                    row[1], row[2], row[3], row[4]);
    }
}

// Hazards inside a pipe are let through, others are not.
em::Report run_without_barriers(bool event) {
    em::Options options;
    options.barriers = false;
    em::Launch launch(options);
    std::vector<float> x(64);
    launch.input(x.data(), 256, "x");
    Buffers gm;
    gm.input.SetGlobalBuffer(x.data());
    return launch.run(1, [&] {
        KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
        const auto a = local(TPosition::VECIN, 0);
        load(a, gm.input, 64);
        if (event) order<HardEvent::MTE2_V>();
        increment(a, a, 64);
        increment(a, a, 64);
    });
}

em::Report run_undeclared() {
    em::Launch launch;
    return launch.run(1, [] { fill(local(TPosition::VECIN, 0), 64); });
}

em::Report run_two_launches() {
    std::vector<float> y(256);
    em::Launch launch;
    launch.output(y.data(), 1024, "y");
    Buffers gm;
    gm.output.SetGlobalBuffer(y.data());
    const auto kernel = [&] {
        KERNEL_TASK_TYPE_DEFAULT(KERNEL_TYPE_AIV_ONLY);
        fill(local(TPosition::VECOUT, 0), 32);
        order<HardEvent::V_MTE3>();
        store(gm.output[GetBlockIdx() * 32], local(TPosition::VECOUT, 0), 32);
    };
    launch.run(8, kernel);
    const em::Report report = launch.run(2, kernel);
    std::printf("%d %d\n", y[63] == 1, y[64] != y[64]);  // what was not written again is poisoned
    return report;
}

}  // namespace

int main(int, char** arguments) {
    const std::string scenario = arguments[1];
    try {
        em::Report report;
        if (scenario == "double") report = run_stream(false, 4, 16, 2);
        if (scenario == "single") report = run_stream(false, 4, 16, 1);
        if (scenario == "counted") report = run_stream(true, 4, 16, 2);
        if (scenario == "large") report = run_stream(true, 48, 16384, 2);
        if (scenario == "waves") report = run_stream(false, 5, 16, 2, 1);
        if (scenario == "handover") report = run_handover();
        if (scenario == "no_event") report = run_without_barriers(false);
        if (scenario == "no_barrier") report = run_without_barriers(true);
        if (scenario == "undeclared") report = run_undeclared();
        if (scenario == "twice") report = run_two_launches();
        if (scenario == "requests") {
            request_memory();
            return 0;
        }
        if (scenario == "identities") {
            for (int type = 0; type < 6; ++type) identities(static_cast<em::KernelType>(type), 3);
            return 0;
        }
        std::puts(report.json().c_str());
        std::fputs(report.text().c_str(), stderr);
    } catch (const em::EmulatorError& error) {
        std::puts(error.what());
        return 1;
    }
    return 0;
}
