// Which rows belong to which expert, and which output tiles a core computes.
#pragma once

#include "moe_jit/ascend/gm.h"
#include "moe_jit/ascend/tiling.h"
#include "moe_jit/core/operator_modes.h"

namespace moe_jit::ascend {

// A run of consecutive rows; `expert` selects weights and parameters.
struct Group {
    int32_t expert = 0;
    int32_t begin = 0;
    int32_t count = 0;
};

// Groups with rows, in row order. Counts that are negative or that exceed the rows are cut; a sparse list
// ends at the first pair that is empty or names no expert.
class GroupCursor {
  public:
    __aicore__ inline GroupCursor(Address list, const GroupListTiling& tiling, int32_t num_rows)
        : list_(list), tiling_(tiling), num_rows_(num_rows) {}

    __aicore__ inline bool next(Group& group) {
        const int32_t num_entries = tiling_.num_groups == 0 ? 1 : tiling_.num_groups;
        while (index_ < num_entries) {
            const int32_t entry = index_++;
            group.expert = entry;
            const int64_t end = end_of(entry, group.expert);
            if (end < 0) {
                index_ = num_entries;
                return false;
            }
            group.begin = begin_;
            begin_ = static_cast<int32_t>(end < begin_ ? begin_ : end < num_rows_ ? end : num_rows_);
            group.count = begin_ - group.begin;
            const bool wanted = tiling_.only_group < 0 || tiling_.only_group == group.expert;
            if (tiling_.only_group >= 0) group.expert = 0;
            if (group.count > 0 && wanted) return true;
        }
        return false;
    }

    // After the last group: the first row of no group.
    __aicore__ inline int32_t end() const { return begin_; }

  private:
    // The row after the entry's last one; negative where the list ends.
    __aicore__ inline int64_t end_of(int32_t entry, int32_t& expert) const {
        if (tiling_.num_groups == 0) return num_rows_;
        const GlobalTensor<int64_t> list = global<int64_t>(list_);
        switch (static_cast<GroupListType>(tiling_.type)) {
            case GroupListType::kCumulative:
                return positive(list.GetValue(entry));
            case GroupListType::kCounts:
                return begin_ + positive(list.GetValue(entry));
            default:
                break;
        }
        const int64_t named = list.GetValue(2 * entry), count = list.GetValue(2 * entry + 1);
        if (count <= 0 || named < 0 || named >= tiling_.num_experts) return -1;
        expert = static_cast<int32_t>(named);
        return begin_ + positive(count);
    }

    __aicore__ inline int64_t positive(int64_t count) const {
        return count < 0 ? 0 : count < num_rows_ ? count : num_rows_;
    }

    Address list_;
    GroupListTiling tiling_;
    int32_t num_rows_;
    int32_t index_ = 0;
    int32_t begin_ = 0;
};

struct Tile {
    int32_t expert, row, rows, column, columns;
};

// Tiles of all groups in one sequence, dealt out to the cores in turn, so that small groups idle none. Tiles
// that share a weight follow one another; slabs of columns follow one another with all their groups.
class TileCursor {
  public:
    // `slab_columns`: of a slab, a multiple of base_n; 0: all are one.
    __aicore__ inline TileCursor(Address list, const MatmulTiling& tiling, int32_t core, int32_t num_cores,
                                 int32_t slab_columns = 0)
        : all_groups_(list, tiling.groups, tiling.rows),
          groups_(all_groups_),
          n_(tiling.n),
          slab_columns_(slab_columns == 0 ? tiling.n : slab_columns),
          base_m_(tiling.base_m),
          base_n_(tiling.base_n),
          position_(core),
          num_cores_(num_cores) {}

    __aicore__ inline bool next(Tile& tile) {
        while (position_ >= group_tiles_) {
            position_ -= group_tiles_;
            group_tiles_ = 0;
            if (!groups_.next(group_)) {
                slab_ += slab_columns_;
                if (slab_ >= n_) return false;
                groups_ = all_groups_;
                continue;
            }
            row_tiles_ = ceil_div(group_.count, base_m_);
            group_tiles_ = row_tiles_ * ceil_div(least(slab_columns_, n_ - slab_), base_n_);
        }
        const int32_t first_row = position_ % row_tiles_ * base_m_;
        tile.expert = group_.expert;
        tile.row = group_.begin + first_row;
        tile.rows = least(base_m_, group_.count - first_row);
        tile.column = slab_ + position_ / row_tiles_ * base_n_;
        tile.columns = least(base_n_, n_ - tile.column);
        position_ += num_cores_;
        return true;
    }

  private:
    GroupCursor all_groups_, groups_;
    Group group_;
    int32_t n_, slab_columns_, base_m_, base_n_;
    int32_t position_, num_cores_;
    int32_t row_tiles_ = 0, group_tiles_ = 0, slab_ = 0;
};

}  // namespace moe_jit::ascend
