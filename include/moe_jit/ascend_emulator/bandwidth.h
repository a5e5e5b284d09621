// The bandwidth of HBM, which all cores share. Cores are emulated one after the other, each with its own
// time, so that transfers come here in any order: what is left of each short interval is handed out, first
// come, first served.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace moe_jit::emulator {

class SharedBandwidth {
  public:
    explicit SharedBandwidth(double bytes_per_cycle)
        : rate_(bytes_per_cycle), capacity_(bytes_per_cycle * kInterval) {}

    // The cycle at which `bytes` that are asked for at cycle `start` have been transferred.
    double finish(double start, double bytes) {
        auto interval = static_cast<size_t>(start / kInterval);
        double end = start;
        while (bytes > 0) {
            interval = first_free(interval);
            const double taken = std::min(bytes, capacity_ - used_[interval]);
            used_[interval] += taken;
            bytes -= taken;
            if (capacity_ - used_[interval] < 1) next_[interval] = interval + 1;
            end = std::max(end, static_cast<double>(interval) * kInterval + used_[interval] / rate_);
        }
        return end;
    }

  private:
    static constexpr double kInterval = 32;  // cycles

    // The first interval from `from` on that is not used up. Chains of full ones are shortened on the way.
    size_t first_free(size_t from) {
        size_t free = from;
        while (at(free) != free) free = next_[free];
        while (next_[from] != free && from != free) {
            const size_t after = next_[from];
            next_[from] = free;
            from = after;
        }
        return free;
    }
    size_t at(size_t interval) {
        while (next_.size() <= interval) {
            next_.push_back(next_.size());
            used_.push_back(0);
        }
        return next_[interval];
    }

    double rate_, capacity_;
    std::vector<double> used_;
    std::vector<size_t> next_;
};

}  // namespace moe_jit::emulator
