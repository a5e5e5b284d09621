// int4 weights as int8, so that one exact sum for each segment leaves the cube core instead of one for each
// piece of x: the vector cores convert tiles into a ring.
#pragma once

#include "moe_jit/ascend/cube/producer.h"
#include "moe_jit/ascend/vector/epilogue.h"

namespace moe_jit::ascend {

// A slot of the ring: [chunk_k, base_n] int8, then what the sums of each column begin with, int32 [base_n].
__aicore__ inline int32_t widened_bytes(const MatmulTiling& tiling) { return tiling.chunk_k * tiling.base_n; }
__aicore__ inline int32_t widened_slot_bytes(const MatmulTiling& tiling) {
    return widened_bytes(tiling) + tiling.base_n * static_cast<int32_t>(sizeof(int32_t));
}

// Converts a segment of a tile, in two halves. With `shifts`, sums begin with -8 times the sum of the column:
// the product of x - 8, which is no int8.
class WeightWidener {
  public:
    static constexpr int32_t kHalves = 2;

    __aicore__ inline WeightWidener(TPipe& pipe, const MatmulTiling& tiling, Address weight, bool shifts)
        : tiling_(tiling),
          depth_(tiling.chunk_k / kHalves),
          is_blocked_(tiling.weight_layout == static_cast<int32_t>(WeightLayout::kBlocked)),
          shifts_(shifts),
          weight_(weight) {
        pipe.InitBuffer(raw_, kHalves, depth_ * tiling.base_n / kPack);
        pipe.InitBuffer(out_, 2, kValues);
        pipe.InitBuffer(column_sums_, tiling.base_n * sizeof(half));
        pipe.InitBuffer(shift_, 1, tiling.base_n * sizeof(int32_t));
    }

    // For run(), which takes halves in the same order.
    __aicore__ inline void load(const Tile& tile, int32_t segment, int32_t i) {
        const LocalTensor<int8_t> raw = raw_.AllocTensor<int8_t>();
        const int32_t k = segment * tiling_.chunk_k + i * depth_;
        if (is_blocked_) {
            load_blocks(raw, tile, k);
        } else {
            const int64_t row = static_cast<int64_t>(tile.expert) * tiling_.k + k;
            load_rows(raw, global<int8_t>(weight_, (row * tiling_.n + tile.column) / kPack), depth_,
                      tile.columns / kPack, tiling_.n / kPack, pitch_of(tile.columns) / kPack);
        }
        raw_.EnQue(raw);
    }

    // `scratch` has room for kSlab values of fp32.
    __aicore__ inline void run(Address slot, const Tile& tile, int32_t i, const LocalTensor<float>& scratch) {
        const int32_t width = is_blocked_ ? kBlock : tile.columns;
        const LocalTensor<half> halves = scratch.template ReinterpretCast<half>(),
                                sums = column_sums_.Get<half>();
        LocalTensor<int8_t> raw = raw_.DeQue<int8_t>();
        if (shifts_ && i == 0) {
            Duplicate(sums, static_cast<half>(0.0f), tiling_.base_n);
            vector_barrier();
        }
        for (int32_t done = 0; done < tile.columns; done += width) {
            const int64_t target = static_cast<int64_t>(i) * depth_ * tiling_.base_n + done;
            convert(slot + target, raw[done * depth_ / kPack], least(width, tile.columns - done), halves,
                    sums[done]);
        }
        raw_.FreeTensor(raw);
        if (shifts_ && i + 1 == kHalves) store_shifts(slot + widened_bytes(tiling_), tile.columns);
    }

  private:
    static constexpr int32_t kValues = 4096, kPack = 2, kBlock = 64;
    static_assert(kValues <= 2 * kSlab, "of half in the scratch memory");

    // Whole blocks, of which a power of two fill a buffer.
    __aicore__ inline static int32_t pitch_of(int32_t columns) {
        int32_t pitch = kBlock;
        while (pitch < columns) pitch *= 2;
        return pitch;
    }

    __aicore__ inline void load_blocks(const LocalTensor<int8_t>& raw, const Tile& tile, int32_t k) {
        const int64_t rows = round_up(tiling_.k, kFractal);
        const int64_t block =
            static_cast<int64_t>(tile.expert) * ceil_div(tiling_.n, kBlock) + tile.column / kBlock;
        const int32_t bytes = depth_ * kBlockBytes;
        load_rows(raw, global<int8_t>(weight_, (block * rows + k) * kBlockBytes),
                  ceil_div(tile.columns, kBlock), bytes, rows * kBlockBytes, bytes);
    }

    // Some columns, whose sums grow; `target` is the first weight.
    __aicore__ inline void convert(Address target, const LocalTensor<int8_t>& raw, int32_t columns,
                                   const LocalTensor<half>& halves, const LocalTensor<half>& sums) {
        const int32_t pitch = pitch_of(columns), most = kValues / pitch;
        for (int32_t done = 0; done < depth_; done += most) {
            const int32_t rows = least(most, depth_ - done);
            const LocalTensor<int8_t> bytes = raw[done * pitch / kPack];
            Cast(halves, bytes.ReinterpretCast<int4b_t>(), RoundMode::CAST_NONE, rows * pitch);
            vector_barrier();
            store(global<int8_t>(target, static_cast<int64_t>(done) * tiling_.base_n), halves, rows, columns,
                  pitch);
            if (shifts_) add_up(sums, halves, rows, pitch);
        }
    }

    __aicore__ inline void store(const GlobalTensor<int8_t>& target, const LocalTensor<half>& halves,
                                 int32_t rows, int32_t columns, int32_t pitch) {
        LocalTensor<int8_t> out = out_.AllocTensor<int8_t>();
        Cast(out, halves, RoundMode::CAST_RINT, rows * pitch);
        vector_barrier();
        out_.EnQue(out);
        out = out_.DeQue<int8_t>();
        store_rows(target, out, rows, columns, tiling_.base_n, pitch);
        out_.FreeTensor(out);
    }

    // `rows`, a power of two, are lost. Exact: at most 256 weights of a column are added up.
    __aicore__ inline void add_up(const LocalTensor<half>& sums, const LocalTensor<half>& halves,
                                  int32_t rows, int32_t pitch) {
        for (int32_t left = rows / 2; left > 0; left /= 2) {
            Add(halves, halves, halves[left * pitch], left * pitch);
            vector_barrier();
        }
        Add(sums, sums, halves, pitch);
        vector_barrier();
    }

    __aicore__ inline void store_shifts(Address target, int32_t columns) {
        const LocalTensor<half> sums = column_sums_.Get<half>();
        LocalTensor<int32_t> shift = shift_.AllocTensor<int32_t>();
        Muls(sums, sums, static_cast<half>(-8.0f), tiling_.base_n);
        vector_barrier();
        Cast(shift, sums, RoundMode::CAST_RINT, tiling_.base_n);
        vector_barrier();
        shift_.EnQue(shift);
        shift = shift_.DeQue<int32_t>();
        store_vector(global<int32_t>(target), shift, columns);
        shift_.FreeTensor(shift);
    }

    MatmulTiling tiling_;
    int32_t depth_;  // of a half
    bool is_blocked_, shifts_;
    Address weight_;
    TQue<TPosition::VECIN, kHalves> raw_;
    TQue<TPosition::VECOUT, 1> out_, shift_;
    TBuf<TPosition::VECCALC> column_sums_;
};

// A WeightProducer of what the vector cores converted: a slot holds all depths of a segment.
class WidenedWeights {
  public:
    __aicore__ inline WidenedWeights(const WeightRing& ring, const MatmulTiling& tiling)
        : ring_(ring), pitch_(tiling.base_n), bytes_(widened_bytes(tiling)) {}

    __aicore__ inline bool transposed() const { return false; }
    __aicore__ inline int32_t padded_columns(int32_t columns) const {
        return round_up(columns, Int8::kSquare);
    }

    // Before load(): what the sums of the next segment begin with.
    __aicore__ inline Address receive() {
        slot_ = ring_.receive();
        return slot_ + bytes_;
    }
    __aicore__ inline void load(const LocalTensor<int8_t>& l1, int32_t, const WeightTile& tile) {
        load_blocked(l1, global<int8_t>(slot_), tile.depth, tile.columns, pitch_, tile.depth);
        ring_.release();
    }

  private:
    WeightRing ring_;
    int32_t pitch_, bytes_;
    Address slot_ = nullptr;
};

}  // namespace moe_jit::ascend
