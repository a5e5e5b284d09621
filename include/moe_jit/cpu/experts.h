// The expert part of one MoE layer on the CPU: gemm1 + activation + requantisation, gemm2, finalize.
#pragma once

#include <cstdint>
#include <vector>

#include "moe_jit/core/layout.h"
#include "moe_jit/core/numeric.h"
#include "moe_jit/cpu/grouped_gemm.h"
#include "moe_jit/cpu/route.h"

namespace moe_jit::cpu {

struct ExpertsArgs {
    const uint8_t* hidden_states;  // [num_tokens, hidden_size] e4m3
    const uint8_t*
        gemm1_weights;  // [num_local, 2 * intermediate_size or intermediate_size, hidden_size] e4m3
    const uint8_t* gemm2_weights;      // [num_local, hidden_size, intermediate_size] e4m3
    const float* output1_scales;       // [num_local]
    const float* output1_scales_gate;  // [num_local]
    const float* output2_scales;       // [num_local]
    const uint16_t* weights;           // [num_tokens, top_k] bf16
    int64_t num_tokens;
    int top_k;
    int64_t hidden_size;
    int64_t intermediate_size;
    WeightLayout layout;
    bool scale_input;  // routing weights multiply the gemm1 accumulators instead of the finalize
};

using FloatBuffer = Buffer<float>;

// The product of one FP8 GEMM: stored_row(column) is the weight row within the expert that holds a column;
// emit(expert, column, row, dots) receives columns in pairs.
template <class StoredRow, class Emit>
void expert_gemm(const uint8_t* weights, int64_t num_columns, int64_t depth, const RowIndex& index,
                 const std::vector<const float*>& inputs, const StoredRow& stored_row, const Emit& emit) {
    grouped_gemm<FloatDomain, float>(
        index.groups(), num_columns, Depth{depth}, inputs,
        [&](int64_t expert, int64_t first, int count, float* out) {
            for (int c = 0; c < count; ++c) {
                const int64_t row = expert * num_columns + stored_row(first + c);
                decode<E4m3>(weights + row * depth, depth, out + c * depth);
            }
        },
        [](int64_t) { return Unweighed{}; },
        [&](int64_t expert, int64_t column, int64_t row, const float* dots, int) {
            emit(expert, column, row, dots);
        });
}

// Intermediate [num_rows, intermediate_size]: fp32 values that are exact in e4m3.
template <class Activation>
FloatBuffer gemm1(const ExpertsArgs& args, const RowIndex& index) {
    const int64_t hidden = args.hidden_size, inter = args.intermediate_size;
    const FloatBuffer tokens = make_buffer<float>(args.num_tokens * hidden);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < args.num_tokens; ++t) {
        decode<E4m3>(args.hidden_states + t * hidden, hidden, tokens.get() + t * hidden);
    }
    std::vector<const float*> inputs(index.num_rows());
    for (int64_t row = 0; row < index.num_rows(); ++row) {
        inputs[row] = tokens.get() + index.row_to_pair[row] / args.top_k * hidden;
    }
    FloatBuffer out = make_buffer<float>(index.num_rows() * inter);
    const auto store = [&](int64_t expert, int64_t row, int64_t channel, float linear, float gate) {
        const float input_scale =
            args.scale_input ? bf16_to_float(args.weights[index.row_to_pair[row]]) : 1.0f;
        const float value = Activation::apply(linear * input_scale, gate * input_scale,
                                              args.output1_scales[expert], args.output1_scales_gate[expert]);
        out[row * inter + channel] = E4m3::to_float(E4m3::from_float(value));
    };
    if constexpr (Activation::kGated) {
        expert_gemm(
            args.gemm1_weights, 2 * inter, hidden, index, inputs,
            [&](int64_t column) {
                return column % 2 == 0 ? stored_linear_row(args.layout, column / 2, inter)
                                       : stored_gate_row(args.layout, column / 2, inter);
            },
            [&](int64_t expert, int64_t column, int64_t row, const float* dots) {
                store(expert, row, column / 2, dots[0], dots[1]);
            });
    } else {
        expert_gemm(
            args.gemm1_weights, inter, hidden, index, inputs,
            [&](int64_t column) { return stored_row(args.layout, column); },
            [&](int64_t expert, int64_t column, int64_t row, const float* dots) {
                store(expert, row, column, dots[0], 0.0f);
                store(expert, row, column + 1, dots[1], 0.0f);
            });
    }
    return out;
}

// rows [num_rows, hidden_size] bf16.
inline void gemm2(const ExpertsArgs& args, const RowIndex& index, const float* intermediate, uint16_t* rows) {
    const int64_t hidden = args.hidden_size, inter = args.intermediate_size;
    std::vector<const float*> inputs(index.num_rows());
    for (int64_t row = 0; row < index.num_rows(); ++row) inputs[row] = intermediate + row * inter;
    expert_gemm(
        args.gemm2_weights, hidden, inter, index, inputs,
        [&](int64_t column) { return stored_row(args.layout, column); },
        [&](int64_t expert, int64_t column, int64_t row, const float* dots) {
            uint16_t* out = rows + row * hidden + column;
            out[0] = float_to_bf16(args.output2_scales[expert] * dots[0]);
            out[1] = float_to_bf16(args.output2_scales[expert] * dots[1]);
        });
}

// output [num_tokens, hidden_size] bf16: fp32 sum in rank order; zeros for a token without local experts.
inline void finalize(const ExpertsArgs& args, const int32_t* pair_to_row, const uint16_t* rows,
                     uint16_t* output) {
    const int64_t hidden = args.hidden_size;
#pragma omp parallel
    {
        std::vector<float> acc(hidden);
#pragma omp for schedule(static)
        for (int64_t t = 0; t < args.num_tokens; ++t) {
            std::fill(acc.begin(), acc.end(), 0.0f);
            for (int64_t pair = t * args.top_k; pair < (t + 1) * args.top_k; ++pair) {
                if (pair_to_row[pair] < 0) continue;
                const uint16_t* row = rows + pair_to_row[pair] * hidden;
                const float weight = args.scale_input ? 1.0f : bf16_to_float(args.weights[pair]);
                for (int64_t i = 0; i < hidden; ++i) acc[i] += weight * bf16_to_float(row[i]);
            }
            for (int64_t i = 0; i < hidden; ++i) output[t * hidden + i] = float_to_bf16(acc[i]);
        }
    }
}

}  // namespace moe_jit::cpu
