// What the number formats of npu_grouped_matmul's products have in common; they hide what differs.
#pragma once

#include "moe_jit/cuda/gemm/format.cuh"
#include "moe_jit/cuda/grouped_matmul.h"

namespace moe_jit::cuda::gemm {

template <class Accum_, int kTokenBits_>
struct ProductFormat {
    using Accum = Accum_;
    using Tokens = RowsOfK;
    static constexpr int kTokenBits = kTokenBits_;
    static constexpr int kMmaBytes = 32;
    static constexpr bool kPromote = false;
    static constexpr bool kSegmented = false;
    static constexpr int kWeighedTokens = 0;
    static constexpr int kScaleSteps = 0;
    static constexpr int kScaleBytes = 0;
    static constexpr int kTileWarpgroups = 1;
    static constexpr bool kOneEpilogue = false;
    static constexpr int kStagingBytes = 0;
    static constexpr bool kTokensInOrder = true;
    static constexpr bool kGroupedDepth = false;
    // A thread's accumulator rows r and r + 8 are neighbouring columns.
    static constexpr bool kPairedColumns = true;
    struct Params {};
    static Params params(const ProductArgs&) { return {}; }
};

}  // namespace moe_jit::cuda::gemm
