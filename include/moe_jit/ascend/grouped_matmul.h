// npu_grouped_matmul: products whose operands go to the matrix unit as they are stored.
//
// The cube cores compute output tiles. Results that the matrix unit can convert go to y at once; the others
// pass through a ring in the workspace, from which the two vector cores of each cube core take them.
#pragma once

#include "moe_jit/ascend/cube/store.h"
#include "moe_jit/ascend/cube/tile_product.h"
#include "moe_jit/ascend/ring.h"
#include "moe_jit/ascend/vector/epilogue.h"

namespace moe_jit::ascend {

struct MatmulArguments {
    Address x, weight, bias, scale, offset, antiquant_scale, antiquant_offset, per_token_scale, group_list, y,
        workspace, tiling;
};

// The cube core's number; vector cores have that of their cube core.
__aicore__ inline int32_t cube_index() {
    const int32_t index = static_cast<int32_t>(GetBlockIdx());
    if ASCEND_IS_AIV
        return index / kVectorCores;
    return index;
}

template <class Element>
__aicore__ inline ResultRing result_ring(Address workspace, const MatmulTiling& tiling) {
    const int32_t slot = tiling.base_m * tiling.base_n * static_cast<int32_t>(sizeof(Element));
    const int64_t first = static_cast<int64_t>(cube_index()) * tiling.stages * slot;
    return ResultRing(workspace + first, slot, tiling.stages);
}

// Zeros to the rows of no group, by the vector cores.
__aicore__ inline void clear_tail(TPipe& pipe, const MatmulArguments& given, const MatmulTiling& tiling,
                                  int32_t element_bytes) {
    if (!tiling.zero_tail) return;
    GroupListTiling all = tiling.groups;
    all.only_group = -1;
    GroupCursor groups(given.group_list, all, tiling.rows);
    Group group;
    while (groups.next(group)) {
    }
    const int64_t row_bytes = static_cast<int64_t>(tiling.n) * element_bytes;
    ZeroFill zeros(pipe, static_cast<int32_t>(GetBlockIdx()),
                   static_cast<int32_t>(GetBlockNum()) * kVectorCores);
    zeros.fill(given.y, groups.end() * row_bytes, tiling.rows * row_bytes);
}

// epilogue.run(tile, slot, rows) for each tile of this core's ring.
template <class Epilogue>
__aicore__ inline void run_epilogue(const MatmulArguments& given, const MatmulTiling& tiling, ResultRing ring,
                                    Epilogue& epilogue) {
    TileCursor tiles(given.group_list, tiling, cube_index(), static_cast<int32_t>(GetBlockNum()));
    Tile tile;
    while (tiles.next(tile)) {
        epilogue.run(tile, ring.receive(), own_rows(tile.rows));
        ring.release();
    }
}

// y = x @ w (+ bias in the accumulator's format), converted by the store. Out: int32_t or int8_t (then
// `scale` holds requantisation words) of Int8; half or bfloat16_t of Float16.
template <class Format, class Out>
class DirectMatmul {
  public:
    __aicore__ inline DirectMatmul(const MatmulArguments& given, TPipe& pipe)
        : given_(given), tiling_(read_struct<MatmulTiling>(given.tiling)), pipe_(pipe) {}

    __aicore__ inline void run() {
        if ASCEND_IS_AIC {
            run_cube();
        }
        if ASCEND_IS_AIV {
            clear_tail(pipe_, given_, tiling_, sizeof(Out));
            if (is_storable()) return;
            CopyEpilogue<Out> epilogue(pipe_, tiling_, given_.y);
            run_epilogue(given_, tiling_, result_ring<Out>(given_.workspace, tiling_), epilogue);
        }
    }

  private:
    static constexpr bool kRequantises = sizeof(Out) == 1;

    // The cube core stores whole fractals.
    __aicore__ inline bool is_storable() const { return tiling_.n % kFractal == 0; }

    __aicore__ inline void run_cube() {
        TileProduct<Format> product(pipe_, tiling_);
        RequantTable table;
        if constexpr (kRequantises) table.init(pipe_, tiling_.base_n);
        const ActivationProducer<Format> activations(given_.x, tiling_.k);
        WeightProducer<Format> weights(given_.weight, tiling_);
        ResultRing ring = result_ring<Out>(given_.workspace, tiling_);
        TileCursor tiles(given_.group_list, tiling_, cube_index(), static_cast<int32_t>(GetBlockNum()));
        Tile tile;
        while (tiles.next(tile)) {
            LocalTensor<typename Format::Accumulator> sums =
                product.run(activations, weights, tile, Depth{0, tiling_.k}, given_.bias);
            store(tile, sums, table, ring);
            product.release(sums);
        }
        if constexpr (kRequantises) table.finish();
        if (!is_storable()) ring.drain();
    }

    template <class Accumulator>
    __aicore__ inline void store(const Tile& tile, const LocalTensor<Accumulator>& sums, RequantTable& table,
                                 ResultRing& ring) {
        LocalTensor<uint64_t> words;
        if constexpr (kRequantises) {
            const int64_t first = static_cast<int64_t>(tile.expert) * tiling_.n + tile.column;
            words = table.load(given_.scale, first, tile.columns);
        }
        if (is_storable()) {
            const int64_t first = static_cast<int64_t>(tile.row) * tiling_.n + tile.column;
            store_sums<Out>(given_.y + first * static_cast<int64_t>(sizeof(Out)), sums, tile.rows,
                            tile.columns, tiling_.n, words);
        } else {
            store_sums<Out>(ring.acquire(), sums, tile.rows, tile.columns, tiling_.base_n, words);
            ring.publish();
        }
        if constexpr (kRequantises) table.release();
    }

    MatmulArguments given_;
    MatmulTiling tiling_;
    TPipe& pipe_;
};

// The cube core's part of an int8 product whose sums (with an int32 bias, if any) go to the vector cores.
__aicore__ inline void run_int8_cube(TPipe& pipe, const MatmulArguments& given, const MatmulTiling& tiling,
                                     Address bias) {
    TileProduct<Int8> product(pipe, tiling);
    const ActivationProducer<Int8> activations(given.x, tiling.k);
    WeightProducer<Int8> weights(given.weight, tiling);
    ResultRing ring = result_ring<int32_t>(given.workspace, tiling);
    TileCursor tiles(given.group_list, tiling, cube_index(), static_cast<int32_t>(GetBlockNum()));
    Tile tile;
    while (tiles.next(tile)) {
        LocalTensor<int32_t> sums = product.run(activations, weights, tile, Depth{0, tiling.k}, bias);
        store_sums<int32_t>(ring.acquire(), sums, tile.rows, tile.columns, tiling.base_n,
                            LocalTensor<uint64_t>());
        ring.publish();
        product.release(sums);
    }
    ring.drain();
}

// int8 x int8 to half or bfloat16_t.
template <class Out>
class DequantMatmul {
  public:
    __aicore__ inline DequantMatmul(const MatmulArguments& given, TPipe& pipe)
        : given_(given), tiling_(read_struct<MatmulTiling>(given.tiling)), pipe_(pipe) {}

    __aicore__ inline void run() {
        if ASCEND_IS_AIC {
            run_int8_cube(pipe_, given_, tiling_, tiling_.bias_is_bf16 ? nullptr : given_.bias);
        }
        if ASCEND_IS_AIV {
            clear_tail(pipe_, given_, tiling_, sizeof(Out));
            Address bias = tiling_.bias_is_bf16 ? given_.bias : nullptr;
            DequantFinish<Out> finish(pipe_, tiling_, {given_.scale, given_.per_token_scale, bias}, given_.y);
            DequantEpilogue<DequantFinish<Out>> epilogue(pipe_, tiling_, finish);
            run_epilogue(given_, tiling_, result_ring<int32_t>(given_.workspace, tiling_), epilogue);
        }
    }

  private:
    MatmulArguments given_;
    MatmulTiling tiling_;
    TPipe& pipe_;
};

}  // namespace moe_jit::ascend
