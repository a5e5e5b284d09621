// Statistics of a launch.
#pragma once

#include <string>
#include <vector>

#include "moe_jit/ascend_emulator/machine.h"

namespace moe_jit::emulator {

struct CoreReport {
    std::string name;
    Statistics statistics;
};

class Report {
  public:
    Report() = default;
    explicit Report(const Machine& machine) : rates(machine.options.rates) {
        for (const auto& core : machine.cores) {
            cores.push_back({core->name(), core->statistics});
            total.add(core->statistics);
        }
    }

    // Longest chain of instructions and waits over all cores, not less than the memory needs for all bytes.
    double seconds() const { return std::max(total.finish / rates.clock_hz, memory_seconds()); }
    // What the bytes moved to and from GM take at the memory's bandwidth.
    double memory_seconds() const {
        return static_cast<double>(total.gm_bytes()) / rates.gm_bytes_per_second;
    }
    // What the busiest core's cube, or its vector unit, takes.
    double cube_seconds() const { return busiest(Pipe::M); }
    double vector_seconds() const { return busiest(Pipe::V); }

    std::string text() const {
        std::string out =
            format("%.2f us estimated; memory %.2f us, cube %.2f us, vector %.2f us\n", 1e6 * seconds(),
                   1e6 * memory_seconds(), 1e6 * cube_seconds(), 1e6 * vector_seconds());
        each_path([&](Memory from, Memory to, uint64_t bytes) {
            out += format("%4s to %-3s %16llu bytes\n", name_of(from), name_of(to),
                          static_cast<unsigned long long>(bytes));
        });
        for (int type = 0; type < kCubeTypes; ++type) {
            if (!total.cube_operations[type]) continue;
            out += format("cube %-4s %18llu operations\n", kTypes[type],
                          static_cast<unsigned long long>(total.cube_operations[type]));
        }
        out += format("vector    %18llu repeats\n", static_cast<unsigned long long>(total.vector_repeats));
        return out;
    }

    std::string json() const {
        std::string out = format(
            "{\"seconds\": %.9g, \"memory_seconds\": %.9g, \"cube_seconds\": %.9g, \"vector_seconds\": "
            "%.9g, ",
            seconds(), memory_seconds(), cube_seconds(), vector_seconds());
        out += "\"bytes\": {";
        const char* separator = "";
        each_path([&](Memory from, Memory to, uint64_t bytes) {
            out += format("%s\"%s_%s\": %llu", separator, name_of(from), name_of(to),
                          static_cast<unsigned long long>(bytes));
            separator = ", ";
        });
        out += "}, \"cube_operations\": {";
        for (int type = 0; type < kCubeTypes; ++type) {
            out += format("%s\"%s\": %llu", type ? ", " : "", kTypes[type],
                          static_cast<unsigned long long>(total.cube_operations[type]));
        }
        out += format("}, \"vector_repeats\": %llu, \"cores\": [",
                      static_cast<unsigned long long>(total.vector_repeats));
        for (size_t i = 0; i < cores.size(); ++i) {
            out += format("%s{\"name\": \"%s\", \"seconds\": %.9g}", i ? ", " : "", cores[i].name.c_str(),
                          cores[i].statistics.finish / rates.clock_hz);
        }
        return out + "]}";
    }

    Rates rates;
    Statistics total;
    std::vector<CoreReport> cores;

  private:
    static constexpr const char* kTypes[kCubeTypes] = {"i8", "i4", "f16", "f32"};

    double busiest(Pipe pipe) const {
        double cycles = 0;
        for (const CoreReport& core : cores)
            cycles = std::max(cycles, core.statistics.busy[static_cast<int>(pipe)]);
        return cycles / rates.clock_hz;
    }

    template <typename Function>
    void each_path(Function function) const {
        for (int from = 0; from < kMemories; ++from) {
            for (int to = 0; to < kMemories; ++to) {
                if (total.bytes[from][to]) {
                    function(static_cast<Memory>(from), static_cast<Memory>(to), total.bytes[from][to]);
                }
            }
        }
    }
};

}  // namespace moe_jit::emulator
