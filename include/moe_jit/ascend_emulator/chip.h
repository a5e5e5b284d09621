// The emulated chip: architecture 2201 (Atlas A2 and A3). Sizes and alignments in bytes, rates per clock
// cycle.
#pragma once

#include <cstdint>

namespace moe_jit::emulator {

enum class Memory : uint8_t { GM, UB, L1, L0A, L0B, L0C, BT, FB };
inline constexpr int kMemories = 8;

enum class CoreKind : uint8_t { Cube, Vector };

enum class CubeType : uint8_t { I8, I4, F16, F32 };
inline constexpr int kCubeTypes = 4;

struct MemoryTraits {
    const char* name;
    uint32_t capacity;
    uint32_t alignment;
    CoreKind owner;
};

// UB: 192 KiB less 256 B, less 8 KiB that some library calls reserve.
inline constexpr MemoryTraits kMemoryTraits[kMemories] = {
    {"GM", 0, 1, CoreKind::Cube},
    {"UB", 192 * 1024 - 256 - 8 * 1024, 32, CoreKind::Vector},
    {"L1", 512 * 1024 - 256, 32, CoreKind::Cube},
    {"L0A", 64 * 1024, 512, CoreKind::Cube},
    {"L0B", 64 * 1024, 512, CoreKind::Cube},
    {"L0C", 128 * 1024, 64, CoreKind::Cube},
    {"BT", 1024, 64, CoreKind::Cube},
    {"FB", 2 * 1024, 128, CoreKind::Cube},
};

constexpr const MemoryTraits& traits(Memory memory) { return kMemoryTraits[static_cast<int>(memory)]; }
constexpr const char* name_of(Memory memory) { return traits(memory).name; }

inline constexpr uint32_t kBlock = 32;       // a data block; the granularity of the hazard checks
inline constexpr uint32_t kRepeat = 256;     // bytes of one vector repeat
inline constexpr uint32_t kFlagBlock = 512;  // of L0C: what one unit flag stands for
inline constexpr uint32_t kMemoryLine =
    128;                                     // the smallest unit into which a transfer from or to GM is split
inline constexpr uint32_t kCacheLine = 64;   // of the scalar unit's data cache
inline constexpr int kEventIds = 8;          // for each pair of pipes
inline constexpr int kReservedEventIds = 2;  // the last ones
inline constexpr int kCrossCoreIds = 16;
inline constexpr int kCrossCoreLimit = 15;  // of a counter
inline constexpr int kSyncAllIds[] = {11, 12, 13, 14};
inline constexpr int kTensorsPerPosition = 8;  // allocated at the same time

// What the time estimate assumes of a die with 24 cube cores. Clock and the rates of GM: the platform
// description of Ascend910B2C in CANN's public run-time repository (cube_freq, l2_read_rate, l2_write_rate,
// ub_to_l2_rate). Bandwidth of HBM: Zuo et al., "Serving Large Language Models on Huawei CloudMatrix384",
// arXiv 2506.12708, section 3.2. L1 to L0: the architecture specification of 2201. Start-up times of
// instructions are not published and count as nothing.
struct Rates {
    double clock_hz = 1.8e9;
    double hbm_bytes_per_second = 1.6e12;  // of all cores together: what no core has touched before
    double gm_read = 110;  // of one core, from the L2 cache, which is taken to hold what was touched
    double gm_write = 86;
    double gm_write_from_ub = 64;
    double l1_to_l0a = 256;
    double l1_to_l0b = 128;
    double l1_to_table = 64;    // to BT and FB; an assumption
    double vector_bytes = 256;  // a repeat in each cycle
};

}  // namespace moe_jit::emulator
