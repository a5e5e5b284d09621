// Which group a row belongs to, for rows in ascending order.
#pragma once

#include <cstdint>
#include <type_traits>

namespace moe_jit::cuda {

// Counts [count], or pairs (index, count) [count, 2] that end at the first that is empty or names no group.
// Null: all rows are one group.
struct GroupCounts {
    const int64_t* values;
    int count;
    bool pairs;
};

// Where a CTA's rows begin in the list.
template <class Index>
struct GroupStart {
    Index live_rows;  // of all groups; rows from here on belong to none
    Index end;        // of the group
    int group;
};

namespace detail {

// -1 ends a list of pairs.
__device__ __forceinline__ int64_t group_size(const GroupCounts& groups, int g, int64_t rows) {
    if (!groups.pairs) return min(max(groups.values[g], int64_t{0}), rows);
    const int64_t index = groups.values[2 * g], size = groups.values[2 * g + 1];
    return size <= 0 || index < 0 || index >= groups.count ? -1 : min(size, rows);
}

// a + b, or `most` if that is less; all are at most that.
template <class Index>
__device__ __forceinline__ Index bounded_sum(Index a, Index b, Index most) {
    using Unsigned = std::make_unsigned_t<Index>;
    return static_cast<Index>(
        min(static_cast<Unsigned>(a) + static_cast<Unsigned>(b), static_cast<Unsigned>(most)));
}

}  // namespace detail

// By all lanes of a warp. first_of(live rows) is the row to start at.
template <class Index, class FirstOf>
__device__ GroupStart<Index> find_group(const GroupCounts& groups, Index rows, FirstOf first_of) {
    if (groups.values == nullptr) {
        first_of(rows);
        return {rows, rows, 0};
    }
    const int lane = threadIdx.x % 32;
    const int per_lane = (groups.count + 31) / 32;
    Index sum = 0;
    bool ended = false;
    const int stop = min(groups.count, (lane + 1) * per_lane);
    for (int g = lane * per_lane; g < stop && !ended; ++g) {
        const int64_t size = detail::group_size(groups, g, rows);
        ended = size < 0;
        sum = detail::bounded_sum(sum, static_cast<Index>(max(size, int64_t{0})), rows);
    }
    const uint32_t ends = __ballot_sync(~0u, ended);
    if (ends != 0 && lane >= __ffs(ends)) sum = 0;
    Index lane_end = sum;
    for (int distance = 1; distance < 32; distance *= 2) {
        const Index before = __shfl_up_sync(~0u, lane_end, distance);
        if (lane >= distance) lane_end = detail::bounded_sum(lane_end, before, rows);
    }
    const Index live = __shfl_sync(~0u, lane_end, 31);
    const Index first = first_of(live);
    const int owner = __ffs(__ballot_sync(~0u, lane_end > first)) - 1;
    if (owner < 0) return {live, live, 0};  // no rows
    if (per_lane == 1) return {live, __shfl_sync(~0u, lane_end, owner), owner};
    const auto size_of = [&](int g) {
        return static_cast<Index>(max(detail::group_size(groups, g, rows), int64_t{0}));
    };
    GroupStart<Index> start{live, owner == 0 ? 0 : __shfl_sync(~0u, lane_end, owner - 1), owner * per_lane};
    start.end = detail::bounded_sum(start.end, size_of(start.group), rows);
    while (first >= start.end) start.end = detail::bounded_sum(start.end, size_of(++start.group), rows);
    return start;
}

// The group of one row after another, up to live_rows.
template <class Index>
class GroupCursor {
  public:
    __device__ GroupCursor(const GroupCounts& groups, int64_t rows, Index end, int group)
        : groups_(groups), rows_(rows), end_(end), group_(group) {}

    // True where the group is another than that of the row before.
    __device__ __forceinline__ bool seek(Index row) {
        if (row < end_) return false;
        while (row >= end_) {
            const int64_t size = detail::group_size(groups_, ++group_, rows_);
            end_ = static_cast<Index>(min(end_ + size, rows_));
        }
        return true;
    }

    // Which row of parameters the group uses.
    __device__ __forceinline__ int64_t parameters() const {
        return groups_.pairs ? groups_.values[2 * group_] : group_;
    }

  private:
    const GroupCounts groups_;
    int64_t rows_;
    Index end_;
    int group_;
};

}  // namespace moe_jit::cuda
