// fp32 to int8 on the vector core: nearest, ties to even, saturated.
#pragma once

#include "moe_jit/ascend/vector/transfer.h"

namespace moe_jit::ascend {

// There is no direct conversion: fp32 to int32 (rounds), to half (exact up to 2048), to int8. `values` is
// lost; `scratch` is as large.
__aicore__ inline void to_int8(const LocalTensor<int8_t>& out, const LocalTensor<float>& values,
                               const LocalTensor<float>& scratch, int32_t count) {
    const LocalTensor<int32_t> whole = values.ReinterpretCast<int32_t>();
    const LocalTensor<half> halves = scratch.ReinterpretCast<half>();
    Cast(whole, values, RoundMode::CAST_RINT, count);
    vector_barrier();
    SetDeqScale(static_cast<half>(1.0f));
    Cast(halves, whole, RoundMode::CAST_NONE, count);
    vector_barrier();
    Cast(out, halves, RoundMode::CAST_RINT, count);
}

}  // namespace moe_jit::ascend
