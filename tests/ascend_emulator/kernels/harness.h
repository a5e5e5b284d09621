// Kernels that break one rule each. A case runs twice: with `wrong` it breaks the rule, without it is the
// same kernel put right. Operands pass through four plain instructions, so that the checks are tested apart
// from the real ones.
#pragma once

#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "kernel_operator.h"
#include "moe_jit/ascend_emulator/launch.h"

namespace cases {

namespace em = moe_jit::emulator;
using namespace AscendC;

// Global memory of a case: 4096 floats each.
struct Buffers {
    std::vector<float> x, y, workspace;
    GlobalTensor<float> input, output, scratch;
};

struct Case {
    int blocks;
    em::KernelType type;
    std::function<void(bool, const Buffers&)> kernel;
    em::Options options;
};

inline std::map<std::string, Case>& table() {
    static std::map<std::string, Case> cases;
    return cases;
}

struct Registered {
    Registered(const char* name, Case it) { table().emplace(name, std::move(it)); }
};

#define CASE_WITH(NAME, TYPE, BLOCKS, OPTIONS)                                                       \
    static void NAME([[maybe_unused]] bool wrong, [[maybe_unused]] const Buffers& gm);               \
    static const Registered NAME##_registered(#NAME, {BLOCKS, em::KernelType::TYPE, NAME, OPTIONS}); \
    static void NAME([[maybe_unused]] bool wrong, [[maybe_unused]] const Buffers& gm)
#define CASE(NAME, TYPE, BLOCKS) CASE_WITH(NAME, TYPE, BLOCKS, {})

inline em::Memory memory_of(const em::LocalView& view) { return view.memory(); }
inline em::Memory memory_of(const em::GlobalView&) { return em::Memory::GM; }

// A copy between memories on `pipe`.
template <pipe_t pipe, typename Destination, typename Source>
void copy(const Destination& destination, const Source& source, uint32_t count, Site site = Site::here()) {
    em::Instruction op(pipe, "copy", site);
    const uint64_t bytes = count * sizeof(float);
    const auto* from = op.read(source, {bytes});
    auto* to = op.write(destination, {bytes});
    op.transfer(memory_of(source), memory_of(destination), bytes);
    if (op.computes()) std::memcpy(to, from, bytes);
}

inline void load(const LocalTensor<float>& to, const GlobalTensor<float>& from, uint32_t count,
                 Site site = Site::here()) {
    copy<PIPE_MTE2>(to, from, count, site);
}
inline void store(const GlobalTensor<float>& to, const LocalTensor<float>& from, uint32_t count,
                  Site site = Site::here()) {
    copy<PIPE_MTE3>(to, from, count, site);
}

// destination = source + 1
inline void increment(const LocalTensor<float>& to, const LocalTensor<float>& from, uint32_t count,
                      Site site = Site::here()) {
    em::Instruction op(PIPE_V, "increment", site);
    const uint64_t bytes = count * sizeof(float);
    const float* source = op.read(from, {bytes});
    float* target = op.write(to, {bytes});
    op.vector(1);
    for (uint32_t i = 0; op.computes() && i < count; ++i) target[i] = source[i] + 1;
}
inline void fill(const LocalTensor<float>& to, uint32_t count, Site site = Site::here()) {
    em::Instruction op(PIPE_V, "fill", site);
    float* target = op.write(to, {count * sizeof(float)});
    op.vector(1);
    for (uint32_t i = 0; op.computes() && i < count; ++i) target[i] = 1;
}

// A product of 16 x 8 by 8 x 16 floats: 128 each, 256 results.
inline void multiply(const LocalTensor<float>& c, const LocalTensor<float>& a, const LocalTensor<float>& b,
                     uint8_t unit_flag = 0, Site site = Site::here()) {
    em::Instruction op(PIPE_M, "multiply", site);
    op.read(a, {512});
    op.read(b, {512});
    float* result = op.write(c, {1024}, {1024, unit_flag});
    op.cube(16, 16, 8, em::CubeType::F32);
    for (int i = 0; op.computes() && i < 256; ++i) result[i] = 2;
}
inline void take(const GlobalTensor<float>& to, const LocalTensor<float>& c, uint8_t unit_flag = 0,
                 Site site = Site::here()) {
    em::Instruction op(PIPE_FIX, "take", site);
    const float* source = op.read(c, {1024}, {0, unit_flag});
    float* target = op.write(to, {1024});
    op.transfer(em::Memory::L0C, em::Memory::GM, 1024);
    if (op.computes()) std::memcpy(target, source, 1024);
}

// Source and destination in order, once.
template <HardEvent event>
void order(int id = 0, Site site = Site::here()) {
    SetFlag<event>(id, site);
    WaitFlag<event>(id, site);
}

inline LocalTensor<float> local(TPosition position, uint32_t address, uint32_t count = 256) {
    return LocalTensor<float>(position, address, count);
}

// L0A and L0B hold operands of multiply().
inline void load_operands(const Buffers& gm) {
    load(local(TPosition::A1, 0), gm.input, 256);
    order<HardEvent::MTE2_MTE1>();
    copy<PIPE_MTE1>(local(TPosition::A2, 0), local(TPosition::A1, 0), 128);
    copy<PIPE_MTE1>(local(TPosition::B2, 0), local(TPosition::A1, 0), 128);
    order<HardEvent::MTE1_M>();
}

}  // namespace cases
