// 16-bit activations times integer weights: the vector cores convert weight tiles into a ring, from which
// their cube core multiplies them.
#pragma once

#include "moe_jit/ascend/antiquant/converter.h"
#include "moe_jit/ascend/grouped_matmul.h"

namespace moe_jit::ascend {

// A WeightProducer that takes converted tiles from the ring.
template <class T>
class ConvertedWeights {
  public:
    __aicore__ inline ConvertedWeights(const WeightRing& ring, const MatmulTiling& tiling)
        : ring_(ring),
          transposed_(tiling.weight_layout == static_cast<int32_t>(WeightLayout::kTransposed) ||
                      tiling.weight_layout == static_cast<int32_t>(WeightLayout::kBlockedTransposed)),
          pitch_(transposed_ ? tiling.chunk_k : tiling.base_n) {}

    __aicore__ inline bool transposed() const { return transposed_; }
    __aicore__ inline int32_t padded_columns(int32_t columns) const { return round_up(columns, kFractal); }

    __aicore__ inline void load(const LocalTensor<T>& l1, int32_t, const WeightTile& tile) {
        const int32_t rows = transposed_ ? tile.columns : tile.depth;
        const int32_t columns = transposed_ ? tile.depth : tile.columns;
        load_blocked(l1, global<T>(ring_.receive()), rows, columns, pitch_, round_up(rows, kFractal));
        ring_.release();
    }

  private:
    WeightRing ring_;
    bool transposed_;
    int32_t pitch_;
};

// Weight: Int8Weight or Int4Weight; T: half or bfloat16_t.
template <class Weight, class T>
class AntiquantMatmul {
  public:
    __aicore__ inline AntiquantMatmul(const MatmulArguments& given, TPipe& pipe)
        : given_(given), tiling_(read_struct<MatmulTiling>(given.tiling)), pipe_(pipe) {}

    __aicore__ inline void run() {
        if ASCEND_IS_AIC {
            run_cube();
        }
        if ASCEND_IS_AIV {
            clear_tail(pipe_, given_, tiling_, sizeof(T));
            run_vector();
        }
    }

  private:
    __aicore__ inline bool is_storable() const { return tiling_.n % kFractal == 0; }

    __aicore__ inline int32_t slot_bytes() const {
        return tiling_.chunk_k * tiling_.base_n * static_cast<int32_t>(sizeof(T));
    }
    __aicore__ inline WeightRing weight_ring() const {
        const int64_t first = static_cast<int64_t>(cube_index()) * tiling_.stages * slot_bytes();
        return WeightRing(given_.workspace + first, slot_bytes(), tiling_.stages);
    }
    __aicore__ inline ResultRing results() const {
        const int64_t weights = static_cast<int64_t>(GetBlockNum()) * tiling_.stages * slot_bytes();
        return result_ring<T>(given_.workspace + weights, tiling_);
    }

    __aicore__ inline TileCursor tiles() const {
        return TileCursor(given_.group_list, tiling_, cube_index(), static_cast<int32_t>(GetBlockNum()));
    }

    __aicore__ inline void run_cube() {
        Mainloop<Float16<T>> product(pipe_, tiling_);
        const ActivationProducer<Float16<T>> activations(given_.x, tiling_.k);
        ConvertedWeights<T> weights(weight_ring(), tiling_);
        ResultRing ring = results();
        TileCursor cursor = tiles();
        Tile tile;
        while (cursor.next(tile)) {
            product.begin(activations, weights, tile, Depth{0, tiling_.k}, given_.bias);
            const Address slot = is_storable() ? nullptr : ring.acquire();
            for (int32_t i = 0; i < product.num_parts(tile); ++i) {
                LocalTensor<float> sums = product.finish(weights, tile, i);
                store(product.part(tile, i), tile, sums, slot);
                product.release(sums);
            }
            if (!is_storable()) ring.publish();
        }
        if (!is_storable()) ring.drain();
    }

    __aicore__ inline void store(const Tile& part, const Tile& tile, const LocalTensor<float>& sums,
                                 Address slot) {
        const LocalTensor<uint64_t> none;
        if (slot == nullptr) {
            const int64_t first = static_cast<int64_t>(part.row) * tiling_.n + part.column;
            store_sums(global<T>(given_.y, first), sums, part.rows, part.columns, tiling_.n, none);
        } else {
            store_sums(global<T>(slot, part.column - tile.column), sums, part.rows, part.columns,
                       tiling_.base_n, none);
        }
    }

    // Results lie one tile behind the weights, so that neither side waits for the other in a circle.
    __aicore__ inline void run_vector() {
        WeightConverter<Weight, T> converter(pipe_, tiling_, given_.weight, given_.antiquant_scale,
                                             given_.antiquant_offset);
        CopyEpilogue<T> epilogue(pipe_, tiling_, given_.y);
        WeightRing weights = weight_ring();
        ResultRing ring = results();
        TileCursor cursor = tiles();
        Tile tile, last;
        bool has_last = false;
        while (cursor.next(tile)) {
            for (int32_t k = 0; k < tiling_.k; k += tiling_.chunk_k) {
                const WeightTile part{k, least(tiling_.chunk_k, tiling_.k - k), tile.column, tile.columns};
                converter.run(weights.acquire(), tile.expert, part);
                weights.publish();
            }
            if (has_last) copy_result(epilogue, ring, last);
            last = tile;
            has_last = !is_storable();
        }
        if (has_last) copy_result(epilogue, ring, last);
        weights.drain();
    }

    __aicore__ inline void copy_result(CopyEpilogue<T>& epilogue, ResultRing& ring, const Tile& tile) {
        epilogue.run(tile, ring.receive(), own_rows(tile.rows));
        ring.release();
    }

    MatmulArguments given_;
    MatmulTiling tiling_;
    TPipe& pipe_;
};

}  // namespace moe_jit::ascend
