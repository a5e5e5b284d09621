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

// On the vector cores, after their part of the products.
__aicore__ inline void combine_products(const FinalizeArguments& given, const FinalizeTiling& tiling,
                                        Address products) {
    PipeBarrier<PIPE_ALL>();
    SyncAll<true>();
    TPipe pipe;
    GroupCursor groups(given.group_list, tiling.matmul.groups, tiling.matmul.rows);
    Group group;
    while (groups.next(group)) {
    }
    RowCombiner combiner(pipe, tiling, products, given.shared_input, given.row_index, given.y);
    combiner.run(groups.end(), static_cast<int32_t>(GetBlockIdx()),
                 static_cast<int32_t>(GetBlockNum()) * kVectorCores);
}

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
            run_int8_cube(pipe, given_.matmul(), matmul, nullptr);
        }
        if ASCEND_IS_AIV {
            {
                TPipe pipe;
                WeighedFinish finish(pipe, matmul, given_, products);
                DequantEpilogue<WeighedFinish> epilogue(pipe, matmul, finish);
                run_epilogue(given_.matmul(), matmul, result_ring<int32_t>(given_.workspace, matmul),
                             epilogue);
                pipe.Reset();
            }
            combine_products(given_, tiling_, products);
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
