// The reduction of an output tile: L1 tiles are loaded one ahead, L0 tiles are double buffered.
#pragma once

#include "moe_jit/ascend/cube/operands.h"
#include "moe_jit/ascend/cube/producer.h"
#include "moe_jit/ascend/schedule.h"

namespace moe_jit::ascend {

// A part of the reduction dimension.
struct Depth {
    int32_t begin, end;
};

template <class Format>
class Mainloop {
  public:
    using Carrier = typename Format::Carrier;
    using Operand = typename Format::Operand;
    using Accumulator = typename Format::Accumulator;

    __aicore__ inline Mainloop(TPipe& pipe, const MatmulTiling& tiling)
        : l1_k_(tiling.l1_k), l0_k_(tiling.l0_k) {
        pipe.InitBuffer(a1_, 2, bytes(tiling.base_m, l1_k_));
        pipe.InitBuffer(b1_, 2, bytes(tiling.base_n, l1_k_));
        pipe.InitBuffer(a2_, 2, bytes(tiling.base_m, l0_k_));
        pipe.InitBuffer(b2_, 2, bytes(tiling.base_n, l0_k_));
    }

    // `sums` receives rows x weights.padded_columns() sums of products; they begin with `bias` where it is
    // not null. weights: load(l1, expert, WeightTile) and the layout of what it loads.
    template <class Activations, class Weights>
    __aicore__ inline void run(const Activations& activations, Weights& weights, const Tile& tile,
                               const Depth& depth, const LocalTensor<Accumulator>& sums,
                               const LocalTensor<Accumulator>* bias) {
        const int32_t steps = ceil_div(depth.end - depth.begin, l1_k_);
        load(activations, weights, tile, depth, 0);
        for (int32_t i = 0; i < steps; ++i) {
            if (i + 1 < steps) load(activations, weights, tile, depth, i + 1);
            multiply(weights, tile, least(l1_k_, depth.end - depth.begin - i * l1_k_), sums, i == 0, bias);
        }
    }

  private:
    __aicore__ inline static int32_t bytes(int32_t rows, int32_t depth) {
        return rows * depth / Format::kPack * static_cast<int32_t>(sizeof(Carrier));
    }

    template <class Activations, class Weights>
    __aicore__ inline void load(const Activations& activations, Weights& weights, const Tile& tile,
                                const Depth& depth, int32_t step) {
        const int32_t k = depth.begin + step * l1_k_, length = least(l1_k_, depth.end - k);
        const LocalTensor<Carrier> a = a1_.template AllocTensor<Carrier>();
        activations.load(a, tile.row, tile.rows, k, length);
        a1_.EnQue(a);
        const LocalTensor<Carrier> b = b1_.template AllocTensor<Carrier>();
        weights.load(b, tile.expert, WeightTile{k, length, tile.column, tile.columns});
        b1_.EnQue(b);
    }

    template <class Weights>
    __aicore__ inline void multiply(const Weights& weights, const Tile& tile, int32_t length,
                                    const LocalTensor<Accumulator>& sums, bool is_first,
                                    const LocalTensor<Accumulator>* bias) {
        LocalTensor<Carrier> a1 = a1_.template DeQue<Carrier>(), b1 = b1_.template DeQue<Carrier>();
        const int32_t columns = weights.padded_columns(tile.columns);
        for (int32_t k = 0; k < length; k += l0_k_) {
            const int32_t depth = least(l0_k_, length - k);
            LocalTensor<Carrier> a2 = a2_.template AllocTensor<Carrier>();
            load_activations<Format>(a2, a1, tile.rows, k, depth);
            a2_.EnQue(a2);
            LocalTensor<Carrier> b2 = b2_.template AllocTensor<Carrier>();
            if (weights.transposed()) {
                load_transposed_weights<Format>(b2, b1, columns, k, depth);
            } else {
                load_weights<Format>(b2, b1, columns, k, depth, round_up(length, Format::kSquare));
            }
            b2_.EnQue(b2);
            a2 = a2_.template DeQue<Carrier>();
            b2 = b2_.template DeQue<Carrier>();
            multiply_step(a2, b2, round_up(tile.rows, kFractal), columns, depth, sums, is_first && k == 0,
                          bias);
            a2_.FreeTensor(a2);
            b2_.FreeTensor(b2);
        }
        a1_.FreeTensor(a1);
        b1_.FreeTensor(b1);
    }

    // Rows are whole fractals: a product with one row would read L0A in another order.
    __aicore__ inline void multiply_step(const LocalTensor<Carrier>& a, const LocalTensor<Carrier>& b,
                                         int32_t rows, int32_t columns, int32_t depth,
                                         const LocalTensor<Accumulator>& sums, bool is_first,
                                         const LocalTensor<Accumulator>* bias) {
        constexpr int32_t kIndependent = 10;  // fractals that the unit works on at once
        MmadParams product;
        product.m = static_cast<uint16_t>(rows);
        product.n = static_cast<uint16_t>(columns);
        product.k = static_cast<uint16_t>(depth);
        product.cmatrixInitVal = is_first && bias == nullptr;
        const LocalTensor<Operand> left = a.template ReinterpretCast<Operand>();
        const LocalTensor<Operand> right = b.template ReinterpretCast<Operand>();
        if (is_first && bias != nullptr) {
            product.cmatrixSource = true;
            Mmad(sums, left, right, *bias, product);
        } else {
            Mmad(sums, left, right, product);
        }
        if (rows / kFractal * (columns / kFractal) < kIndependent) PipeBarrier<PIPE_M>();
    }

    TQue<TPosition::A1, 2> a1_;
    TQue<TPosition::B1, 2> b1_;
    TQue<TPosition::A2, 1> a2_;
    TQue<TPosition::B2, 1> b2_;
    int32_t l1_k_, l0_k_;
};

}  // namespace moe_jit::ascend
