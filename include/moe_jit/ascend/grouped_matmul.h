// npu_grouped_matmul: products whose operands go to the matrix unit as they are stored.
//
// The cube cores compute output tiles. Results that the matrix unit can convert go to y at once; the others
// pass through a ring in the workspace, from which the two vector cores of each cube core take them.
#pragma once

#include "moe_jit/ascend/cube/mainloop.h"
#include "moe_jit/ascend/cube/store.h"
#include "moe_jit/ascend/ring.h"
#include "moe_jit/ascend/vector/epilogue.h"

namespace moe_jit::ascend {

// What every entry of npu_grouped_matmul takes, and passes on as MatmulArguments.
#define MOE_JIT_MATMUL_PARAMETERS                                                                            \
    GM_ADDR x, GM_ADDR weight, GM_ADDR bias, GM_ADDR scale, GM_ADDR offset, GM_ADDR antiquant_scale,         \
        GM_ADDR antiquant_offset, GM_ADDR per_token_scale, GM_ADDR group_list, GM_ADDR y, GM_ADDR workspace, \
        GM_ADDR tiling
#define MOE_JIT_MATMUL_ARGUMENTS                                                                       \
    {x,          weight, bias,      scale, offset, antiquant_scale, antiquant_offset, per_token_scale, \
     group_list, y,      workspace, tiling}

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
        Mainloop<Format> product(pipe_, tiling_);
        RequantTable table;
        if constexpr (kRequantises) table.init(pipe_, tiling_.base_n);
        const ActivationProducer<Format> activations(given_.x, tiling_.k);
        WeightProducer<Format> weights(given_.weight, tiling_);
        ResultRing ring = result_ring<Out>(given_.workspace, tiling_);
        TileCursor tiles(given_.group_list, tiling_, cube_index(), static_cast<int32_t>(GetBlockNum()));
        Tile tile;
        while (tiles.next(tile)) {
            product.begin(activations, weights, tile, Depth{0, tiling_.k}, given_.bias);
            const Address slot = is_storable() ? nullptr : ring.acquire();
            for (int32_t i = 0; i < product.num_parts(tile); ++i) {
                LocalTensor<typename Format::Accumulator> sums = product.finish(weights, tile, i);
                store(product.part(tile, i), tile, sums, table, slot);
                product.release(sums);
            }
            if (!is_storable()) ring.publish();
        }
        if constexpr (kRequantises) table.finish();
        if (!is_storable()) ring.drain();
    }

    // `part` of `tile`, to y or to its place in the tile's slot.
    template <class Accumulator>
    __aicore__ inline void store(const Tile& part, const Tile& tile, const LocalTensor<Accumulator>& sums,
                                 RequantTable& table, Address slot) {
        LocalTensor<uint64_t> words;
        if constexpr (kRequantises) {
            const int64_t first = static_cast<int64_t>(part.expert) * tiling_.n + part.column;
            words = table.load(given_.scale, first, part.columns);
        }
        if (slot == nullptr) {
            const int64_t first = static_cast<int64_t>(part.row) * tiling_.n + part.column;
            store_sums(global<Out>(given_.y, first), sums, part.rows, part.columns, tiling_.n, words);
        } else {
            store_sums(global<Out>(slot, part.column - tile.column), sums, part.rows, part.columns,
                       tiling_.base_n, words);
        }
        if constexpr (kRequantises) table.release();
    }

    MatmulArguments given_;
    MatmulTiling tiling_;
    TPipe& pipe_;
};

// Finishes a tile and passes its int32 sums on.
template <class Format, class Weights>
__aicore__ inline void store_to_ring(Mainloop<Format>& product, const Weights& weights, const Tile& tile,
                                     ResultRing& ring, int32_t pitch) {
    const Address slot = ring.acquire();
    for (int32_t i = 0; i < product.num_parts(tile); ++i) {
        LocalTensor<int32_t> sums = product.finish(weights, tile, i);
        const Tile part = product.part(tile, i);
        store_sums(global<int32_t>(slot, part.column - tile.column), sums, part.rows, part.columns, pitch,
                   LocalTensor<uint64_t>());
        product.release(sums);
    }
    ring.publish();
}

// The cube core's part of an int8 product whose sums (with an int32 bias, if any) go to the vector cores.
__aicore__ inline void run_int8_cube(TPipe& pipe, const MatmulArguments& given, const MatmulTiling& tiling,
                                     Address bias, int32_t slab_columns = 0) {
    Mainloop<Int8> product(pipe, tiling);
    const ActivationProducer<Int8> activations(given.x, tiling.k);
    WeightProducer<Int8> weights(given.weight, tiling);
    ResultRing ring = result_ring<int32_t>(given.workspace, tiling);
    TileCursor tiles(given.group_list, tiling, cube_index(), static_cast<int32_t>(GetBlockNum()),
                     slab_columns);
    Tile tile;
    while (tiles.next(tile)) {
        product.begin(activations, weights, tile, Depth{0, tiling.k}, bias);
        store_to_ring(product, weights, tile, ring, tiling.base_n);
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
