// Rows of 16-bit activations as eight int4 rows each, for products with int4 weights as they are stored:
// x = unit * sum of digit[p] * 16^(7 - p), with digits in [-8, 7], the most significant one first. The unit
// is a power of two below 2^-28 of the row's largest magnitude, so that 30 bits of that are kept: more than
// an fp32 sum keeps. A row with an infinity or a NaN has the unit NaN.
#pragma once

#include "moe_jit/ascend/tiling.h"
#include "moe_jit/ascend/vector/alternate.h"
#include "moe_jit/ascend/vector/transfer.h"

namespace moe_jit::ascend {

constexpr int32_t kDigits = 8;

// T is half or bfloat16_t.
template <class T>
class DigitSplitter {
  public:
    __aicore__ inline DigitSplitter(TPipe& pipe, Address x, const MatmulTiling& tiling)
        : x_(x), rows_(tiling.rows), k_(tiling.k), segments_(tiling.segments) {
        pipe.InitBuffer(x_queue_, 2, kColumns * sizeof(T));
        pipe.InitBuffer(digit_queue_, 2, kColumns / 2);
        pipe.InitBuffer(value_queue_, 2, kBlockBytes);
        pipe.InitBuffer(wide_, kColumns * sizeof(float));
        pipe.InitBuffer(scratch_, kColumns * sizeof(float));
        pipe.InitBuffer(halves_, 2 * kColumns * sizeof(int16_t));
        pipe.InitBuffer(nibbles_, kColumns * sizeof(int16_t));
        pipe.InitBuffer(work_, kColumns / kLanes * sizeof(float));
        pipe.InitBuffer(lanes_, kNumLanes * kBlockBytes);
        pipe.InitBuffer(factor_, kLanes * kBlockBytes);
        Duplicate(lanes(kMask).template ReinterpretCast<int32_t>(), kExponent, kLanes);
        vector_barrier();
    }

    // Rows are dealt out to the vector cores. `digits` receives [rows * kDigits, k / 2] bytes, `units` fp32
    // [rows], and `sums`, which may be null, fp32 [segments, rows]: the segment's sum of x in units.
    __aicore__ inline void run(Address digits, Address units, Address sums, int32_t core, int32_t num_cores) {
        const int32_t segments = sums == nullptr ? 1 : segments_, length = k_ / segments;
        for (int32_t row = core; row < rows_; row += num_cores) {
            measure(row);
            store_value(units, row, kUnit);
            for (int32_t segment = 0; segment < segments; ++segment) {
                Duplicate(lanes(kTotal), 0.0f, kLanes);
                vector_barrier();
                for (int32_t done = 0; done < length; done += kColumns) {
                    const int32_t column = segment * length + done, count = least(kColumns, length - done);
                    load(row, column, count);
                    multiply(count);
                    if (sums != nullptr) add_up(wide_.Get<float>(), count, lanes(kTotal));
                    split(digits, row, column, count);
                }
                if (sums != nullptr) store_value(sums, static_cast<int64_t>(segment) * rows_ + row, kTotal);
            }
        }
    }

  private:
    static constexpr int32_t kColumns = 4096;
    static constexpr int32_t kLanes = kBlockBytes / sizeof(float), kVector = 64;
    static constexpr int32_t kExponent = 0x7f800000;
    // Blocks of single values: only the first one of each is used.
    static constexpr int32_t kAmax = 0, kBad = 1, kPart = 2, kScale = 3, kUnit = 4, kMask = 5, kTotal = 6,
                             kNumLanes = 7;

    __aicore__ inline LocalTensor<float> lanes(int32_t i) { return lanes_.Get<float>()[i * kLanes]; }

    // In fp32.
    __aicore__ inline void load(int32_t row, int32_t column, int32_t count) {
        LocalTensor<T> x = x_queue_.template AllocTensor<T>();
        load_vector(x, global<T>(x_, static_cast<int64_t>(row) * k_ + column), count);
        x_queue_.EnQue(x);
        x = x_queue_.template DeQue<T>();
        Cast(wide_.Get<float>(), x, RoundMode::CAST_NONE, count);
        vector_barrier();
        x_queue_.FreeTensor(x);
    }

    __aicore__ inline void add_up(const LocalTensor<float>& values, int32_t count,
                                  const LocalTensor<float>& total) {
        ReduceSum(lanes(kPart), values, work_.Get<float>(), count);
        vector_barrier();
        Add(total, total, lanes(kPart), kLanes);
        vector_barrier();
    }

    // The row's unit, and its reciprocal as blocks.
    __aicore__ inline void measure(int32_t row) {
        const LocalTensor<float> wide = wide_.Get<float>(), scratch = scratch_.Get<float>();
        Duplicate(lanes(kAmax), kSmallest, kMask * kLanes);
        vector_barrier();
        Duplicate(lanes(kBad), 0.0f, kLanes);
        vector_barrier();
        for (int32_t column = 0; column < k_; column += kColumns) {
            const int32_t count = least(kColumns, k_ - column);
            load(row, column, count);
            Abs(scratch, wide, count);
            vector_barrier();
            Muls(wide, wide, 0.0f, count);  // NaN where x is not finite
            vector_barrier();
            ReduceMax(lanes(kPart), scratch, work_.Get<float>(), count);
            vector_barrier();
            Max(lanes(kAmax), lanes(kAmax), lanes(kPart), kLanes);
            vector_barrier();
            add_up(wide, count, lanes(kBad));
        }
        find_unit();
    }

    // With 2^e <= amax < 2^(e + 1): unit = 2^(e - 29) and scale = 2^(29 - e), by their bits. A quarter of
    // amax has an exponent whose negative is one, too.
    __aicore__ inline void find_unit() {
        constexpr int32_t kOneTwice = 254 << 23, kHalves = 2 * kLanes;
        const LocalTensor<float> amax = lanes(kAmax), scale = lanes(kScale), unit = lanes(kUnit);
        const LocalTensor<int32_t> power = amax.template ReinterpretCast<int32_t>(),
                                   inverse = scale.template ReinterpretCast<int32_t>();
        Muls(amax, amax, 0.25f, kLanes);
        vector_barrier();
        And(amax.template ReinterpretCast<uint16_t>(), amax.template ReinterpretCast<uint16_t>(),
            lanes(kMask).template ReinterpretCast<uint16_t>(), kHalves);
        vector_barrier();
        Muls(unit, amax, 0x1p-27f, kLanes);
        Muls(inverse, power, -1, kLanes);
        vector_barrier();
        Adds(inverse, inverse, kOneTwice, kLanes);
        Add(unit, unit, lanes(kBad), kLanes);
        vector_barrier();
        Muls(scale, scale, 0x1p27f, kLanes);
        vector_barrier();
        Add(scale, scale, lanes(kBad), kLanes);
        vector_barrier();
        Brcb(factor_.Get<float>(), scale, 1, {1, kLanes});
        vector_barrier();
    }

    // The single value that lane block `block` begins with.
    __aicore__ inline void store_value(Address table, int64_t at, int32_t block) {
        LocalTensor<float> value = value_queue_.AllocTensor<float>();
        Muls(value, lanes(block), 1.0f, kLanes);
        vector_barrier();
        value_queue_.EnQue(value);
        value = value_queue_.DeQue<float>();
        store_vector(global<float>(table, at), value, 1);
        value_queue_.FreeTensor(value);
    }

    // `count` is a multiple of kVector, as every segment's length.
    __aicore__ inline void multiply(int32_t count) {
        const LocalTensor<float> wide = wide_.Get<float>();
        const BinaryRepeatParams same_factor(1, 1, 0, kLanes, kLanes, 0);
        const uint64_t mask = kVector;
        Mul(wide, wide, factor_.Get<float>(), mask, static_cast<uint8_t>(count / kVector), same_factor);
        vector_barrier();
    }

    __aicore__ inline void split(Address digits, int32_t row, int32_t column, int32_t count) {
        // Added to the integer, it makes all digits but the first nibbles of eight more.
        constexpr int32_t kEights = 0x08888888;
        const LocalTensor<int32_t> whole = scratch_.Get<int32_t>();
        const LocalTensor<int16_t> low = halves_.Get<int16_t>(), high = low[kColumns];
        Cast(whole, wide_.Get<float>(), RoundMode::CAST_RINT, count);
        vector_barrier();
        Adds(whole, whole, kEights, count);
        vector_barrier();
        gather_alternate<false>(low, whole.ReinterpretCast<int16_t>(), count);
        gather_alternate<true>(high, whole.ReinterpretCast<int16_t>(), count);
        vector_barrier();
        for (int32_t i = 0; i < kDigits; ++i) {
            LocalTensor<int8_t> packed = digit_queue_.AllocTensor<int8_t>();
            convert(packed.ReinterpretCast<int4b_t>(), i < kDigits / 2 ? high : low, i, count);
            digit_queue_.EnQue(packed);
            packed = digit_queue_.DeQue<int8_t>();
            const int64_t first = (static_cast<int64_t>(row) * kDigits + i) * k_ + column;
            store_vector(global<int8_t>(digits, first / 2), packed, count / 2);
            digit_queue_.FreeTensor(packed);
        }
    }

    // The i-th nibble of words of 16 bits, the highest one first.
    __aicore__ inline void convert(const LocalTensor<int4b_t>& out, const LocalTensor<int16_t>& words,
                                   int32_t i, int32_t count) {
        constexpr int32_t kNibble = 4, kRest = 12;
        const LocalTensor<int16_t> nibbles = nibbles_.Get<int16_t>();
        const LocalTensor<uint16_t> bits = nibbles.ReinterpretCast<uint16_t>();
        const LocalTensor<half> values = nibbles.ReinterpretCast<half>();
        if (i == 0) {
            ShiftRight(nibbles, words, static_cast<int16_t>(kRest), count);
            vector_barrier();
        } else {
            const int32_t above = i % (kDigits / 2) * kNibble;
            ShiftLeft(bits, words.ReinterpretCast<uint16_t>(), static_cast<uint16_t>(above), count);
            vector_barrier();
            ShiftRight(bits, bits, static_cast<uint16_t>(kRest), count);
            vector_barrier();
        }
        Cast(values, nibbles, RoundMode::CAST_RINT, count);
        vector_barrier();
        if (i > 0) {
            Adds(values, values, static_cast<half>(-8.0f), count);
            vector_barrier();
        }
        Cast(out, values, RoundMode::CAST_RINT, count);
        vector_barrier();
    }

    // Smaller rows lose digits: units end at 2^-119.
    static constexpr float kSmallest = 0x1p-90f;

    Address x_;
    int32_t rows_, k_, segments_;
    TQue<TPosition::VECIN, 1> x_queue_;
    TQue<TPosition::VECOUT, 1> digit_queue_, value_queue_;
    TBuf<TPosition::VECCALC> wide_, scratch_, halves_, nibbles_, work_, lanes_, factor_;
};

}  // namespace moe_jit::ascend
