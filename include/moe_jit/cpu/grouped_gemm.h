// Grouped matrix product on the CPU: fp32 dot products of decoded weight rows with fp32 activation rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include "moe_jit/cpu/route.h"

namespace moe_jit::cpu {

// Uninitialised, unlike std::vector.
using FloatBuffer = std::unique_ptr<float[]>;
inline FloatBuffer make_buffer(int64_t count) { return FloatBuffer(new float[std::max<int64_t>(count, 1)]); }

template <class Format>
void decode(const typename Format::Storage* codes, int64_t count, float* values) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) values[i] = Format::to_float(codes[i]);
}

namespace detail {

#if defined(__AVX512F__)
constexpr int kVectorFloats = 16;
#elif defined(__AVX__)
constexpr int kVectorFloats = 8;
#else
constexpr int kVectorFloats = 4;
#endif
typedef float Vector __attribute__((vector_size(kVectorFloats * sizeof(float))));

inline Vector load(const float* values) {
    Vector vector;
    std::memcpy(&vector, values, sizeof(vector));
    return vector;
}

inline float sum(Vector vector) {
    float total = 0.0f;
    for (int i = 0; i < kVectorFloats; ++i) total += vector[i];
    return total;
}

// Dot products of two weight rows with kRows activation rows; depth is a multiple of 16.
template <int kRows>
inline void dot_pair(const float* a, const float* b, const float* const* rows, int64_t depth,
                     float (*out)[2]) {
    Vector acc_a[kRows] = {};
    Vector acc_b[kRows] = {};
    for (int64_t i = 0; i < depth; i += kVectorFloats) {
        const Vector va = load(a + i);
        const Vector vb = load(b + i);
        for (int r = 0; r < kRows; ++r) {
            const Vector x = load(rows[r] + i);
            acc_a[r] += va * x;
            acc_b[r] += vb * x;
        }
    }
    for (int r = 0; r < kRows; ++r) {
        out[r][0] = sum(acc_a[r]);
        out[r][1] = sum(acc_b[r]);
    }
}

constexpr int kRowBlock = 4;
constexpr int kPairBlock = 8;  // decoded weight rows stay in the core's cache while all activation rows pass

}  // namespace detail

// Weight rows are taken two at a time. row_of(pair, 0|1) is the stored row within the expert;
// emit(expert, pair, row, dot0, dot1) receives the results, each row and pair exactly once.
template <class Format, class RowOf, class Emit>
void grouped_gemm(const typename Format::Storage* weights, int64_t rows_per_expert, int64_t num_pairs,
                  int64_t depth, const RowIndex& index, const std::vector<const float*>& activations,
                  RowOf row_of, Emit emit) {
    using namespace detail;
    const int64_t blocks = (num_pairs + kPairBlock - 1) / kPairBlock;
    std::vector<int> active;
    for (int e = 0; e < index.num_local(); ++e) {
        if (index.expert_offsets[e + 1] > index.expert_offsets[e]) active.push_back(e);
    }
    const int64_t num_tasks = blocks * static_cast<int64_t>(active.size());
#pragma omp parallel
    {
        const FloatBuffer decoded = make_buffer(2 * kPairBlock * depth);
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < num_tasks; ++task) {
            const int expert = active[task / blocks];
            const int64_t first = task % blocks * kPairBlock;
            const int count = static_cast<int>(std::min<int64_t>(kPairBlock, num_pairs - first));
            for (int i = 0; i < 2 * count; ++i) {
                const int64_t row = expert * rows_per_expert + row_of(first + i / 2, i % 2);
                decode<Format>(weights + row * depth, depth, decoded.get() + i * depth);
            }
            const int64_t end = index.expert_offsets[expert + 1];
            for (int64_t row = index.expert_offsets[expert]; row < end; row += kRowBlock) {
                const int rows = static_cast<int>(std::min<int64_t>(kRowBlock, end - row));
                for (int p = 0; p < count; ++p) {
                    const float* a = decoded.get() + 2 * p * depth;
                    float dots[kRowBlock][2];
                    if (rows == kRowBlock) {
                        dot_pair<kRowBlock>(a, a + depth, &activations[row], depth, dots);
                    } else {
                        for (int r = 0; r < rows; ++r)
                            dot_pair<1>(a, a + depth, &activations[row + r], depth, dots + r);
                    }
                    for (int r = 0; r < rows; ++r) emit(expert, first + p, row + r, dots[r][0], dots[r][1]);
                }
            }
        }
    }
}

}  // namespace moe_jit::cpu
