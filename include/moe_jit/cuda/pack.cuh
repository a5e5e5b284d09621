// Neighbouring elements in one load.
#pragma once

#include <cstdint>

#include "moe_jit/core/element.h"
#include "moe_jit/core/half.h"

namespace moe_jit::cuda {

template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
    T value[N];
};

// N elements at an address that Pack is aligned to.
template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* source) {
    return *reinterpret_cast<const Pack<T, N>*>(source);
}

__device__ __forceinline__ float high_half(Bf16, uint32_t word) { return bits_float(word & 0xffff0000u); }
__device__ __forceinline__ float high_half(F16, uint32_t word) {
    return half_to_float(static_cast<uint16_t>(word >> 16));
}

// N neighbours of a floating-point format as fp32.
template <class Format, int N>
__device__ __forceinline__ void load_floats(const typename Format::Storage* source, float (&out)[N]) {
    if constexpr (N == 1) {
        out[0] = Format::to_float(*source);
    } else if constexpr (sizeof(*source) == 4) {
        const auto pack = load_pack<N>(source);
#pragma unroll
        for (int i = 0; i < N; ++i) out[i] = pack.value[i];
    } else {
        const auto pack = load_pack<N / 2>(reinterpret_cast<const uint32_t*>(source));
#pragma unroll
        for (int i = 0; i < N / 2; ++i) {
            out[2 * i] = Format::to_float(static_cast<uint16_t>(pack.value[i]));
            out[2 * i + 1] = high_half(Format{}, pack.value[i]);
        }
    }
}

// The same from element `at` of a table whose format is known at run time.
template <int N>
__device__ __forceinline__ void load_parameters(const void* table, Element element, int64_t at,
                                                float (&out)[N]) {
    if (element == Element::kF32) {
        load_floats<F32>(static_cast<const float*>(table) + at, out);
    } else if (element == Element::kF16) {
        load_floats<F16>(static_cast<const uint16_t*>(table) + at, out);
    } else {
        load_floats<Bf16>(static_cast<const uint16_t*>(table) + at, out);
    }
}

}  // namespace moe_jit::cuda
