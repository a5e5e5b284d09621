// Quantisation of rows by their largest magnitudes. Aligned rows are read once, others twice.
#pragma once

#include "moe_jit/core/int4.h"
#include "moe_jit/core/row_quantizer.h"
#include "moe_jit/cuda/dynamic_quant.h"
#include "moe_jit/cuda/pack.cuh"
#include "moe_jit/cuda/pdl.cuh"
#include "moe_jit/cuda/row_stream.cuh"

namespace moe_jit::cuda::dynamic_quant {

constexpr int kVector = 8;  // neighbours that a thread quantises together: a word of int4
constexpr int kRuns = 2;
constexpr int kMaxThreads = 1024;
constexpr int kDirectThreads = 256;
constexpr auto kRecipe = QuantRecipe::kMultiplyByRatio;

// The smoothing factors of the current row.
class Smoothing {
  public:
    __device__ explicit Smoothing(const DynamicQuantArgs& args) : args_(args) {}

    // By all lanes of a warp: the first group that ends behind `row`, else the last one.
    __device__ void start(int64_t row) {
        const int lane = threadIdx.x % 32;
        for (; args_.group_ends && group_ + 1 < args_.num_groups; group_ += 32) {
            const int g = group_ + lane;
            const bool behind = g + 1 >= args_.num_groups || args_.group_ends[g] > row;
            const uint32_t found = __ballot_sync(~0u, behind);
            if (found == 0) continue;
            group_ += __ffs(found) - 1;
            break;
        }
    }

    __device__ __forceinline__ void seek(int64_t row) {
        while (args_.group_ends && group_ + 1 < args_.num_groups && row >= args_.group_ends[group_]) ++group_;
    }

    // Multiplies N neighbouring values.
    template <int N>
    __device__ __forceinline__ void apply(int column, float (&values)[N]) const {
        if (args_.smooth == nullptr) return;
        float factors[N];
        load_parameters(args_.smooth, args_.smooth_element,
                        static_cast<int64_t>(group_) * args_.width + column, factors);
#pragma unroll
        for (int i = 0; i < N; ++i) values[i] = fp32::mul(values[i], factors[i]);
    }

  private:
    const DynamicQuantArgs& args_;
    int group_ = 0;
};

// The same as round_to_int8 for each, the first in the low byte.
__device__ __forceinline__ uint32_t round_to_int8x4(const float* values) {
    uint32_t word = 0;
#pragma unroll
    for (int i = 2; i >= 0; i -= 2) {
        asm("cvt.pack.sat.s8.s32.b32 %0, %1, %2, %3;"
            : "=r"(word)
            : "r"(__float2int_rn(values[i + 1])), "r"(__float2int_rn(values[i])), "r"(word));
    }
    return word;
}

__device__ __forceinline__ uint32_t round_to_int4x8(const float* values) {
    uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
        word |= int4_bits(min(max(__float2int_rn(values[i]), -8), 7), i);
    }
    return word;
}

template <class X, bool kInt4>
__global__ void __launch_bounds__(kMaxThreads)
    streamed_kernel(const __grid_constant__ DynamicQuantArgs args) {
    using Storage = typename X::Storage;
    extern __shared__ __align__(128) char slots[];
    __shared__ RowStream::Barriers barriers;
    __shared__ RowMaxima<1>::Storage maxima;
    RowStream::init(barriers);
    RowMaxima<1>::init(maxima);
    __syncthreads();
    let_dependents_start();
    wait_for_predecessors();

    const auto share = RowShare<int>::of(static_cast<int>(args.rows));
    RowStream stream(barriers, slots, args.x, args.width * sizeof(Storage), share);
    RowMaxima<1> maximum(maxima);
    Smoothing smoothing(args);
    smoothing.start(share.first);
    stream.fill();
    for (int row = share.first; row < share.last; ++row) {
        smoothing.seek(row);
        const auto* x = reinterpret_cast<const Storage*>(stream.wait());
        float values[kRuns][kVector] = {};
        float largest = 0.0f;
#pragma unroll
        for (int r = 0; r < kRuns; ++r) {
            const int column = (r * blockDim.x + threadIdx.x) * kVector;
            if (column < args.width) {
                load_floats<X>(x + column, values[r]);
                smoothing.apply(column, values[r]);
            }
#pragma unroll
            for (float value : values[r]) largest = fmaxf(largest, fabsf(value));
        }
        maximum.add<0>(largest);
        __syncthreads();
        stream.fetch();
        const auto quantizer = RowQuantizer::of(kRecipe, maximum.take(), kInt4 ? 7.0f : 127.0f);
#pragma unroll
        for (int r = 0; r < kRuns; ++r) {
            const int64_t column = (r * blockDim.x + threadIdx.x) * kVector;
            if (column >= args.width) continue;
#pragma unroll
            for (float& value : values[r]) value = quantizer.apply(value);
            const int64_t vector = (int64_t{row} * args.width + column) / kVector;
            if constexpr (kInt4) {
                static_cast<uint32_t*>(args.y)[vector] = round_to_int4x8(values[r]);
            } else {
                static_cast<uint2*>(args.y)[vector] =
                    make_uint2(round_to_int8x4(values[r]), round_to_int8x4(values[r] + 4));
            }
        }
        if (threadIdx.x == 0) args.scale[row] = quantizer.scale;
    }
}

// Every width and alignment; int4 rows are whole words.
template <class X, bool kInt4>
__global__ void __launch_bounds__(kDirectThreads)
    direct_kernel(const __grid_constant__ DynamicQuantArgs args) {
    constexpr int kElements = kInt4 ? kVector : 1;  // of a step
    __shared__ RowMaxima<1>::Storage maxima;
    RowMaxima<1>::init(maxima);
    __syncthreads();
    let_dependents_start();
    wait_for_predecessors();

    const auto share = RowShare<int64_t>::of(args.rows);
    RowMaxima<1> maximum(maxima);
    Smoothing smoothing(args);
    smoothing.start(share.first);
    for (int64_t row = share.first; row < share.last; ++row) {
        smoothing.seek(row);
        const auto* x = static_cast<const typename X::Storage*>(args.x) + row * args.width;
        const auto value_at = [&](int i) {
            float value[1];
            load_floats<X>(x + i, value);
            smoothing.apply(i, value);
            return value[0];
        };
        float largest = 0.0f;
        for (int i = threadIdx.x; i < args.width; i += kDirectThreads) {
            largest = fmaxf(largest, fabsf(value_at(i)));
        }
        maximum.add<0>(largest);
        __syncthreads();
        const auto quantizer = RowQuantizer::of(kRecipe, maximum.take(), kInt4 ? 7.0f : 127.0f);
        for (int step = threadIdx.x; step < args.width / kElements; step += kDirectThreads) {
            const int64_t target = row * (args.width / kElements) + step;
            if constexpr (kInt4) {
                float values[kVector];
                for (int i = 0; i < kVector; ++i) {
                    values[i] = quantizer.apply(value_at(step * kVector + i));
                }
                static_cast<uint32_t*>(args.y)[target] = round_to_int4x8(values);
            } else {
                static_cast<int8_t*>(args.y)[target] = round_to_int8(quantizer.apply(value_at(step)));
            }
        }
        if (threadIdx.x == 0) args.scale[row] = quantizer.scale;
    }
}

}  // namespace moe_jit::cuda::dynamic_quant
