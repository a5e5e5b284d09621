// Scalar helpers: sizes, and access to global memory.
#pragma once

#include "kernel_operator.h"

namespace moe_jit::ascend {

using namespace AscendC;  // NOLINT(google-build-using-namespace): kernels are written in its terms

// Of global memory. GM_ADDR is a macro that declares one pointer only.
using Address = GM_ADDR;

constexpr int32_t kBlockBytes = 32;

__aicore__ inline constexpr int32_t ceil_div(int32_t a, int32_t b) { return (a + b - 1) / b; }
__aicore__ inline constexpr int32_t round_up(int32_t a, int32_t b) { return ceil_div(a, b) * b; }
__aicore__ inline int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }

template <class T>
__aicore__ inline GlobalTensor<T> global(GM_ADDR address, int64_t offset = 0) {
    GlobalTensor<T> tensor;
    tensor.SetGlobalBuffer(reinterpret_cast<__gm__ T*>(address) + offset);
    return tensor;
}

// A plain struct of 32-bit members.
template <class T>
__aicore__ inline T read_struct(GM_ADDR address) {
    static_assert(sizeof(T) % sizeof(int32_t) == 0, "made of 32-bit members");
    const GlobalTensor<int32_t> words = global<int32_t>(address);
    T value;
    for (uint32_t i = 0; i < sizeof(T) / sizeof(int32_t); ++i) {
        const int32_t word = words.GetValue(i);
        __builtin_memcpy(reinterpret_cast<char*>(&value) + i * sizeof(int32_t), &word, sizeof(int32_t));
    }
    return value;
}

}  // namespace moe_jit::ascend
