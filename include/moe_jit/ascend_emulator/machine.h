// All cores of one launch, the memory they share, and what was asked for.
#pragma once

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "moe_jit/ascend_emulator/bandwidth.h"
#include "moe_jit/ascend_emulator/core.h"
#include "moe_jit/ascend_emulator/scheduler.h"

namespace moe_jit::emulator {

struct Options {
    int cores = 24;            // physical cube cores; there are twice as many vector cores
    uint32_t seed = 0;         // 0: the core that is furthest behind goes on; otherwise any, at random
    bool count_only = false;   // operands are neither read nor written; bounds and alignment are checked
    bool barriers = true;      // whether a missing PipeBarrier fails (the compiler can insert these)
    double wait_limit_s = 20;  // for which all cores may do nothing but poll memory
    Rates rates;
};

// The barrier of all cores, or of all vector cores.
struct AllCores {
    int arrived = 0;
    uint32_t rounds = 0;
    Token token;   // of those that have arrived
    Token passed;  // of the last round
};

struct Machine {
    Machine(const Options& options, KernelType type, int blocks)
        : options(options),
          type(type),
          blocks(blocks),
          random(options.seed),
          hbm(options.rates.hbm_bytes_per_second / options.rates.clock_hz) {
        const KernelTraits& kernel = traits(type);
        const int cubes = blocks * kernel.cubes;
        const int vectors = blocks * kernel.vectors;
        const size_t slots = static_cast<size_t>(cubes + vectors) * kPipes;
        for (int i = 0; i < cubes; ++i) add(CoreKind::Cube, i, i, 0, slots);
        for (int i = 0; i < vectors; ++i) {
            add(CoreKind::Vector, i, i / kernel.vectors, i % kernel.vectors, slots);
        }
    }

    Core& cube(int block) { return *cores[static_cast<size_t>(block)]; }
    Core& vector(int index) { return *cores[static_cast<size_t>(blocks * traits(type).cubes + index)]; }

    // The core whose place on the chip this one takes when it has ended; null if there is a free place.
    Core* predecessor(const Core& core) {
        const KernelTraits& kernel = traits(type);
        const bool cube = core.kind == CoreKind::Cube;
        const int places = options.cores * (cube ? 1 : kernel.cubes ? kernel.vectors : 2);
        if (core.index < places) return nullptr;
        return cube ? &this->cube(core.index - places) : &vector(core.index - places);
    }

    Options options;
    KernelType type;
    int blocks;
    std::vector<std::unique_ptr<Core>> cores;
    GlobalMemory* global = nullptr;
    AllCores barriers[2];  // of all cores, of the vector cores
    std::mt19937 random;
    SharedBandwidth hbm;
    Scheduler scheduler;

  private:
    void add(CoreKind kind, int index, int block, int sub_block, size_t slots) {
        const int id = static_cast<int>(cores.size());
        cores.push_back(std::make_unique<Core>(*this, kind, index, id, block, sub_block, slots));
    }
};

}  // namespace moe_jit::emulator
