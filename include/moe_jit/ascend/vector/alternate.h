// Every second element.
#pragma once

#include "moe_jit/ascend/gm.h"

namespace moe_jit::ascend {

// Same-sized unsigned integers, in which gathers are defined for every type.
template <uint32_t kBytes>
struct Bits;
template <>
struct Bits<2> {
    using Type = uint16_t;
};
template <>
struct Bits<4> {
    using Type = uint32_t;
};

// Elements 0, 2, 4, ... (kOdd: 1, 3, 5, ...) of `count` pairs.
template <bool kOdd, class T>
__aicore__ inline void gather_alternate(const LocalTensor<T>& out, const LocalTensor<T>& pairs,
                                        int32_t count) {
    using Word = typename Bits<sizeof(T)>::Type;
    constexpr uint8_t kPattern = kOdd ? 2 : 1;
    uint64_t gathered = 0;
    GatherMask(out.template ReinterpretCast<Word>(), pairs.template ReinterpretCast<Word>(), kPattern, true,
               static_cast<uint32_t>(2 * count), GatherMaskParams(1, 1, 0, 0), gathered);
}

}  // namespace moe_jit::ascend
