// int8 x int4 and int4 x int4 products: rows of x are split into int4 rows first, see split.h. Each segment
// of the reduction dimension passes through the ring by itself, because its scale follows the exact sum.
#pragma once

#include "moe_jit/ascend/grouped_matmul.h"
#include "moe_jit/ascend/int4/epilogue.h"

namespace moe_jit::ascend {

// The workspace: the ring, the split rows, and their sums.
struct Int4Workspace {
    Address ring, split, row_sums, end;

    __aicore__ inline Int4Workspace(Address workspace, const MatmulTiling& tiling) {
        const int64_t slot =
            static_cast<int64_t>(tiling.base_m) * tiling.pieces * tiling.base_n * sizeof(int32_t);
        const bool is_split = tiling.pieces > 1;
        const int64_t rows = is_split ? tiling.rows : 0;
        ring = workspace;
        split = ring + GetBlockNum() * tiling.stages * slot;
        row_sums = split + aligned(rows * tiling.pieces * (tiling.k / 2));
        end = row_sums + aligned(rows * static_cast<int64_t>(sizeof(float)));
    }

  private:
    __aicore__ inline static int64_t aligned(int64_t bytes) { return (bytes + 511) / 512 * 512; }
};

__aicore__ inline ResultRing int4_ring(const Int4Workspace& workspace, const MatmulTiling& tiling) {
    const int32_t slot =
        tiling.base_m * tiling.pieces * tiling.base_n * static_cast<int32_t>(sizeof(int32_t));
    return ResultRing(workspace.ring + static_cast<int64_t>(cube_index()) * tiling.stages * slot, slot,
                      tiling.stages);
}

// Before the products, by all vector cores; then all cores wait for one another.
__aicore__ inline void split_rows(Address x, const MatmulTiling& tiling, const Int4Workspace& workspace,
                                  bool needs_sums) {
    if (tiling.pieces == 1) return;
    if ASCEND_IS_AIV {
        TPipe pipe;
        RowSplitter splitter(pipe, x, tiling.k, tiling.pieces);
        splitter.run(workspace.split, needs_sums ? workspace.row_sums : nullptr, tiling.rows,
                     static_cast<int32_t>(GetBlockIdx()), static_cast<int32_t>(GetBlockNum()) * kVectorCores);
        PipeBarrier<PIPE_ALL>();
        pipe.Reset();
    }
    SyncAll<false>();
}

// The cube core's part.
__aicore__ inline void run_int4_cube(TPipe& pipe, const MatmulTiling& tiling, Address x, Address weight,
                                     Address group_list, const Int4Workspace& workspace) {
    MatmulTiling pieces = tiling;
    pieces.base_m *= tiling.pieces;
    Mainloop<Int4> product(pipe, pieces);
    const ActivationProducer<Int4> activations(tiling.pieces == 1 ? x : workspace.split, tiling.k);
    WeightProducer<Int4> weights(weight, tiling);
    ResultRing ring = int4_ring(workspace, tiling);
    const int32_t length = tiling.k / tiling.segments;
    TileCursor tiles(group_list, tiling, cube_index(), static_cast<int32_t>(GetBlockNum()));
    Tile tile;
    while (tiles.next(tile)) {
        tile.row *= tiling.pieces;
        tile.rows *= tiling.pieces;
        for (int32_t segment = 0; segment < tiling.segments; ++segment) {
            const Depth depth{segment * length, (segment + 1) * length};
            product.begin(activations, weights, tile, depth, nullptr);
            store_to_ring(product, weights, tile, ring, tiling.base_n);
        }
    }
    ring.drain();
}

// The vector cores' part.
template <class Finish>
__aicore__ inline void run_int4_epilogue(TPipe& pipe, const MatmulTiling& tiling, Address scale,
                                         Address group_list, const Int4Workspace& workspace, Finish& finish) {
    SegmentEpilogue<Finish> epilogue(pipe, tiling, scale, finish);
    ResultRing ring = int4_ring(workspace, tiling);
    TileCursor tiles(group_list, tiling, cube_index(), static_cast<int32_t>(GetBlockNum()));
    Tile tile;
    while (tiles.next(tile)) epilogue.run(tile, ring, own_rows(tile.rows));
}

// Out: half or bfloat16_t.
template <class Out>
class Int4Matmul {
  public:
    __aicore__ inline explicit Int4Matmul(const MatmulArguments& given)
        : given_(given), tiling_(read_struct<MatmulTiling>(given.tiling)) {}

    __aicore__ inline void run() {
        const Int4Workspace workspace(given_.workspace, tiling_);
        split_rows(given_.x, tiling_, workspace, given_.offset != nullptr);
        TPipe pipe;
        if ASCEND_IS_AIC {
            run_int4_cube(pipe, tiling_, given_.x, given_.weight, given_.group_list, workspace);
        }
        if ASCEND_IS_AIV {
            clear_tail(pipe, given_, tiling_, sizeof(Out));
            Int4Finish<Out> finish(
                pipe, tiling_,
                {given_.bias, given_.offset, workspace.row_sums, given_.per_token_scale, nullptr}, given_.y);
            run_int4_epilogue(pipe, tiling_, given_.scale, given_.group_list, workspace, finish);
        }
    }

  private:
    MatmulArguments given_;
    MatmulTiling tiling_;
};

}  // namespace moe_jit::ascend
