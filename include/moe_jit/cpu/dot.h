// Dot products on the CPU, in fp32 or exact in int32.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace moe_jit::cpu {

// Lengths of dot products are multiples of this.
constexpr int64_t kDepthAlignment = 16;

namespace detail {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif

}  // namespace detail

// Products and sums in fp32; the order of the sum is fixed by the vector width.
struct FloatDomain {
    using Value = float;
    using Accumulator = float;
    typedef float Vector __attribute__((vector_size(detail::kVectorBytes)));
    static constexpr int kLanes = detail::kVectorBytes / sizeof(float);

    static Vector load(const Value* values) {
        Vector vector;
        std::memcpy(&vector, values, sizeof(vector));
        return vector;
    }
    static void add_product(Vector& sum, Vector a, Vector b) { sum += a * b; }
    static Accumulator total(Vector vector) {
        float total = 0.0f;
        for (int i = 0; i < kLanes; ++i) total += vector[i];
        return total;
    }
};

// Exact while the true sum fits in int32 and the values in nine bits.
struct IntegerDomain {
    using Value = int16_t;
    using Accumulator = int32_t;
#if defined(__AVX2__)
    typedef __m256i Vector;
    static constexpr int kLanes = 16;

    static Vector load(const Value* values) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values));
    }
    static void add_product(Vector& sum, Vector a, Vector b) {
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
    }
#else
    typedef int32_t Vector __attribute__((vector_size(16)));
    static constexpr int kLanes = 4;

    static Vector load(const Value* values) { return Vector{values[0], values[1], values[2], values[3]}; }
    static void add_product(Vector& sum, Vector a, Vector b) { sum += a * b; }
#endif
    static Accumulator total(Vector vector) {
        int32_t sums[sizeof(Vector) / sizeof(int32_t)];
        std::memcpy(sums, &vector, sizeof(vector));
        int32_t total = 0;
        for (const int32_t sum : sums) total += sum;
        return total;
    }
};

// Dot products of two weight columns with kRows activation rows.
template <class Domain, int kRows>
inline void dot_pair(const typename Domain::Value* a, const typename Domain::Value* b,
                     const typename Domain::Value* const* rows, int64_t begin, int64_t end,
                     typename Domain::Accumulator (*out)[2]) {
    typename Domain::Vector sum_a[kRows] = {};
    typename Domain::Vector sum_b[kRows] = {};
    for (int64_t i = begin; i < end; i += Domain::kLanes) {
        const auto va = Domain::load(a + i);
        const auto vb = Domain::load(b + i);
        for (int r = 0; r < kRows; ++r) {
            const auto x = Domain::load(rows[r] + i);
            Domain::add_product(sum_a[r], va, x);
            Domain::add_product(sum_b[r], vb, x);
        }
    }
    for (int r = 0; r < kRows; ++r) {
        out[r][0] = Domain::total(sum_a[r]);
        out[r][1] = Domain::total(sum_b[r]);
    }
}

}  // namespace moe_jit::cpu
