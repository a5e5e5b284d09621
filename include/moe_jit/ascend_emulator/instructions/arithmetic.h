// Arithmetic of the vector unit on tensors, and on a tensor and a scalar.
#pragma once

#include <cmath>

#include "moe_jit/ascend_emulator/instructions/elementwise.h"
#include "moe_jit/core/exp.h"

namespace moe_jit::emulator::math {

template <bool accumulates, typename... Formats>
struct Takes {
    static constexpr bool kAccumulates = accumulates, kUpdates = false;
    template <typename T>
    static void check(Instruction& op) {
        require_format<T, Formats...>(op);
    }
};
using Numbers = Takes<true, int16_t, half, int32_t, float>;
using Floats = Takes<false, half, float>;
using Bits = Takes<false, int16_t, uint16_t>;
using Integers = Takes<false, int16_t, uint16_t, int32_t, uint32_t>;

template <typename W>
bool unordered(W a, W b) {
    return a != a || b != b;
}

struct Add : Numbers {
    template <typename W>
    static W apply(W a, W b) {
        return a + b;
    }
};
struct Sub : Numbers {
    template <typename W>
    static W apply(W a, W b) {
        return a - b;
    }
};
struct Mul : Numbers {
    template <typename W>
    static W apply(W a, W b) {
        return a * b;
    }
};
struct Max : Numbers {
    template <typename W>
    static W apply(W a, W b) {
        return unordered(a, b) ? a + b : a < b ? b : a;
    }
};
struct Min : Numbers {
    template <typename W>
    static W apply(W a, W b) {
        return unordered(a, b) ? a + b : b < a ? b : a;
    }
};
struct Div : Floats {
    static double apply(double a, double b) { return a / b; }
};
// One rounding; whether the chip rounds the product too is not documented.
struct FusedMulAdd : Floats {
    static constexpr bool kUpdates = true;
    static double apply(double target, double a, double b) { return target * a + b; }
};
struct MulAddDst : Floats {
    static constexpr bool kUpdates = true;
    static double apply(double target, double a, double b) { return a * b + target; }
};
struct And : Bits {
    static int64_t apply(int64_t a, int64_t b) { return a & b; }
};
struct Or : Bits {
    static int64_t apply(int64_t a, int64_t b) { return a | b; }
};

struct Abs : Floats {
    static double apply(double a) { return std::fabs(a); }
};
// The chip's last bit is not documented; this one's is the same as on the project's other backends.
struct Exp : Floats {
    static double apply(double a) { return portable_exp(static_cast<float>(a)); }
};
struct Ln : Floats {
    static double apply(double a) { return std::log(a); }
};
struct Sqrt : Floats {
    static double apply(double a) { return std::sqrt(a); }
};
struct Rsqrt : Floats {
    static double apply(double a) { return 1.0 / std::sqrt(a); }
};
struct Reciprocal : Floats {
    static double apply(double a) { return 1.0 / a; }
};
struct Relu : Takes<false, half, int32_t, float> {
    template <typename W>
    static W apply(W a) {
        return a < 0 ? W{0} : a;
    }
};

// A binary operation with one operand for all elements.
template <typename Math, typename W>
struct WithScalar : Math {
    W scalar;
    explicit WithScalar(W value) : scalar(value) {}
    W apply(W a) const { return Math::apply(a, scalar); }
};

// Shifts keep the bits that fit; the right one keeps the sign of a signed number.
template <typename T>
struct ShiftLeft : Integers {
    uint32_t places;
    explicit ShiftLeft(uint32_t value) : places(value) {}
    int64_t apply(int64_t a) const { return static_cast<T>(static_cast<uint64_t>(a) << places); }
};
template <typename T>
struct ShiftRight : Integers {
    uint32_t places;
    explicit ShiftRight(uint32_t value) : places(value) {}
    int64_t apply(int64_t a) const { return a >> places; }
};

}  // namespace moe_jit::emulator::math

namespace AscendC {

// Every operation comes in the three forms of masks.h.
#define MOE_JIT_BINARY(NAME)                                                                               \
    template <typename T>                                                                                  \
    void NAME(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1,           \
              const int32_t& count, Site site = Site::here()) {                                            \
        moe_jit::emulator::binary<moe_jit::emulator::math::NAME>(#NAME, site, dst, src0, src1,             \
                                                                 moe_jit::emulator::CountForm{count}, {}); \
    }                                                                                                      \
    template <typename T, bool isSetMask = true>                                                           \
    void NAME(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1,           \
              uint64_t mask, const uint8_t repeatTime, const BinaryRepeatParams& repeatParams,             \
              Site site = Site::here()) {                                                                  \
        moe_jit::emulator::binary<moe_jit::emulator::math::NAME>(                                          \
            #NAME, site, dst, src0, src1, moe_jit::emulator::MaskForm{isSetMask, mask, repeatTime},        \
            repeatParams);                                                                                 \
    }                                                                                                      \
    template <typename T, bool isSetMask = true>                                                           \
    void NAME(const LocalTensor<T>& dst, const LocalTensor<T>& src0, const LocalTensor<T>& src1,           \
              const uint64_t mask[], const uint8_t repeatTime, const BinaryRepeatParams& repeatParams,     \
              Site site = Site::here()) {                                                                  \
        moe_jit::emulator::binary<moe_jit::emulator::math::NAME>(                                          \
            #NAME, site, dst, src0, src1, moe_jit::emulator::BitsForm{isSetMask, mask, repeatTime},        \
            repeatParams);                                                                                 \
    }

MOE_JIT_BINARY(Add)
MOE_JIT_BINARY(Sub)
MOE_JIT_BINARY(Mul)
MOE_JIT_BINARY(Div)
MOE_JIT_BINARY(Max)
MOE_JIT_BINARY(Min)
MOE_JIT_BINARY(FusedMulAdd)
MOE_JIT_BINARY(MulAddDst)
MOE_JIT_BINARY(And)
MOE_JIT_BINARY(Or)
#undef MOE_JIT_BINARY

#define MOE_JIT_UNARY(NAME)                                                                                  \
    template <typename T>                                                                                    \
    void NAME(const LocalTensor<T>& dst, const LocalTensor<T>& src, const int32_t& count,                    \
              Site site = Site::here()) {                                                                    \
        moe_jit::emulator::unary(#NAME, site, dst, src, moe_jit::emulator::math::NAME{},                     \
                                 moe_jit::emulator::CountForm{count}, {});                                   \
    }                                                                                                        \
    template <typename T, bool isSetMask = true>                                                             \
    void NAME(const LocalTensor<T>& dst, const LocalTensor<T>& src, uint64_t mask, const uint8_t repeatTime, \
              const UnaryRepeatParams& repeatParams, Site site = Site::here()) {                             \
        moe_jit::emulator::unary(#NAME, site, dst, src, moe_jit::emulator::math::NAME{},                     \
                                 moe_jit::emulator::MaskForm{isSetMask, mask, repeatTime}, repeatParams);    \
    }                                                                                                        \
    template <typename T, bool isSetMask = true>                                                             \
    void NAME(const LocalTensor<T>& dst, const LocalTensor<T>& src, const uint64_t mask[],                   \
              const uint8_t repeatTime, const UnaryRepeatParams& repeatParams, Site site = Site::here()) {   \
        moe_jit::emulator::unary(#NAME, site, dst, src, moe_jit::emulator::math::NAME{},                     \
                                 moe_jit::emulator::BitsForm{isSetMask, mask, repeatTime}, repeatParams);    \
    }

MOE_JIT_UNARY(Abs)
MOE_JIT_UNARY(Exp)
MOE_JIT_UNARY(Ln)
MOE_JIT_UNARY(Sqrt)
MOE_JIT_UNARY(Rsqrt)
MOE_JIT_UNARY(Reciprocal)
MOE_JIT_UNARY(Relu)
#undef MOE_JIT_UNARY

#define MOE_JIT_SCALAR(NAME, MATH)                                                                         \
    template <typename T, bool isSetMask = true>                                                           \
    void NAME(const LocalTensor<T>& dst, const LocalTensor<T>& src, const T& scalarValue,                  \
              const int32_t& count, Site site = Site::here()) {                                            \
        moe_jit::emulator::unary(#NAME, site, dst, src, MATH,                                              \
                                 moe_jit::emulator::CountForm{count, isSetMask}, {});                      \
    }                                                                                                      \
    template <typename T, bool isSetMask = true>                                                           \
    void NAME(const LocalTensor<T>& dst, const LocalTensor<T>& src, const T& scalarValue, uint64_t mask,   \
              const uint8_t repeatTime, const UnaryRepeatParams& repeatParams, Site site = Site::here()) { \
        moe_jit::emulator::unary(#NAME, site, dst, src, MATH,                                              \
                                 moe_jit::emulator::MaskForm{isSetMask, mask, repeatTime}, repeatParams);  \
    }                                                                                                      \
    template <typename T, bool isSetMask = true>                                                           \
    void NAME(const LocalTensor<T>& dst, const LocalTensor<T>& src, const T& scalarValue,                  \
              const uint64_t mask[], const uint8_t repeatTime, const UnaryRepeatParams& repeatParams,      \
              Site site = Site::here()) {                                                                  \
        moe_jit::emulator::unary(#NAME, site, dst, src, MATH,                                              \
                                 moe_jit::emulator::BitsForm{isSetMask, mask, repeatTime}, repeatParams);  \
    }
#define MOE_JIT_WITH(NAME)                                                                           \
    (moe_jit::emulator::math::WithScalar<moe_jit::emulator::math::NAME, moe_jit::emulator::Wide<T>>( \
        moe_jit::emulator::wide(scalarValue)))

MOE_JIT_SCALAR(Adds, MOE_JIT_WITH(Add))
MOE_JIT_SCALAR(Muls, MOE_JIT_WITH(Mul))
MOE_JIT_SCALAR(Maxs, MOE_JIT_WITH(Max))
MOE_JIT_SCALAR(Mins, MOE_JIT_WITH(Min))
MOE_JIT_SCALAR(ShiftLeft, moe_jit::emulator::math::ShiftLeft<T>(static_cast<uint32_t>(scalarValue)))
MOE_JIT_SCALAR(ShiftRight, moe_jit::emulator::math::ShiftRight<T>(static_cast<uint32_t>(scalarValue)))
#undef MOE_JIT_WITH
#undef MOE_JIT_SCALAR

}  // namespace AscendC
