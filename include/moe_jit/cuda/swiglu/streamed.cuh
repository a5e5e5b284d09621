// Dynamic quantisation of aligned rows, each read once: a thread estimates its results, and computes exactly
// those that may be the row's largest magnitude or may round differently.
#pragma once

#include "moe_jit/cuda/group_cursor.cuh"
#include "moe_jit/cuda/pdl.cuh"
#include "moe_jit/cuda/row_stream.cuh"
#include "moe_jit/cuda/swiglu/estimate.cuh"
#include "moe_jit/cuda/swiglu/row.cuh"

namespace moe_jit::cuda::swiglu {

// Results of a row for each thread; a row of up to kWarpResults for each lane is one warp's.
constexpr int kThreadResults = 16;
constexpr int kWarpResults = 24;
constexpr int kMaxThreads = 512;  // rows of this many fill the shared memory

template <int kResults>
constexpr int kMostThreads = kResults == kWarpResults ? 32 : kMaxThreads;

// Of a row.
using Maxima = RowMaxima<2>;
constexpr int kEstimate = 0, kExact = 1;

// The results of a row that a thread computes: kResults / kVector runs of kVector neighbours. Where a row has
// fewer, threads share the last run.
template <class X, GluMode kMode, int kResults>
class Results {
  public:
    static constexpr int kVector = 16 / sizeof(typename X::Storage);
    static constexpr int kRuns = kResults / kVector;
    using RowOfX = Row<X, kMode>;
    // Operands are used as they are stored, two to a word.
    static constexpr bool kPaired = kMode == GluMode::kSwiglu && !RowOfX::kIntegers;

    __device__ __forceinline__ Results(const RowOfX& row, int half) : row_(row), last_(half - kVector) {
#pragma unroll
        for (int r = 0; r < kRuns; ++r) begin_[r] = detail::keep(begin(r));
    }

    // When the row's parameters have changed.
    __device__ __forceinline__ void load_scales() {
#pragma unroll
        for (int r = 0; r < kRuns; ++r) scales_[r] = row_.template scales<kVector>(begin_[r]);
    }

    // The largest estimated magnitude; 0 if the estimates are worth nothing.
    __device__ __forceinline__ float estimate() {
        EstimatedProduct<!kPaired> even, odd;
        PairedOperands<X> operands;
        float squares = 0.0f;
#pragma unroll
        for (int r = 0; r < kRuns; ++r) {
            float activated[kVector], linear[kVector];
            row_.operands(begin_[r], scales_[r], activated, linear);
            if constexpr (kPaired) {
                const auto a = row_.template activated_words<kVector>(begin_[r]);
                const auto b = row_.template linear_words<kVector>(begin_[r]);
#pragma unroll
                for (int i = 0; i < kVector / 2; ++i) operands.add(a.value[i], b.value[i]);
            }
#pragma unroll
            for (int i = 0; i < kVector; ++i) {
                if (!kPaired) squares = fmaf(linear[i], linear[i], squares);
                value_[r * kVector + i] = row_.apply(activated[i], linear[i], i % 2 ? odd : even);
            }
        }
        float exponent = fmaxf(even.exponent, odd.exponent);
        if constexpr (kPaired) {
            exponent = operands.exponent();
            squares = operands.squares();
        }
        if (row_.smoothing()) smooth(squares);
        deviation_ = deviation(exponent, squares);
        float largest[4] = {};
#pragma unroll
        for (int i = 0; i < kResults; ++i) largest[i % 4] = fmaxf(largest[i % 4], fabsf(value_[i]));
        largest_ = fmaxf(fmaxf(largest[0], largest[1]), fmaxf(largest[2], largest[3]));
        return deviation_ < 1.0f ? largest_ : 0.0f;
    }

    // The largest exact magnitude of those that may be the row's, where an estimate as large as `seen`
    // exists.
    __device__ __forceinline__ float exact_maximum(float seen) const {
        const bool usable = seen >= kSmallestMaximum && seen <= kLargestMaximum && deviation_ < 1.0f;
        const float near = usable ? seen * kNearMaximum : -1.0f;
        if (largest_ < near || (!usable && is_zero())) return 0.0f;
        uint32_t candidates = 0;
#pragma unroll
        for (int i = 0; i < kResults; ++i) candidates |= uint32_t{!(fabsf(value_[i]) < near)} << i;
        float largest = 0.0f;
        for_each(candidates, [&](int, int column) { largest = fmaxf(largest, fabsf(row_.exact(column))); });
        return largest;
    }

    __device__ __forceinline__ void store(float amax, QuantRecipe recipe, int8_t* y) {
        uint32_t words[kResults / 4] = {};
        if (amax != 0.0f) quantise(amax, recipe, words);
#pragma unroll
        for (int r = 0; r < kRuns; ++r) {
            auto* target = reinterpret_cast<uint32_t*>(y + begin_[r]);
            if constexpr (kVector == 4) {
                *target = words[r];
            } else {
                *reinterpret_cast<uint2*>(target) = make_uint2(words[2 * r], words[2 * r + 1]);
            }
        }
    }

  private:
    __device__ __forceinline__ int begin(int run) const {
        return min((run * static_cast<int>(blockDim.x) + static_cast<int>(threadIdx.x)) * kVector, last_);
    }

    // All exact results are certainly zero. Rows of zeros are padding, and many.
    __device__ __forceinline__ bool is_zero() const {
        if (kMode != GluMode::kSwiglu) return false;
        bool zero = true;
#pragma unroll 1
        for (int r = 0; r < kRuns; ++r) {
            float activated[kVector], linear[kVector];
            row_.operands(begin(r), row_.template scales<kVector>(begin(r)), activated, linear);
#pragma unroll
            for (float value : linear) zero = zero && value == 0.0f;
        }
        return zero;
    }

    __device__ __forceinline__ void quantise(float amax, QuantRecipe recipe,
                                             uint32_t (&words)[kResults / 4]) {
        if (!(amax >= kSmallestMaximum && amax <= kLargestMaximum)) deviation_ = __int_as_float(0x7f800000);
        const float factor = approximate_reciprocal(amax * (1.0f / 127.0f));
        bool uncertain = false;
#pragma unroll
        for (int w = 0; w < kResults / 4; ++w) {
            const float* v = value_ + 4 * w;
            const RoundedEstimate q[4] = {{v[0], factor}, {v[1], factor}, {v[2], factor}, {v[3], factor}};
            words[w] = __byte_perm(__byte_perm(q[0].bits(), q[1].bits(), 0x0040),
                                   __byte_perm(q[2].bits(), q[3].bits(), 0x0040), 0x5410);
#pragma unroll
            for (const RoundedEstimate& estimate : q) uncertain |= estimate.uncertain(deviation_);
        }
        if (uncertain) correct(words, factor, recipe, amax);
    }

    // Calls visit(result, column) for the results of `mask`.
    template <class Visit>
    __device__ __forceinline__ void for_each(uint32_t mask, Visit visit) const {
#pragma unroll 1
        for (; mask != 0; mask &= mask - 1) {
            const int i = __ffs(mask) - 1;
            visit(i, begin(i / kVector) + i % kVector);
        }
    }

    __device__ __forceinline__ void smooth(float& squares) {
#pragma unroll
        for (int r = 0; r < kRuns; ++r) {
            const auto factor = load_pack<kVector>(row_.smoothing() + begin_[r]);
#pragma unroll
            for (int i = 0; i < kVector; ++i) {
                squares = fmaf(factor.value[i], factor.value[i], squares);
                value_[r * kVector + i] *= factor.value[i];
            }
        }
    }

    __device__ __forceinline__ void correct(uint32_t (&words)[kResults / 4], float factor, QuantRecipe recipe,
                                            float amax) const {
        uint32_t uncertain = 0;
#pragma unroll
        for (int i = 0; i < kResults; ++i) {
            uncertain |= uint32_t{RoundedEstimate(value_[i], factor).uncertain(deviation_)} << i;
        }
        const RowQuantizer quantizer = RowQuantizer::of(recipe, amax, 127.0f);
        for_each(uncertain, [&](int i, int column) {
            const uint32_t byte = static_cast<uint8_t>(round_to_int8(quantizer.apply(row_.exact(column))));
            const int shift = 8 * (i % 4);
            const uint32_t kept = ~(0xffu << shift), placed = byte << shift;
#pragma unroll
            for (int w = 0; w < kResults / 4; ++w) {
                const bool here = w == i / 4;
                words[w] = (words[w] & (here ? kept : ~0u)) | (here ? placed : 0u);
            }
        });
    }

    const RowOfX& row_;
    int last_;               // column of the last run
    uint32_t begin_[kRuns];  // begin()
    Scales<X, kVector> scales_[kRuns];
    float value_[kResults];
    float deviation_;
    float largest_;  // estimated magnitude
};

// Where a CTA begins.
struct StreamStart {
    RowShare<int> share;
    GroupStart<int> group;

    // By all lanes of a warp; `all` is the share if all rows are live.
    __device__ static StreamStart of(const GroupCounts& groups, int rows, const RowShare<int>& all) {
        StreamStart start{all, {}};
        start.group = find_group(groups, rows, [&](int live) {
            if (live != rows) start.share = RowShare<int>::of(live);
            return start.share.first;
        });
        return start;
    }
};

// A CTA's part of what all CTAs soon read.
__device__ __forceinline__ void prefetch_parameters(const DequantSwigluQuantArgs& args) {
    constexpr int kLine = 128;
    const int line = blockIdx.x * blockDim.x + threadIdx.x;
    const auto prefetch = [&](const void* table, int64_t bytes) {
        if (table == nullptr || int64_t{line} * kLine >= bytes) return;
        asm volatile(
            "prefetch.global.L2 [%0];" ::"l"(static_cast<const char*>(table) + int64_t{line} * kLine));
    };
    const int64_t groups = max(args.num_groups, 1);
    prefetch(args.group_index, args.num_groups * (args.groups_are_pairs ? 16 : 8));
    prefetch(args.weight_scale, groups * 2 * args.half * static_cast<int64_t>(sizeof(float)));
}

// Zeros for a CTA's share of the rows from `first` on.
__device__ __forceinline__ void clear_rows(const DequantSwigluQuantArgs& args, int64_t first) {
    if (first == args.rows) return;
    const auto share = RowShare<int64_t>::of(args.rows - first);
    for (int64_t row = first + share.first; row < first + share.last; ++row) {
        int8_t* y = args.y + row * args.half;
        const int words = args.half % 4 == 0 ? args.half / 4 : 0;
        for (int i = threadIdx.x; i < words; i += blockDim.x) reinterpret_cast<uint32_t*>(y)[i] = 0;
        for (int i = 4 * words + threadIdx.x; i < args.half; i += blockDim.x) y[i] = 0;
        if (threadIdx.x == 0) args.scale[row] = 0.0f;
    }
}

template <class X, GluMode kMode, int kResults>
__global__ void __launch_bounds__(kMostThreads<kResults>)
    streamed_kernel(const __grid_constant__ DequantSwigluQuantArgs args) {
    using Storage = typename X::Storage;
    extern __shared__ __align__(128) char slots[];
    __shared__ RowStream::Barriers barriers;
    __shared__ Maxima::Storage maxima;
    __shared__ StreamStart start;
    RowStream::init(barriers);
    Maxima::init(maxima);
    const GroupCounts groups{args.group_index, args.num_groups, args.groups_are_pairs};
    const int rows = static_cast<int>(args.rows);
    const uint32_t row_bytes = 2 * args.half * sizeof(Storage);
    const RowShare<int> all = RowShare<int>::of(rows);
    RowStream::prefetch(args.x, row_bytes, all);
    prefetch_parameters(args);
    Maxima maximum(maxima);
    Row<X, kMode> row(args);
    Results<X, kMode, kResults> results(row, args.half);
    __syncthreads();
    let_dependents_start();
    wait_for_predecessors();

    RowStream stream(barriers, slots, args.x, row_bytes, all);
    if (threadIdx.x < 32) {
        const auto found = StreamStart::of(groups, rows, all);
        if (threadIdx.x == 0) start = found;
    }
    __syncthreads();
    const RowShare<int> share = start.share;
    const int live_rows = start.group.live_rows;
    if (live_rows != rows) stream.restart(args.x, share);
    GroupCursor<int> group(groups, rows, start.group.end, start.group.group);
    const auto use_group = [&] {
        row.use_parameters(group.parameters());
        results.load_scales();
    };
    float next_scale = 1.0f;
    if (share.first < share.last) {
        next_scale = row.scale_of(share.first);
        use_group();
    }
    stream.fill();
    int8_t* y = args.y + int64_t{share.first} * args.half;
    for (int i = share.first; i < share.last; ++i, y += args.half) {
        if (group.seek(i)) use_group();
        row.use(reinterpret_cast<const Storage*>(stream.wait()), next_scale);
        next_scale = row.scale_of(min(i + 1, share.last - 1));
        const float seen = maximum.add_and_look<kEstimate>(results.estimate());
        maximum.add<kExact>(results.exact_maximum(seen));
        __syncthreads();
        stream.fetch();
        const float amax = maximum.take();
        results.store(amax, args.recipe, y);
        if (threadIdx.x == 0) args.scale[i] = RowQuantizer::of(args.recipe, amax, 127.0f).scale;
    }
    clear_rows(args, live_rows);
}

}  // namespace moe_jit::cuda::swiglu
