// The reduction of an output tile: L1 tiles are loaded one ahead, L0 tiles are double buffered. The sums are
// in parts of the columns, of which L0C holds two, so that one is stored while the other one is computed.
#pragma once

#include "moe_jit/ascend/cube/column_table.h"
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
        : n_(tiling.n), l1_k_(tiling.l1_k), l0_k_(tiling.l0_k) {
        constexpr int32_t kMemory = 128 * 1024, kBuffers = 2;
        const int32_t whole = tiling.base_m * tiling.base_n * static_cast<int32_t>(sizeof(Accumulator));
        width_ = kBuffers * whole <= kMemory ? tiling.base_n : tiling.base_n / kBuffers;
        pipe.InitBuffer(a1_, 2, bytes(tiling.base_m, l1_k_));
        pipe.InitBuffer(b1_, 2, bytes(tiling.base_n, l1_k_));
        pipe.InitBuffer(a2_, 2, bytes(tiling.base_m, l0_k_));
        pipe.InitBuffer(b2_, 2, bytes(width_, l0_k_));
        pipe.InitBuffer(sums_, kBuffers, tiling.base_m * width_ * static_cast<int32_t>(sizeof(Accumulator)));
        bias_.init(pipe, tiling.base_n);
    }

    // How many parts a tile has, and the i-th of them.
    __aicore__ inline int32_t num_parts(const Tile& tile) const { return ceil_div(tile.columns, width_); }
    __aicore__ inline Tile part(const Tile& tile, int32_t i) const {
        const int32_t first = i * width_;
        return {tile.expert, tile.row, tile.rows, tile.column + first, least(width_, tile.columns - first)};
    }

    // All of the reduction but the last L1 tile. weights: load(l1, expert, WeightTile) and the layout of what
    // it loads. The sums begin with `bias`, [experts, n], where it is not null.
    template <class Activations, class Weights>
    __aicore__ inline void begin(const Activations& activations, Weights& weights, const Tile& tile,
                                 const Depth& depth, Address bias) {
        const int64_t first = static_cast<int64_t>(tile.expert) * n_ + tile.column;
        const int64_t offset = first * static_cast<int64_t>(sizeof(Accumulator));
        begin_from(activations, weights, tile, depth, bias == nullptr ? nullptr : bias + offset);
    }

    // The same; `values` are those of the tile's columns.
    template <class Activations, class Weights>
    __aicore__ inline void begin_from(const Activations& activations, Weights& weights, const Tile& tile,
                                      const Depth& depth, Address values) {
        has_bias_ = values != nullptr;
        if (has_bias_) bias_.load(values, tile.columns, weights.padded_columns(tile.columns));
        const int32_t steps = ceil_div(depth.end - depth.begin, l1_k_);
        load(activations, weights, tile, depth, 0);
        is_first_ = true;
        for (int32_t i = 0; i < steps; ++i) {
            if (i + 1 < steps) load(activations, weights, tile, depth, i + 1);
            length_ = least(l1_k_, depth.end - depth.begin - i * l1_k_);
            left_ = a1_.template DeQue<Carrier>();
            right_ = b1_.template DeQue<Carrier>();
            if (i + 1 == steps) return;
            for (int32_t p = 0; p < num_parts(tile); ++p) multiply(weights, tile, p);
            is_first_ = false;
            free_operands();
        }
    }

    // The sums of one part after the other, for a store; release() gives them back.
    template <class Weights>
    __aicore__ inline LocalTensor<Accumulator> finish(const Weights& weights, const Tile& tile, int32_t i) {
        multiply(weights, tile, i);
        if (i + 1 == num_parts(tile)) {
            free_operands();
            if (has_bias_) bias_.release(table_);
        }
        sums_.EnQue(parts_[i]);
        return sums_.template DeQue<Accumulator>();
    }
    __aicore__ inline void release(LocalTensor<Accumulator>& sums) { sums_.FreeTensor(sums); }

  private:
    __aicore__ inline static int32_t bytes(int32_t rows, int32_t depth) {
        return rows * depth / Format::kPack * static_cast<int32_t>(sizeof(Carrier));
    }

    __aicore__ inline void free_operands() {
        a1_.FreeTensor(left_);
        b1_.FreeTensor(right_);
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

    // The L1 tile's products for one part.
    template <class Weights>
    __aicore__ inline void multiply(const Weights& weights, const Tile& tile, int32_t i) {
        if (is_first_) parts_[i] = sums_.template AllocTensor<Accumulator>();
        const ColumnRange columns{i * width_, weights.padded_columns(part(tile, i).columns),
                                  weights.padded_columns(tile.columns)};
        for (int32_t k = 0; k < length_; k += l0_k_) {
            const int32_t depth = least(l0_k_, length_ - k);
            LocalTensor<Carrier> a = a2_.template AllocTensor<Carrier>();
            load_activations<Format>(a, left_, tile.rows, k, depth);
            a2_.EnQue(a);
            LocalTensor<Carrier> b = b2_.template AllocTensor<Carrier>();
            if (weights.transposed()) {
                load_transposed_weights<Format>(b, right_, columns, k, depth);
            } else {
                load_weights<Format>(b, right_, columns, k, depth, round_up(length_, Format::kSquare));
            }
            b2_.EnQue(b);
            if (has_bias_ && is_first_ && i == 0 && k == 0) table_ = bias_.take();
            a = a2_.template DeQue<Carrier>();
            b = b2_.template DeQue<Carrier>();
            multiply_step(a, b, round_up(tile.rows, kFractal), columns, depth, parts_[i],
                          is_first_ && k == 0);
            a2_.FreeTensor(a);
            b2_.FreeTensor(b);
        }
    }

    // Rows are whole fractals: a product with one row would read L0A in another order.
    __aicore__ inline void multiply_step(const LocalTensor<Carrier>& a, const LocalTensor<Carrier>& b,
                                         int32_t rows, const ColumnRange& columns, int32_t depth,
                                         const LocalTensor<Accumulator>& sums, bool is_first) {
        constexpr int32_t kIndependent = 10;  // fractals that the unit works on at once
        MmadParams product;
        product.m = static_cast<uint16_t>(rows);
        product.n = static_cast<uint16_t>(columns.count);
        product.k = static_cast<uint16_t>(depth);
        product.cmatrixInitVal = is_first && !has_bias_;
        const LocalTensor<Operand> left = a.template ReinterpretCast<Operand>();
        const LocalTensor<Operand> right = b.template ReinterpretCast<Operand>();
        if (is_first && has_bias_) {
            product.cmatrixSource = true;
            Mmad(sums, left, right, table_[columns.first], product);
        } else {
            Mmad(sums, left, right, product);
        }
        if (rows / kFractal * (columns.count / kFractal) < kIndependent) PipeBarrier<PIPE_M>();
    }

    TQue<TPosition::A1, 2> a1_;
    TQue<TPosition::B1, 2> b1_;
    TQue<TPosition::A2, 1> a2_;
    TQue<TPosition::B2, 1> b2_;
    TQue<TPosition::CO1, 1> sums_;
    BiasTable<Accumulator> bias_;
    LocalTensor<Carrier> left_, right_;
    LocalTensor<Accumulator> parts_[2], table_;
    int32_t n_, l1_k_, l0_k_;
    int32_t width_ = 0, length_ = 0;
    bool has_bias_ = false, is_first_ = false;
};

}  // namespace moe_jit::ascend
