// Types of the kernel language: number formats, pipes, events, positions, kernel types.
#pragma once

#include <cstdint>
#include <type_traits>

#include "moe_jit/ascend_emulator/chip.h"
#include "moe_jit/core/half.h"
#include "moe_jit/core/numeric.h"

namespace moe_jit::emulator {

enum class Pipe : uint8_t { S, V, M, MTE1, MTE2, MTE3, FIX, ALL };
inline constexpr int kPipes = 7;  // ALL is none

constexpr const char* name_of(Pipe pipe) {
    constexpr const char* names[] = {"S", "V", "M", "MTE1", "MTE2", "MTE3", "FIX", "ALL"};
    return names[static_cast<int>(pipe)];
}

// A 16-bit float as kernels see it: arithmetic happens in float, every store rounds.
template <typename Format>
struct Float16 {
    uint16_t bits;

    Float16() = default;
    template <typename T, typename = std::enable_if_t<std::is_arithmetic_v<T>>>
    constexpr Float16(T value) : bits(Format::from_float(static_cast<float>(value))) {}
    operator float() const { return Format::to_float(bits); }
};

enum class KernelType : uint8_t { AivOnly, AicOnly, MixAiv10, MixAic10, MixAic11, MixAic12 };

struct KernelTraits {
    const char* name;
    int cubes;    // per block
    int vectors;  // per block
    bool synchronises;
};

inline constexpr KernelTraits kKernelTraits[] = {
    {"KERNEL_TYPE_AIV_ONLY", 0, 1, false},   {"KERNEL_TYPE_AIC_ONLY", 1, 0, false},
    {"KERNEL_TYPE_MIX_AIV_1_0", 0, 1, true}, {"KERNEL_TYPE_MIX_AIC_1_0", 1, 0, true},
    {"KERNEL_TYPE_MIX_AIC_1_1", 1, 1, true}, {"KERNEL_TYPE_MIX_AIC_1_2", 1, 2, true},
};
constexpr const KernelTraits& traits(KernelType type) { return kKernelTraits[static_cast<int>(type)]; }

}  // namespace moe_jit::emulator

using half = moe_jit::emulator::Float16<moe_jit::F16>;
using bfloat16_t = moe_jit::emulator::Float16<moe_jit::Bf16>;

using pipe_t = moe_jit::emulator::Pipe;
inline constexpr pipe_t PIPE_S = pipe_t::S, PIPE_V = pipe_t::V, PIPE_M = pipe_t::M, PIPE_MTE1 = pipe_t::MTE1,
                        PIPE_MTE2 = pipe_t::MTE2, PIPE_MTE3 = pipe_t::MTE3, PIPE_FIX = pipe_t::FIX,
                        PIPE_ALL = pipe_t::ALL;

using event_t = int32_t;
inline constexpr event_t EVENT_ID0 = 0, EVENT_ID1 = 1, EVENT_ID2 = 2, EVENT_ID3 = 3, EVENT_ID4 = 4,
                         EVENT_ID5 = 5, EVENT_ID6 = 6, EVENT_ID7 = 7;

namespace AscendC {

// Two to a byte, the first in the low half.
struct int4b_t {
    uint8_t pair;
};

enum class TPosition : uint8_t {
    GM,
    A1,
    A2,
    B1,
    B2,
    C1,
    C2,
    CO1,
    CO2,
    VECIN,
    VECOUT,
    VECCALC,
    LCM = VECCALC,
    TSCM,
    C2PIPE2GM,
    MAX
};
using QuePosition = TPosition;

#define MOE_JIT_EVENT(SOURCE, DESTINATION)                                              \
    SOURCE##_##DESTINATION = (static_cast<int>(moe_jit::emulator::Pipe::SOURCE) << 4) | \
                             static_cast<int>(moe_jit::emulator::Pipe::DESTINATION)
enum class HardEvent : uint8_t {
    MOE_JIT_EVENT(MTE2, MTE1),
    MOE_JIT_EVENT(MTE1, MTE2),
    MOE_JIT_EVENT(MTE1, M),
    MOE_JIT_EVENT(M, MTE1),
    MOE_JIT_EVENT(MTE2, V),
    MOE_JIT_EVENT(V, MTE2),
    MOE_JIT_EVENT(MTE3, V),
    MOE_JIT_EVENT(V, MTE3),
    MOE_JIT_EVENT(M, V),
    MOE_JIT_EVENT(V, M),
    MOE_JIT_EVENT(MTE2, M),
    MOE_JIT_EVENT(M, MTE2),
    MOE_JIT_EVENT(MTE3, MTE1),
    MOE_JIT_EVENT(MTE1, MTE3),
    MOE_JIT_EVENT(MTE1, V),
    MOE_JIT_EVENT(V, MTE1),
    MOE_JIT_EVENT(M, FIX),
    MOE_JIT_EVENT(FIX, M),
    MOE_JIT_EVENT(MTE3, MTE2),
    MOE_JIT_EVENT(MTE2, MTE3),
    MOE_JIT_EVENT(S, V),
    MOE_JIT_EVENT(V, S),
    MOE_JIT_EVENT(S, MTE2),
    MOE_JIT_EVENT(MTE2, S),
    MOE_JIT_EVENT(S, MTE3),
    MOE_JIT_EVENT(MTE3, S),
    MOE_JIT_EVENT(MTE2, FIX),
    MOE_JIT_EVENT(FIX, MTE2),
    MOE_JIT_EVENT(FIX, S),
    MOE_JIT_EVENT(S, FIX),
    MOE_JIT_EVENT(M, S),
    MOE_JIT_EVENT(S, M),
    MOE_JIT_EVENT(MTE1, S),
    MOE_JIT_EVENT(S, MTE1),
    MOE_JIT_EVENT(FIX, MTE3),
    MOE_JIT_EVENT(MTE3, FIX),
    MOE_JIT_EVENT(MTE1, FIX),
    MOE_JIT_EVENT(FIX, MTE1),
    MOE_JIT_EVENT(FIX, V),
    MOE_JIT_EVENT(V, FIX),
};
#undef MOE_JIT_EVENT

}  // namespace AscendC

namespace moe_jit::emulator {

template <typename T>
constexpr uint32_t bits_of() {
    return std::is_same_v<T, AscendC::int4b_t> ? 4 : 8 * sizeof(T);
}

constexpr const char* name_of(AscendC::TPosition position) {
    constexpr const char* names[] = {"GM",  "A1",    "A2",     "B1",      "B2",   "C1",        "C2", "CO1",
                                     "CO2", "VECIN", "VECOUT", "VECCALC", "TSCM", "C2PIPE2GM", "MAX"};
    return names[static_cast<int>(position)];
}

constexpr Memory memory_of(AscendC::TPosition position) {
    using AscendC::TPosition;
    switch (position) {
        case TPosition::A1:
        case TPosition::B1:
        case TPosition::C1:
        case TPosition::TSCM:
            return Memory::L1;
        case TPosition::A2:
            return Memory::L0A;
        case TPosition::B2:
            return Memory::L0B;
        case TPosition::CO1:
            return Memory::L0C;
        case TPosition::C2:
            return Memory::BT;
        case TPosition::C2PIPE2GM:
            return Memory::FB;
        case TPosition::VECIN:
        case TPosition::VECOUT:
        case TPosition::VECCALC:
            return Memory::UB;
        default:
            return Memory::GM;
    }
}

constexpr Pipe source_of(AscendC::HardEvent event) { return static_cast<Pipe>(static_cast<int>(event) >> 4); }
constexpr Pipe destination_of(AscendC::HardEvent event) {
    return static_cast<Pipe>(static_cast<int>(event) & 15);
}

}  // namespace moe_jit::emulator
