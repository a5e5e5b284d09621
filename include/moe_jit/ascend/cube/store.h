// Sums from L0C to global memory, converted on the way.
#pragma once

#include "moe_jit/ascend/cube/formats.h"

namespace moe_jit::ascend {

template <class Out>
struct Conversion;
template <>
struct Conversion<int32_t> {
    static constexpr QuantMode_t kMode = QuantMode_t::NoQuant;
};
template <>
struct Conversion<float> {
    static constexpr QuantMode_t kMode = QuantMode_t::NoQuant;
};
template <>
struct Conversion<half> {
    static constexpr QuantMode_t kMode = QuantMode_t::F322F16;
};
template <>
struct Conversion<bfloat16_t> {
    static constexpr QuantMode_t kMode = QuantMode_t::F322BF16;
};
template <>
struct Conversion<int8_t> {
    static constexpr QuantMode_t kMode = QuantMode_t::VREQ8;
};

// Writes rows of `columns` (rounded up to whole fractals) elements, `pitch` apart. int8_t: `parameters` has a
// word for each column, in L1.
template <class Out, class Accumulator>
__aicore__ inline void store_sums(const GlobalTensor<Out>& target, const LocalTensor<Accumulator>& sums,
                                  int32_t rows, int32_t columns, int32_t pitch,
                                  const LocalTensor<uint64_t>& parameters) {
    FixpipeParamsV220 move;
    move.nSize = static_cast<uint16_t>(round_up(columns, kFractal));
    move.mSize = static_cast<uint16_t>(rows);
    move.srcStride = static_cast<uint16_t>(round_up(rows, kFractal));
    move.dstStride = static_cast<uint32_t>(pitch);
    move.quantPre = Conversion<Out>::kMode;
    move.ndNum = 1;
    if constexpr (Conversion<Out>::kMode == QuantMode_t::VREQ8) {
        Fixpipe<Out, Accumulator, CFG_ROW_MAJOR>(target, sums, parameters, move);
    } else {
        Fixpipe<Out, Accumulator, CFG_ROW_MAJOR>(target, sums, move);
    }
}

}  // namespace moe_jit::ascend
