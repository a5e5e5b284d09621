// What a core did and how long its pipes were busy.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "moe_jit/ascend_emulator/types.h"

namespace moe_jit::emulator {

struct Statistics {
    uint64_t bytes[kMemories][kMemories] = {};  // from, to
    uint64_t untouched = 0;  // of the bytes from and to GM: in lines that no core touched before
    uint64_t instructions[kPipes] = {};
    double busy[kPipes] = {};                   // cycles
    uint64_t cube_operations[kCubeTypes] = {};  // multiplications and additions that were asked for
    uint64_t vector_repeats = 0;
    double finish = 0;  // cycle at which the core's last instruction ends

    void add(const Statistics& other) {
        for (int from = 0; from < kMemories; ++from) {
            for (int to = 0; to < kMemories; ++to) bytes[from][to] += other.bytes[from][to];
        }
        untouched += other.untouched;
        for (int pipe = 0; pipe < kPipes; ++pipe) {
            instructions[pipe] += other.instructions[pipe];
            busy[pipe] += other.busy[pipe];
        }
        for (int type = 0; type < kCubeTypes; ++type) cube_operations[type] += other.cube_operations[type];
        vector_repeats += other.vector_repeats;
        finish = std::max(finish, other.finish);
    }
};

struct Transfer {
    Memory from;
    Memory to;
    uint64_t bytes;
    uint64_t bursts;
};

// Bursts to and from GM are moved in whole lines.
inline double transfer_cycles(const Rates& rates, const Transfer& copy) {
    const auto bytes = static_cast<double>(copy.bytes);
    if (copy.from == Memory::GM || copy.to == Memory::GM) {
        const uint64_t burst = copy.bursts ? (copy.bytes + copy.bursts - 1) / copy.bursts : 0;
        const uint64_t lines = (burst + kMemoryLine - 1) / kMemoryLine * copy.bursts;
        const double write = copy.from == Memory::UB ? rates.gm_write_from_ub : rates.gm_write;
        return static_cast<double>(lines * kMemoryLine) / (copy.from == Memory::GM ? rates.gm_read : write);
    }
    if (copy.to == Memory::L0A) return bytes / rates.l1_to_l0a;
    if (copy.to == Memory::L0B) return bytes / rates.l1_to_l0b;
    if (copy.to == Memory::BT || copy.to == Memory::FB) return bytes / rates.l1_to_table;
    return bytes / rates.vector_bytes;
}

inline double cube_cycles(uint64_t m, uint64_t n, uint64_t k, CubeType type) {
    const auto tiles = [](uint64_t size, uint64_t tile) { return (size + tile - 1) / tile; };
    constexpr uint64_t depth[] = {32, 64, 16, 8};  // I8, I4, F16, F32: 32 bytes of K
    const double fractals =
        static_cast<double>(tiles(m, 16) * tiles(n, 16) * tiles(k, depth[static_cast<int>(type)]));
    return type == CubeType::F32 ? 2 * fractals : fractals;  // a quarter of half's throughput
}

}  // namespace moe_jit::emulator
