// int8 x int4 and int4 x int4 products. Each segment of the reduction dimension passes through the ring by
// itself, because its scale follows the exact sum. Rows of x are split into int4 rows (split.h), or, where
// that many sums would take longer to store than to compute, the weights become int8 (widen.h).
#pragma once

#include "moe_jit/ascend/grouped_matmul.h"
#include "moe_jit/ascend/int4/epilogue.h"
#include "moe_jit/ascend/int4/widen.h"

namespace moe_jit::ascend {

// The workspace: the rings of sums and of converted weights, the split rows, and their sums.
struct Int4Workspace {
    Address results, weights, split, row_sums, end;

    __aicore__ inline Int4Workspace(Address workspace, const MatmulTiling& tiling)
        : slot_bytes_(tiling.base_m * sum_rows(tiling) * tiling.base_n *
                      static_cast<int32_t>(sizeof(int32_t))),
          weight_bytes_(tiling.pieces == 0 ? widened_slot_bytes(tiling) : 0),
          stages_(tiling.stages) {
        const int64_t slots = GetBlockNum() * tiling.stages, rows = tiling.pieces == 1 ? 0 : tiling.rows;
        results = workspace;
        weights = results + slots * slot_bytes_;
        split = weights + slots * weight_bytes_;
        row_sums = split + aligned(rows * tiling.pieces * (tiling.k / 2));
        end = row_sums + aligned(rows * static_cast<int64_t>(sizeof(float)));
    }

    __aicore__ inline ResultRing result_ring() const {
        return ResultRing(results + first_slot() * slot_bytes_, slot_bytes_, stages_);
    }
    __aicore__ inline WeightRing weight_ring() const {
        return WeightRing(weights + first_slot() * weight_bytes_, weight_bytes_, stages_);
    }

  private:
    __aicore__ inline static int64_t aligned(int64_t bytes) { return (bytes + 511) / 512 * 512; }
    __aicore__ inline int64_t first_slot() const { return static_cast<int64_t>(cube_index()) * stages_; }

    int32_t slot_bytes_, weight_bytes_, stages_;
};

// Before the products, by all vector cores; then all cores wait for one another.
template <class Splitter, class... Outputs>
__aicore__ inline void split_rows_with(Address x, const MatmulTiling& tiling, Outputs... outputs) {
    if ASCEND_IS_AIV {
        TPipe pipe;
        Splitter splitter(pipe, x, tiling);
        splitter.run(outputs..., static_cast<int32_t>(GetBlockIdx()),
                     static_cast<int32_t>(GetBlockNum()) * kVectorCores);
        PipeBarrier<PIPE_ALL>();
        pipe.Reset();
    }
    SyncAll<false>();
}

__aicore__ inline void split_rows(Address x, const MatmulTiling& tiling, const Int4Workspace& workspace,
                                  bool needs_sums) {
    if (tiling.pieces == 1 || (tiling.pieces == 0 && !needs_sums)) return;
    const Address sums = needs_sums ? workspace.row_sums : nullptr;
    split_rows_with<RowSplitter>(x, tiling, workspace.split, sums);
}

// The segments of a core's tiles, in order.
class SegmentCursor {
  public:
    __aicore__ inline SegmentCursor(Address group_list, const MatmulTiling& tiling)
        : tiles_(group_list, tiling, cube_index(), static_cast<int32_t>(GetBlockNum())),
          segments_(tiling.segments),
          segment_(tiling.segments - 1),
          length_(tiling.k / tiling.segments) {}

    __aicore__ inline bool next() {
        if (++segment_ < segments_) return true;
        segment_ = 0;
        return tiles_.next(tile_);
    }
    __aicore__ inline const Tile& tile() const { return tile_; }
    __aicore__ inline int32_t segment() const { return segment_; }
    __aicore__ inline bool is_last() const { return segment_ + 1 == segments_; }
    __aicore__ inline Depth depth() const { return {segment_ * length_, (segment_ + 1) * length_}; }

  private:
    TileCursor tiles_;
    Tile tile_;
    int32_t segments_, segment_, length_;
};

// The operands, and what the vector cores need besides `finish`.
struct Int4Operands {
    Address x, weight, scale, group_list;
    bool shifts;  // the product of x - 8: there is a bias that undoes it
};

// The cube core's part where rows of x are split.
__aicore__ inline void run_split_cube(TPipe& pipe, const MatmulTiling& tiling, const Int4Operands& given,
                                      const Int4Workspace& workspace) {
    MatmulTiling pieces = tiling;
    pieces.base_m *= tiling.pieces;
    Mainloop<Int4> product(pipe, pieces);
    const ActivationProducer<Int4> activations(tiling.pieces == 1 ? given.x : workspace.split, tiling.k);
    WeightProducer<Int4> weights(given.weight, tiling);
    ResultRing ring = workspace.result_ring();
    SegmentCursor cursor(given.group_list, tiling);
    while (cursor.next()) {
        Tile tile = cursor.tile();
        tile.row *= tiling.pieces;
        tile.rows *= tiling.pieces;
        product.begin(activations, weights, tile, cursor.depth(), nullptr);
        store_to_ring(product, weights, tile, ring, tiling.base_n);
    }
    ring.drain();
}

// The cube core's part where the weights become int8.
__aicore__ inline void run_widened_cube(TPipe& pipe, const MatmulTiling& tiling, const Int4Operands& given,
                                        const Int4Workspace& workspace) {
    Mainloop<Int8> product(pipe, tiling);
    const ActivationProducer<Int8> activations(given.x, tiling.k);
    WidenedWeights weights(workspace.weight_ring(), tiling);
    ResultRing ring = workspace.result_ring();
    SegmentCursor cursor(given.group_list, tiling);
    while (cursor.next()) {
        const Address shifts = weights.receive();
        product.begin_from(activations, weights, cursor.tile(), cursor.depth(),
                           given.shifts ? shifts : nullptr);
        store_to_ring(product, weights, cursor.tile(), ring, tiling.base_n);
    }
    ring.drain();
}

__aicore__ inline void run_int4_cube(TPipe& pipe, const MatmulTiling& tiling, const Int4Operands& given,
                                     const Int4Workspace& workspace) {
    if (tiling.pieces == 0) {
        run_widened_cube(pipe, tiling, given, workspace);
    } else {
        run_split_cube(pipe, tiling, given, workspace);
    }
}

// Adds the cursor's next segment up.
template <class Epilogue>
__aicore__ inline void add_next_segment(Epilogue& epilogue, SegmentCursor& cursor, ResultRing& ring) {
    cursor.next();
    epilogue.add(cursor.tile(), cursor.segment(), ring.receive());
    ring.release();
    if (cursor.is_last()) epilogue.finish(cursor.tile());
}

template <class Sums, class Finish>
__aicore__ inline void add_all_segments(TPipe& pipe, const MatmulTiling& tiling, Address group_list,
                                        const Int4Workspace& workspace, Sums& sums, Finish& finish) {
    SegmentEpilogue<Finish, Sums> epilogue(pipe, tiling, sums, finish);
    ResultRing results = workspace.result_ring();
    SegmentCursor ahead(group_list, tiling), adding = ahead;
    while (ahead.next()) add_next_segment(epilogue, adding, results);
}

// The vector cores' part where the weights become int8, some segments ahead of the sums: each core converts
// every second segment.
template <class Finish>
class WidenedVector {
  public:
    __aicore__ inline WidenedVector(TPipe& pipe, const MatmulTiling& tiling, const Int4Operands& given,
                                    const Int4Workspace& workspace, Finish& finish)
        : finish_(finish),
          sums_(pipe, tiling, given.scale),
          epilogue_(pipe, tiling, sums_, finish),
          widener_(pipe, tiling, given.weight, given.shifts),
          weights_(workspace.weight_ring()),
          results_(workspace.result_ring()),
          loading_(given.group_list, tiling),
          converting_(loading_),
          adding_(loading_),
          self_(static_cast<int32_t>(GetSubBlockIdx())),
          lead_(tiling.stages - 1) {}

    __aicore__ inline void run() {
        find_own(self_ + 1);
        for (int32_t i = 0; i < WeightWidener::kHalves; ++i) load(i);
        int32_t segments = 0;
        for (; converting_.next(); ++segments) {
            const bool is_own = segments % kVectorCores == self_;
            const Address slot = weights_.acquire();
            if (is_own) convert(slot);
            weights_.publish();
            if (segments >= lead_) add_next_segment(epilogue_, adding_, results_);
            if (is_own) load(1);  // behind the sums, which are needed first
        }
        for (int32_t i = least(segments, lead_); i > 0; --i) add_next_segment(epilogue_, adding_, results_);
        weights_.drain();
    }

  private:
    __aicore__ inline void find_own(int32_t steps) {
        for (; steps > 0 && is_loading_; --steps) is_loading_ = loading_.next();
    }
    __aicore__ inline void load(int32_t i) {
        if (is_loading_) widener_.load(loading_.tile(), loading_.segment(), i);
    }
    __aicore__ inline void convert(Address slot) {
        widener_.run(slot, converting_.tile(), 0, finish_.scratch());
        find_own(kVectorCores);
        load(0);
        widener_.run(slot, converting_.tile(), 1, finish_.scratch());
    }

    Finish& finish_;
    PieceSums sums_;
    SegmentEpilogue<Finish> epilogue_;
    WeightWidener widener_;
    WeightRing weights_;
    ResultRing results_;
    SegmentCursor loading_, converting_, adding_;
    int32_t self_, lead_;
    bool is_loading_ = true;
};

template <class Finish>
__aicore__ inline void run_int4_vector(TPipe& pipe, const MatmulTiling& tiling, const Int4Operands& given,
                                       const Int4Workspace& workspace, Finish& finish) {
    if (tiling.pieces == 0) {
        WidenedVector<Finish>(pipe, tiling, given, workspace, finish).run();
        return;
    }
    PieceSums sums(pipe, tiling, given.scale);
    add_all_segments(pipe, tiling, given.group_list, workspace, sums, finish);
}

// Out: half or bfloat16_t.
template <class Out>
class Int4Matmul {
  public:
    __aicore__ inline explicit Int4Matmul(const MatmulArguments& given)
        : given_(given), tiling_(read_struct<MatmulTiling>(given.tiling)) {}

    __aicore__ inline void run() {
        const Int4Workspace workspace(given_.workspace, tiling_);
        const Int4Operands operands{given_.x, given_.weight, given_.scale, given_.group_list,
                                    given_.bias != nullptr};
        split_rows(given_.x, tiling_, workspace, given_.offset != nullptr);
        TPipe pipe;
        if ASCEND_IS_AIC {
            run_int4_cube(pipe, tiling_, operands, workspace);
        }
        if ASCEND_IS_AIV {
            clear_tail(pipe, given_, tiling_, sizeof(Out));
            Int4Finish<Out> finish(
                pipe, tiling_,
                {given_.bias, given_.offset, workspace.row_sums, given_.per_token_scale, nullptr}, given_.y);
            run_int4_vector(pipe, tiling_, operands, workspace, finish);
        }
    }

  private:
    MatmulArguments given_;
    MatmulTiling tiling_;
};

}  // namespace moe_jit::ascend
