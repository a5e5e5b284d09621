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
    explicit Report(const Machine& machine)
        : rates(machine.options.rates), chip_cores(machine.options.cores) {
        for (const auto& core : machine.cores) {
            cores.push_back({core->name(), core->statistics});
            total.add(core->statistics);
        }
    }

    // Longest chain of instructions and waits over all cores, not less than the memory needs.
    double seconds() const { return std::max(total.finish / rates.clock_hz, memory_seconds()); }
    // What the lines of GM that were touched take at the memory's bandwidth, each once.
    double memory_seconds() const {
        return static_cast<double>(total.untouched) / rates.hbm_bytes_per_second;
    }
    // What the products take if all cubes of the chip share them evenly.
    double cube_seconds() const { return total.busy[static_cast<int>(Pipe::M)] / cube_cycles_per_second(); }
    // Paths that are not part of the bound, because what takes them is the kernel's choice: operands that the
    // cubes load, sums that leave them, and vector instructions. Shared evenly.
    double load_seconds() const {
        return moved(Memory::GM, Memory::L1) / rates.gm_read / cube_cycles_per_second();
    }
    double store_seconds() const {
        return moved(Memory::L0C, Memory::GM) / rates.gm_write / cube_cycles_per_second();
    }
    double vector_seconds() const {
        constexpr int kVectorCores = 2;  // for each cube
        return total.busy[static_cast<int>(Pipe::V)] / kVectorCores / cube_cycles_per_second();
    }
    // No schedule of the same products and the same memory takes less.
    double bound_seconds() const { return std::max(memory_seconds(), cube_seconds()); }
    // Nor of all that this kernel does.
    double own_bound_seconds() const {
        return std::max({bound_seconds(), load_seconds(), store_seconds(), vector_seconds()});
    }

    std::string text() const {
        std::string out =
            format("%.2f us estimated, %.2f times the bound: memory %.2f us, cube %.2f us\n", 1e6 * seconds(),
                   seconds() / bound_seconds(), 1e6 * memory_seconds(), 1e6 * cube_seconds());
        out += format("%.2f times this kernel's own: load %.2f us, store %.2f us, vector %.2f us\n",
                      seconds() / own_bound_seconds(), 1e6 * load_seconds(), 1e6 * store_seconds(),
                      1e6 * vector_seconds());
        each_path([&](const std::string& path, uint64_t bytes) {
            out += format("%-10s %16llu bytes\n", path.c_str(), static_cast<unsigned long long>(bytes));
        });
        each_product([&](const char* type, uint64_t operations) {
            out += format("cube %-5s %16llu operations\n", type, static_cast<unsigned long long>(operations));
        });
        out += format("vector     %16llu repeats\n", static_cast<unsigned long long>(total.vector_repeats));
        for (const CoreReport& core : cores) {
            out += format("%-6s %8.2f us, busy", core.name.c_str(),
                          1e6 * core.statistics.finish / rates.clock_hz);
            each_pipe(core, [&](const char* pipe, double seconds) {
                out += format(" %s %.2f", pipe, 1e6 * seconds);
            });
            out += "\n";
        }
        return out;
    }

    std::string json() const {
        std::string out =
            format("{\"seconds\": %.9g, \"bound_seconds\": %.9g, ", seconds(), bound_seconds()) +
            format("\"memory_seconds\": %.9g, \"cube_seconds\": %.9g, ", memory_seconds(), cube_seconds()) +
            format("\"own_bound_seconds\": %.9g, \"load_seconds\": %.9g, ", own_bound_seconds(),
                   load_seconds()) +
            format("\"store_seconds\": %.9g, \"vector_seconds\": %.9g, ", store_seconds(), vector_seconds()) +
            format("\"hbm_bytes\": %llu, ", static_cast<unsigned long long>(total.untouched)) +
            format("\"vector_repeats\": %llu", static_cast<unsigned long long>(total.vector_repeats));
        List bytes(", \"bytes\": {", "}");
        each_path([&](const std::string& path, uint64_t count) { bytes.add(path, count); });
        List products(", \"cube_operations\": {", "}");
        each_product([&](const char* type, uint64_t count) { products.add(type, count); });
        List list(", \"cores\": [", "]");
        for (const CoreReport& core : cores) {
            List busy("{\"name\": \"" + core.name + "\", \"busy_seconds\": {", "}");
            each_pipe(core, [&](const char* pipe, double seconds) { busy.add(pipe, seconds); });
            const double finish = core.statistics.finish / rates.clock_hz;
            list.add(busy.text() + format(", \"seconds\": %.9g}", finish));
        }
        return out + bytes.text() + products.text() + list.text() + "}";
    }

    Rates rates;
    int chip_cores = 0;
    Statistics total;
    std::vector<CoreReport> cores;

  private:
    double cube_cycles_per_second() const { return chip_cores * rates.clock_hz; }
    double moved(Memory from, Memory to) const {
        return static_cast<double>(total.bytes[static_cast<int>(from)][static_cast<int>(to)]);
    }

    class List {
      public:
        List(std::string begin, std::string end) : text_(std::move(begin)), end_(std::move(end)) {}
        void add(const std::string& item) {
            text_ += separator_ + item;
            separator_ = ", ";
        }
        void add(const std::string& name, uint64_t value) {
            add("\"" + name + "\": " + std::to_string(value));
        }
        void add(const std::string& name, double value) { add("\"" + name + format("\": %.17g", value)); }
        std::string text() const { return text_ + end_; }

      private:
        std::string text_;
        std::string end_;
        std::string separator_;
    };

    template <typename Function>
    void each_path(Function function) const {
        for (int from = 0; from < kMemories; ++from) {
            for (int to = 0; to < kMemories; ++to) {
                if (!total.bytes[from][to]) continue;
                function(std::string(kMemoryTraits[from].name) + "_" + kMemoryTraits[to].name,
                         total.bytes[from][to]);
            }
        }
    }

    template <typename Function>
    void each_product(Function function) const {
        constexpr const char* names[kCubeTypes] = {"i8", "i4", "f16", "f32"};
        for (int type = 0; type < kCubeTypes; ++type) {
            if (total.cube_operations[type]) function(names[type], total.cube_operations[type]);
        }
    }

    template <typename Function>
    void each_pipe(const CoreReport& core, Function function) const {
        for (int pipe = 0; pipe < kPipes; ++pipe) {
            const double cycles = core.statistics.busy[pipe];
            if (cycles > 0) function(name_of(static_cast<Pipe>(pipe)), cycles / rates.clock_hz);
        }
    }
};

}  // namespace moe_jit::emulator
