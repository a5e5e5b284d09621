// npu_grouped_matmul_finalize_routing: dequantised rows go to the workspace; when all are there, the vector
// cores add them up.
#pragma once

#include "moe_jit/ascend/finalize/combine.h"
#include "moe_jit/ascend/int4/matmul.h"

namespace moe_jit::ascend {

// What every entry of npu_grouped_matmul_finalize_routing takes, and passes on as FinalizeArguments.
#define MOE_JIT_FINALIZE_PARAMETERS                                                                 \
    GM_ADDR x, GM_ADDR weight, GM_ADDR group_list, GM_ADDR scale, GM_ADDR bias, GM_ADDR offset,     \
        GM_ADDR per_token_scale, GM_ADDR shared_input, GM_ADDR logit, GM_ADDR row_index, GM_ADDR y, \
        GM_ADDR workspace, GM_ADDR tiling
#define MOE_JIT_FINALIZE_ARGUMENTS                                                          \
    {x,     weight,    group_list, scale,     bias,  offset, per_token_scale, shared_input, \
     logit, row_index, y,          workspace, tiling}

struct FinalizeArguments {
    Address x, weight, group_list, scale, bias, offset, per_token_scale, shared_input, logit, row_index, y,
        workspace, tiling;

    __aicore__ inline MatmulArguments matmul() const {
        return {x,       weight,          bias,       scale,   offset,    nullptr,
                nullptr, per_token_scale, group_list, nullptr, workspace, tiling};
    }
};

// (values * scale) * (logit * per_token_scale) + bias * logit in fp32.
class WeighedFinish {
  public:
    __aicore__ inline WeighedFinish(TPipe& pipe, const MatmulTiling& tiling, const FinalizeArguments& given,
                                    Address products)
        : given_(given), tiling_(tiling), store_(pipe, products, tiling.n) {
        pipe.InitBuffer(product_, kSlab * sizeof(float));
        scale_.init(pipe, tiling.base_n);
        bias_.init(pipe, tiling.base_n);
        row_factor_.init(pipe, tiling.base_m, 2);
        logit_.init(pipe, tiling.base_m, 1);
    }

    __aicore__ inline void begin(const Tile& tile) {
        const int64_t column = static_cast<int64_t>(tile.expert) * tiling_.n + tile.column;
        scale_.load(given_.scale, column, tile.columns, tiling_.scale_is_bf16);
        if (given_.bias != nullptr) bias_.load(given_.bias, column, tile.columns, true);
    }

    __aicore__ inline void finish(const FloatTile& values, const Tile& tile, int32_t row) {
        const int32_t first = tile.row + row;
        multiply_columns(values, scale_.values());
        if (row_factor_.load(given_.logit, given_.per_token_scale, first, values.rows)) {
            multiply_rows(values, row_factor_.blocks());
        }
        if (given_.bias != nullptr && !logit_.load(given_.logit, nullptr, first, values.rows)) {
            add_columns(values, bias_.values());
        } else if (given_.bias != nullptr) {
            const FloatTile product{product_.Get<float>(), values.rows, values.pitch};
            outer_product(product, bias_.values(), logit_.blocks());
            Add(values.values, values.values, product.values, values.size());
            vector_barrier();
        }
        store_.run(values, tile, row);
    }

  private:
    FinalizeArguments given_;
    MatmulTiling tiling_;
    TileStore<float> store_;
    TBuf<TPosition::VECCALC> product_;
    ColumnVector scale_, bias_;
    RowBlocks row_factor_, logit_;
};

// Sums of the products' columns [begin, end) by the vector cores: the part-th of `parts` shares of the rows.
__aicore__ inline void combine_columns(const FinalizeArguments& given, const FinalizeTiling& tiling,
                                       Address products, int32_t begin, int32_t end, int32_t part,
                                       int32_t parts) {
    TPipe pipe;
    GroupCursor groups(given.group_list, tiling.matmul.groups, tiling.matmul.rows);
    Group group;
    while (groups.next(group)) {
    }
    RowCombiner combiner(pipe, tiling, products, given.shared_input, given.row_index, given.y);
    combiner.run(groups.end(), static_cast<int32_t>(GetBlockIdx()),
                 static_cast<int32_t>(GetBlockNum()) * kVectorCores, begin, end, part, parts);
    PipeBarrier<PIPE_ALL>();
    pipe.Reset();
}

// When all vector cores have written their products.
__aicore__ inline void await_products() {
    PipeBarrier<PIPE_ALL>();
    SyncAll<true>();
}

// On the vector cores, after their part of the products.
__aicore__ inline void combine_products(const FinalizeArguments& given, const FinalizeTiling& tiling,
                                        Address products) {
    await_products();
    combine_columns(given, tiling, products, 0, tiling.matmul.n, 0, 1);
}

// The vector cores' part with int8 weights: a slab of columns is summed, share by share, between the tiles of
// the next one, while the cube cores go on.
class SlabEpilogue {
  public:
    __aicore__ inline SlabEpilogue(const FinalizeArguments& given, const FinalizeTiling& tiling,
                                   Address products)
        : given_(given),
          tiling_(tiling),
          products_(products),
          ring_(result_ring<int32_t>(given.workspace, tiling.matmul)),
          tiles_(given.group_list, tiling.matmul, cube_index(), static_cast<int32_t>(GetBlockNum()),
                 tiling.slab_columns) {}

    __aicore__ inline void run() {
        has_tile_ = tiles_.next(tile_);
        const int32_t n = tiling_.matmul.n, width = tiling_.slab_columns;
        for (int32_t slab = 0; slab < n; slab += width) {
            int32_t part = slab == 0 ? kParts : 0;
            while (has_tile_ && tile_.column < slab + width) {
                run_tiles(slab + width, slab == 0 ? kAllTiles : kTiles);
                if (part < kParts) combine(slab - width, part++);
            }
            while (part < kParts) combine(slab - width, part++);
            await_products();
        }
        const int32_t last = (n - 1) / width * width;
        combine_columns(given_, tiling_, products_, last, n, 0, 1);
    }

  private:
    static constexpr int32_t kParts = 4, kTiles = 4;  // of a slab; that are finished between two parts
    static constexpr int32_t kAllTiles = 0x7fffffff;

    __aicore__ inline void combine(int32_t slab, int32_t part) {
        combine_columns(given_, tiling_, products_, slab, slab + tiling_.slab_columns, part, kParts);
    }

    // Up to `most` tiles of columns below `end`.
    __aicore__ inline void run_tiles(int32_t end, int32_t most) {
        TPipe pipe;
        WeighedFinish finish(pipe, tiling_.matmul, given_, products_);
        DequantEpilogue<WeighedFinish> epilogue(pipe, tiling_.matmul, finish);
        for (int32_t i = 0; i < most && has_tile_ && tile_.column < end; ++i) {
            epilogue.run(tile_, ring_.receive(), own_rows(tile_.rows));
            ring_.release();
            has_tile_ = tiles_.next(tile_);
        }
        PipeBarrier<PIPE_ALL>();
        pipe.Reset();
    }

    FinalizeArguments given_;
    FinalizeTiling tiling_;
    Address products_;
    ResultRing ring_;
    TileCursor tiles_;
    Tile tile_;
    bool has_tile_ = false;
};

class FinalizeRouting {
  public:
    __aicore__ inline explicit FinalizeRouting(const FinalizeArguments& given)
        : given_(given), tiling_(read_struct<FinalizeTiling>(given.tiling)) {}

    // int8 weights.
    __aicore__ inline void run_int8() {
        const MatmulTiling& matmul = tiling_.matmul;
        const int64_t slot = static_cast<int64_t>(matmul.base_m) * matmul.base_n * sizeof(int32_t);
        const Address products = given_.workspace + GetBlockNum() * matmul.stages * slot;
        if ASCEND_IS_AIC {
            TPipe pipe;
            run_int8_cube(pipe, given_.matmul(), matmul, nullptr, tiling_.slab_columns);
        }
        if ASCEND_IS_AIV {
            SlabEpilogue(given_, tiling_, products).run();
        }
    }

    // int4 weights.
    __aicore__ inline void run_int4() {
        const MatmulTiling& matmul = tiling_.matmul;
        const Int4Workspace workspace(given_.workspace, matmul);
        const Int4Operands operands{given_.x, given_.weight, given_.scale, given_.group_list,
                                    given_.bias != nullptr};
        split_rows(given_.x, matmul, workspace, given_.offset != nullptr);
        if ASCEND_IS_AIC {
            TPipe pipe;
            run_int4_cube(pipe, matmul, operands, workspace);
        }
        if ASCEND_IS_AIV {
            {
                TPipe pipe;
                Int4Finish<float> finish(
                    pipe, matmul,
                    {given_.bias, given_.offset, workspace.row_sums, given_.per_token_scale, given_.logit},
                    workspace.end);
                run_int4_vector(pipe, matmul, operands, workspace, finish);
                pipe.Reset();
            }
            combine_products(given_, tiling_, workspace.end);
        }
    }

  private:
    FinalizeArguments given_;
    FinalizeTiling tiling_;
};

}  // namespace moe_jit::ascend
