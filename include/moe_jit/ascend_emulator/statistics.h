// What a core did and how long its pipes were busy.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "moe_jit/ascend_emulator/types.h"

namespace moe_jit::emulator {

struct Statistics {
    uint64_t bytes[kMemories][kMemories] = {};  // from, to
    uint64_t instructions[kPipes] = {};
    double busy[kPipes] = {};                   // cycles
    uint64_t cube_operations[kCubeTypes] = {};  // multiplications and additions that were asked for
    uint64_t vector_repeats = 0;
    double finish = 0;  // cycle at which the core's last instruction ends

    void add(const Statistics& other) {
        for (int from = 0; from < kMemories; ++from) {
            for (int to = 0; to < kMemories; ++to) bytes[from][to] += other.bytes[from][to];
        }
        for (int pipe = 0; pipe < kPipes; ++pipe) {
            instructions[pipe] += other.instructions[pipe];
            busy[pipe] += other.busy[pipe];
        }
        for (int type = 0; type < kCubeTypes; ++type) cube_operations[type] += other.cube_operations[type];
        vector_repeats += other.vector_repeats;
        finish = std::max(finish, other.finish);
    }

    uint64_t gm_bytes() const {
        uint64_t total = 0;
        for (int other = 0; other < kMemories; ++other) total += bytes[0][other] + bytes[other][0];
        return total;
    }
};

inline double transfer_cycles(const Rates& rates, CoreKind kind, Memory from, Memory to, uint64_t bytes,
                              uint64_t bursts) {
    if (from == Memory::GM || to == Memory::GM) {
        const uint64_t burst = bursts ? (bytes + bursts - 1) / bursts : 0;
        const uint64_t whole = (burst + rates.gm_burst - 1) / rates.gm_burst * rates.gm_burst * bursts;
        return static_cast<double>(whole) / rates.gm_share(kind);
    }
    if (to == Memory::L0A) return static_cast<double>(bytes) / rates.l1_to_l0a;
    if (to == Memory::L0B) return static_cast<double>(bytes) / rates.l1_to_l0b;
    if (to == Memory::BT || to == Memory::FB) return static_cast<double>(bytes) / rates.l1_to_table;
    return static_cast<double>(bytes) / rates.vector_bytes;
}

inline double cube_cycles(uint64_t m, uint64_t n, uint64_t k, CubeType type) {
    const auto tiles = [](uint64_t size, uint64_t tile) { return (size + tile - 1) / tile; };
    constexpr uint64_t depth[] = {32, 64, 16, 8};  // I8, I4, F16, F32: 32 bytes of K
    const double fractals =
        static_cast<double>(tiles(m, 16) * tiles(n, 16) * tiles(k, depth[static_cast<int>(type)]));
    return type == CubeType::F32 ? 2 * fractals : fractals;  // a quarter of half's throughput
}

}  // namespace moe_jit::emulator
