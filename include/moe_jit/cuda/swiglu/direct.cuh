// The operation for every width, alignment and mode, element by element from global memory.
#pragma once

#include "moe_jit/cuda/swiglu/streamed.cuh"

namespace moe_jit::cuda::swiglu {

constexpr int kDirectThreads = 256;

template <class X, GluMode kMode>
__global__ void __launch_bounds__(kDirectThreads)
    direct_kernel(const __grid_constant__ DequantSwigluQuantArgs args) {
    __shared__ RowMaxima<1>::Storage maxima;
    RowMaxima<1>::init(maxima);
    __syncthreads();
    let_dependents_start();
    wait_for_predecessors();

    const GroupCounts groups{args.group_index, args.num_groups, args.groups_are_pairs};
    const auto first_of = [](int64_t live) { return RowShare<int64_t>::of(live).first; };
    const auto start = find_group(groups, args.rows, first_of);
    const auto share = RowShare<int64_t>::of(start.live_rows);
    GroupCursor<int64_t> group(groups, args.rows, start.end, start.group);
    RowMaxima<1> maximum(maxima);
    Row<X, kMode> row(args);
    if (share.first < share.last) row.use_parameters(group.parameters());
    for (int64_t i = share.first; i < share.last; ++i) {
        if (group.seek(i)) row.use_parameters(group.parameters());
        row.use(static_cast<const typename X::Storage*>(args.x) + i * 2 * args.half, row.scale_of(i));
        int8_t* y = args.y + i * args.half;
        RowQuantizer quantizer{};
        if (args.dynamic) {
            float largest = 0.0f;
            for (int j = threadIdx.x; j < args.half; j += kDirectThreads) {
                largest = fmaxf(largest, fabsf(row.exact(j)));
            }
            maximum.add<0>(largest);
            __syncthreads();
            quantizer = RowQuantizer::of(args.recipe, maximum.take(), 127.0f);
        }
        for (int j = threadIdx.x; j < args.half; j += kDirectThreads) {
            y[j] = args.dynamic ? round_to_int8(quantizer.apply(row.exact(j))) : row.quantise_static(j);
        }
        if (threadIdx.x == 0) args.scale[i] = quantizer.scale;
    }
    clear_rows(args, start.live_rows);
}

}  // namespace moe_jit::cuda::swiglu
