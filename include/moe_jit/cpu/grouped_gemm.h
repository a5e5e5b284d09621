// Grouped matrix product on the CPU: dot products of decoded weight columns with activation rows.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "moe_jit/cpu/dot.h"
#include "moe_jit/cpu/group_list.h"

namespace moe_jit::cpu {

// Uninitialised, unlike std::vector.
template <class Value>
using Buffer = std::unique_ptr<Value[]>;
template <class Value>
Buffer<Value> make_buffer(int64_t count) {
    return Buffer<Value>(new Value[std::max<int64_t>(count, 1)]);
}

template <class Format>
void decode(const typename Format::Storage* codes, int64_t count, float* values) {
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) values[i] = Format::to_float(codes[i]);
}

// The reduction dimension: segments with dot products of their own. In decoded rows and columns each begins
// at a multiple of stride(); what lies between is zero.
struct Depth {
    int64_t length;  // of one segment
    int64_t segments = 1;

    int64_t stride() const { return (length + kDepthAlignment - 1) / kDepthAlignment * kDepthAlignment; }
    int64_t decoded_size() const { return segments * stride(); }
};

namespace detail {

constexpr int kRowBlock = 4;
constexpr int kColumnBlock = 16;  // decoded columns stay in the core's cache while all activation rows pass

// Sums of one column pair with up to kRowBlock rows: weigh(column, segment, dot) converts each segment's dot.
template <class Domain, class Total, class Weigh>
void sum_pair(const typename Domain::Value* columns, int64_t column, int valid, const Depth& depth,
              const typename Domain::Value* const* rows, int count, const Weigh& weigh, Total (*totals)[2]) {
    const auto* a = columns;
    const auto* b = valid == 2 ? a + depth.decoded_size() : a;
    for (int r = 0; r < count; ++r) totals[r][0] = totals[r][1] = Total{};
    for (int64_t segment = 0; segment < depth.segments; ++segment) {
        const int64_t begin = segment * depth.stride(), end = begin + depth.stride();
        typename Domain::Accumulator dots[kRowBlock][2];
        if (count == kRowBlock) {
            dot_pair<Domain, kRowBlock>(a, b, rows, begin, end, dots);
        } else {
            for (int r = 0; r < count; ++r) dot_pair<Domain, 1>(a, b, rows + r, begin, end, dots + r);
        }
        for (int r = 0; r < count; ++r) {
            for (int c = 0; c < valid; ++c) totals[r][c] += weigh(column + c, segment, dots[r][c]);
        }
    }
}

}  // namespace detail

// A segment's dot product as it is.
struct Unweighed {
    template <class Dot>
    Dot operator()(int64_t, int64_t, Dot dot) const {
        return dot;
    }
};

// rows[row] is a decoded activation row. decode(expert, first, count, out) decodes `count` weight columns,
// one after the other. weigh_of(expert) returns the functor for sum_pair. emit(expert, column, row, totals,
// count) receives one or two sums of Total for column, column + 1; column is even, and each (row, column) is
// passed exactly once.
template <class Domain, class Total, class Decode, class WeighOf, class Emit>
void grouped_gemm(const std::vector<GroupRows>& groups, int64_t num_columns, const Depth& depth,
                  const std::vector<const typename Domain::Value*>& rows, const Decode& decode,
                  const WeighOf& weigh_of, const Emit& emit) {
    using namespace detail;
    const int64_t blocks = (num_columns + kColumnBlock - 1) / kColumnBlock;
    const int64_t num_tasks = blocks * static_cast<int64_t>(groups.size());
#pragma omp parallel
    {
        const auto columns = make_buffer<typename Domain::Value>(kColumnBlock * depth.decoded_size());
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < num_tasks; ++task) {
            const GroupRows& group = groups[task / blocks];
            const int64_t first = task % blocks * kColumnBlock;
            const int count = static_cast<int>(std::min<int64_t>(kColumnBlock, num_columns - first));
            decode(group.expert, first, count, columns.get());
            const auto weigh = weigh_of(group.expert);
            for (int64_t row = group.begin; row < group.end; row += kRowBlock) {
                const int row_count = static_cast<int>(std::min<int64_t>(kRowBlock, group.end - row));
                for (int c = 0; c < count; c += 2) {
                    const int valid = std::min(2, count - c);
                    Total totals[kRowBlock][2];
                    sum_pair<Domain, Total>(columns.get() + c * depth.decoded_size(), first + c, valid, depth,
                                            &rows[row], row_count, weigh, totals);
                    for (int r = 0; r < row_count; ++r)
                        emit(group.expert, first + c, row + r, totals[r], valid);
                }
            }
        }
    }
}

}  // namespace moe_jit::cpu
