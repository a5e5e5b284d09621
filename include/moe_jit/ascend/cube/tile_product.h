// One output tile on the cube core, from global memory to the sums that a store takes.
#pragma once

#include "moe_jit/ascend/cube/column_table.h"
#include "moe_jit/ascend/cube/mainloop.h"

namespace moe_jit::ascend {

template <class Format>
class TileProduct {
  public:
    using Accumulator = typename Format::Accumulator;

    __aicore__ inline TileProduct(TPipe& pipe, const MatmulTiling& tiling)
        : mainloop_(pipe, tiling), n_(tiling.n) {
        constexpr int32_t kMemory = 128 * 1024;
        const int32_t bytes = tiling.base_m * tiling.base_n * static_cast<int32_t>(sizeof(Accumulator));
        pipe.InitBuffer(sums_, 2 * bytes <= kMemory ? 2 : 1, bytes);
        bias_.init(pipe, tiling.base_n);
    }

    // The tile's sums, for a store; `bias`, [experts, n], may be null. release() gives them back.
    template <class Activations, class Weights>
    __aicore__ inline LocalTensor<Accumulator> run(const Activations& activations, Weights& weights,
                                                   const Tile& tile, const Depth& depth, Address bias) {
        LocalTensor<Accumulator> sums = sums_.template AllocTensor<Accumulator>();
        if (bias == nullptr) {
            mainloop_.run(activations, weights, tile, depth, sums, nullptr);
        } else {
            const int64_t first = static_cast<int64_t>(tile.expert) * n_ + tile.column;
            LocalTensor<Accumulator> table =
                bias_.load(bias, first, tile.columns, weights.padded_columns(tile.columns));
            mainloop_.run(activations, weights, tile, depth, sums, &table);
            bias_.release(table);
        }
        sums_.EnQue(sums);
        return sums_.template DeQue<Accumulator>();
    }
    __aicore__ inline void release(LocalTensor<Accumulator>& sums) { sums_.FreeTensor(sums); }

  private:
    Mainloop<Format> mainloop_;
    TQue<TPosition::CO1, 1> sums_;
    BiasTable<Accumulator> bias_;
    int32_t n_;
};

}  // namespace moe_jit::ascend
