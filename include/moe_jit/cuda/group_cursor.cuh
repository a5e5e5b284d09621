// Which group a row belongs to, for rows in ascending order.
#pragma once

#include <cstdint>

namespace moe_jit::cuda {

// Counts [count], or pairs (index, count) [count, 2] that end at the first that is empty or names no group.
// Null: all rows are one group.
struct GroupCounts {
    const int64_t* values;
    int count;
    bool pairs;
};

class GroupCursor {
  public:
    // By all lanes of every warp. Then live_rows() is known, and seek() may go to any row from `first` on.
    __device__ GroupCursor(const GroupCounts& groups, int64_t rows) : groups_(groups), rows_(rows) {
        if (groups.values == nullptr) {
            live_ = end_ = rows;
            return;
        }
        const int lane = threadIdx.x % 32;
        per_lane_ = (groups.count + 31) / 32;
        int64_t sum = 0;
        bool ended = false;
        const int stop = min(groups.count, (lane + 1) * per_lane_);
        for (int g = lane * per_lane_; g < stop && !ended; ++g) {
            const int64_t size = size_of(g);
            ended = size < 0;
            sum += max(size, int64_t{0});
        }
        const uint32_t ends = __ballot_sync(~0u, ended);
        if (ends != 0 && lane >= __ffs(ends)) sum = 0;
        lane_end_ = sum;
        for (int distance = 1; distance < 32; distance *= 2) {
            const int64_t before = __shfl_up_sync(~0u, lane_end_, distance);
            if (lane >= distance) lane_end_ += before;
        }
        lane_begin_ = lane_end_ - sum;
        live_ = min(__shfl_sync(~0u, lane_end_, 31), rows);
    }

    // Rows from here on belong to no group.
    __device__ int64_t live_rows() const { return live_; }

    // By all lanes of a warp: the group of `row` < live_rows().
    __device__ void start(int64_t row) {
        if (groups_.values == nullptr) return;
        const int owner = __ffs(__ballot_sync(~0u, lane_end_ > row)) - 1;
        group_ = owner * per_lane_;
        end_ = __shfl_sync(~0u, lane_begin_, owner) + size_of(group_);
        seek(row);
    }

    // True where the group is another than that of the row before.
    __device__ __forceinline__ bool seek(int64_t row) {
        if (row < end_) return false;
        while (row >= end_) end_ += size_of(++group_);
        return true;
    }

    // Which row of parameters the group uses.
    __device__ __forceinline__ int64_t parameters() const {
        return groups_.pairs ? groups_.values[2 * group_] : group_;
    }

  private:
    // -1 ends a list of pairs.
    __device__ __forceinline__ int64_t size_of(int g) const {
        if (!groups_.pairs) return min(max(groups_.values[g], int64_t{0}), rows_);
        const int64_t index = groups_.values[2 * g], size = groups_.values[2 * g + 1];
        return size <= 0 || index < 0 || index >= groups_.count ? -1 : min(size, rows_);
    }

    const GroupCounts& groups_;
    int64_t rows_, live_ = 0, end_ = 0;
    int64_t lane_begin_ = 0, lane_end_ = 0;
    int group_ = 0, per_lane_ = 0;
};

}  // namespace moe_jit::cuda
