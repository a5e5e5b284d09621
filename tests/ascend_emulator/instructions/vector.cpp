// Arithmetic, fills and copies of the vector unit. Parameters: type, form, operand addresses, then the
// form's.
#include "driver.h"

namespace driver {

enum Form { kCount, kMask, kBits, kCounter };

// Calls with_count(n), or with_mask(mask, repeats) where `mask` is a number or a pointer to two words.
template <typename WithCount, typename WithMask>
void in_form(Parameters& p, WithCount with_count, WithMask with_mask) {
    const auto form = p.as<int>();
    if (form == kCount) return with_count(p.as<int32_t>());
    const uint64_t bits[2] = {p.as<uint64_t>(), p.as<uint64_t>()};
    const auto repeats = p.as<uint8_t>();
    if (form == kCounter) SetMaskCount();
    if (form == kBits) {
        with_mask(static_cast<const uint64_t*>(bits), repeats);
    } else {
        with_mask(bits[0], repeats);
    }
    if (form == kCounter) SetMaskNorm();
}

#define BINARY(NAME)                                                                               \
    INSTRUCTION(NAME) {                                                                            \
        with_vector_type(p.next(), [&](auto type) {                                                \
            using T = typename decltype(type)::type;                                               \
            const auto d = ub<T>(p.next()), a = ub<T>(p.next()), b = ub<T>(p.next());              \
            in_form(                                                                               \
                p, [&](int32_t count) { AscendC::NAME(d, a, b, count); },                          \
                [&](auto mask, uint8_t repeats) {                                                  \
                    const BinaryRepeatParams r{p.as<uint8_t>(), p.as<uint8_t>(), p.as<uint8_t>(),  \
                                               p.as<uint8_t>(), p.as<uint8_t>(), p.as<uint8_t>()}; \
                    AscendC::NAME(d, a, b, mask, repeats, r);                                      \
                });                                                                                \
        });                                                                                        \
    }

#define UNARY(NAME)                                                                                \
    INSTRUCTION(NAME) {                                                                            \
        with_vector_type(p.next(), [&](auto type) {                                                \
            using T = typename decltype(type)::type;                                               \
            const auto d = ub<T>(p.next()), a = ub<T>(p.next());                                   \
            in_form(                                                                               \
                p, [&](int32_t count) { AscendC::NAME(d, a, count); },                             \
                [&](auto mask, uint8_t repeats) {                                                  \
                    const UnaryRepeatParams r{p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint8_t>(), \
                                              p.as<uint8_t>()};                                    \
                    AscendC::NAME(d, a, mask, repeats, r);                                         \
                });                                                                                \
        });                                                                                        \
    }

#define SCALAR(NAME)                                                                               \
    INSTRUCTION(NAME) {                                                                            \
        with_vector_type(p.next(), [&](auto type) {                                                \
            using T = typename decltype(type)::type;                                               \
            const auto d = ub<T>(p.next()), a = ub<T>(p.next());                                   \
            const T value = scalar<T>(p.next());                                                   \
            in_form(                                                                               \
                p, [&](int32_t count) { AscendC::NAME(d, a, value, count); },                      \
                [&](auto mask, uint8_t repeats) {                                                  \
                    const UnaryRepeatParams r{p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint8_t>(), \
                                              p.as<uint8_t>()};                                    \
                    AscendC::NAME(d, a, value, mask, repeats, r);                                  \
                });                                                                                \
        });                                                                                        \
    }

BINARY(Add)
BINARY(Sub)
BINARY(Mul)
BINARY(Div)
BINARY(Max)
BINARY(Min)
BINARY(FusedMulAdd)
BINARY(MulAddDst)
BINARY(And)
BINARY(Or)
UNARY(Abs)
UNARY(Exp)
UNARY(Ln)
UNARY(Sqrt)
UNARY(Rsqrt)
UNARY(Reciprocal)
UNARY(Relu)
SCALAR(Adds)
SCALAR(Muls)
SCALAR(Maxs)
SCALAR(Mins)
SCALAR(ShiftLeft)
SCALAR(ShiftRight)

INSTRUCTION(Duplicate) {
    with_vector_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto d = ub<T>(p.next());
        const T value = scalar<T>(p.next());
        in_form(
            p, [&](int32_t count) { AscendC::Duplicate(d, value, count); },
            [&](auto mask, uint8_t repeats) {
                const auto block = p.as<uint16_t>();
                AscendC::Duplicate(d, value, mask, repeats, block, p.as<uint8_t>());
            });
    });
}

INSTRUCTION(Copy) {
    with_vector_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto d = ub<T>(p.next()), s = ub<T>(p.next());
        in_form(
            p, [&](int32_t) { throw std::invalid_argument("Copy has no count form"); },
            [&](auto mask, uint8_t repeats) {
                const CopyRepeatParams r{p.as<uint16_t>(), p.as<uint16_t>(), p.as<uint16_t>(),
                                         p.as<uint16_t>()};
                AscendC::Copy(d, s, mask, repeats, r);
            });
    });
}

INSTRUCTION(Brcb) {
    with_vector_type(p.next(), [&](auto type) {
        using T = typename decltype(type)::type;
        const auto d = ub<T>(p.next()), s = ub<T>(p.next());
        const auto repeats = p.as<uint8_t>();
        const auto block = p.as<uint16_t>();
        AscendC::Brcb(d, s, repeats, {block, p.as<uint16_t>()});
    });
}

// With a mask that SetVectorMask left: normal mode, bits; or counter mode, the low word counts.
INSTRUCTION(MulWithSetMask) {
    const bool counter = p.next() != 0;
    const auto high = p.as<uint64_t>(), low = p.as<uint64_t>();
    const auto d = ub<float>(p.next()), a = ub<float>(p.next()), b = ub<float>(p.next());
    const auto repeats = p.as<uint8_t>();
    if (counter) {
        SetMaskCount();
        SetVectorMask<float, MaskMode::COUNTER>(high, low);
    } else {
        SetMaskNorm();
        SetVectorMask<float, MaskMode::NORMAL>(high, low);
    }
    AscendC::Mul<float, false>(d, a, b, MASK_PLACEHOLDER, repeats, {1, 1, 1, 8, 8, 8});
    SetMaskNorm();
    ResetMask();
}

// The same with a call that takes a count, which then has no effect: what the mask says, once in normal mode.
INSTRUCTION(AddsWithSetMask) {
    const bool counter = p.next() != 0;
    const auto low = p.as<uint64_t>();
    const auto d = ub<float>(p.next()), a = ub<float>(p.next());
    if (counter) {
        SetMaskCount();
        SetVectorMask<float, MaskMode::COUNTER>(static_cast<int32_t>(low));
    } else {
        SetVectorMask<float>(0, low);
    }
    AscendC::Adds<float, false>(d, a, 1.0f, 1);
    SetMaskNorm();
    ResetMask();
}

// A count form leaves normal mode and a full mask behind: the second call works on whole repeats.
INSTRUCTION(MaskAfterCount) {
    const auto d = ub<float>(p.next()), a = ub<float>(p.next());
    SetVectorMask<float>(0, 1);
    AscendC::Adds(d, a, 1.0f, 3);
    PipeBarrier<PIPE_V>();
    AscendC::Adds<float, false>(d, a, 1.0f, MASK_PLACEHOLDER, 1, {1, 1, 8, 8});
}

INSTRUCTION(NotModelled) {
    if (p.next()) SetHF32Mode(true);
    Transpose(ub<half>(0), ub<half>(512));
}

}  // namespace driver
