// Number formats of vector and matrix units, with every rounding mode. A value is taken exactly and rounded
// once. A float that overflows becomes infinite where its mode rounds away from zero (the chip's INF/NaN
// mode, its default), an integer saturates, and NaN becomes zero in an integer.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "moe_jit/ascend_emulator/instructions/params.h"
#include "moe_jit/ascend_emulator/types.h"

namespace moe_jit::emulator {

using AscendC::RoundMode;

// (-1)^negative * significand * 2^exponent
struct ExactValue {
    bool negative = false;
    uint64_t significand = 0;
    int exponent = 0;

    static ExactValue of(int64_t value) {
        const auto bits = static_cast<uint64_t>(value);
        return {value < 0, value < 0 ? ~bits + 1 : bits, 0};
    }
    static ExactValue of(double finite) {
        int exponent;
        const double fraction = std::frexp(std::fabs(finite), &exponent);
        return {std::signbit(finite), static_cast<uint64_t>(std::ldexp(fraction, 53)), exponent - 53};
    }
};

// Whether the magnitude `kept` + `rest` / 2^`shift` is rounded up to `kept` + 1.
inline bool rounds_up(RoundMode mode, bool negative, uint64_t kept, uint64_t rest, int shift) {
    if (rest == 0) return false;
    const bool beyond = shift > 64;  // everything is far below one half
    const uint64_t half_unit = beyond ? 0 : uint64_t{1} << (shift - 1);
    switch (mode) {
        case RoundMode::CAST_FLOOR:
            return negative;
        case RoundMode::CAST_CEIL:
            return !negative;
        case RoundMode::CAST_TRUNC:
            return false;
        case RoundMode::CAST_ODD:
            return (kept & 1) == 0;
        case RoundMode::CAST_ROUND:
            return !beyond && rest >= half_unit;
        default:
            return !beyond && (rest > half_unit || (rest == half_unit && (kept & 1)));
    }
}

struct BinaryFormat {
    int fraction;  // bits
    int exponent;

    constexpr int bias() const { return (1 << (exponent - 1)) - 1; }
    constexpr uint32_t infinity() const { return ((1u << exponent) - 1) << fraction; }
    constexpr uint32_t sign(bool negative) const { return negative ? 1u << (fraction + exponent) : 0; }
};
inline constexpr BinaryFormat kHalfFormat{10, 5}, kBfloat16Format{7, 8}, kFloatFormat{23, 8};

// The code of a finite value.
inline uint32_t encode(BinaryFormat format, ExactValue value, RoundMode mode) {
    const uint32_t sign = format.sign(value.negative);
    if (value.significand == 0) return sign;
    const int top = 63 - __builtin_clzll(value.significand) + value.exponent;
    const int lowest = 1 - format.bias() - format.fraction;  // exponent of a subnormal's last place
    int place = top - format.fraction > lowest ? top - format.fraction : lowest;
    const int shift = place - value.exponent;
    uint64_t kept, rest = 0;
    if (shift <= 0) {
        kept = value.significand << -shift;
    } else if (shift < 64) {
        kept = value.significand >> shift;
        rest = value.significand & ((uint64_t{1} << shift) - 1);
    } else {
        kept = 0;
        rest = value.significand;
    }
    if (rounds_up(mode, value.negative, kept, rest, shift)) ++kept;
    const uint64_t implicit = uint64_t{1} << format.fraction;
    if (kept == 2 * implicit) {
        kept = implicit;
        ++place;
    }
    if (kept < implicit) return sign | static_cast<uint32_t>(kept);
    const int field = place + format.fraction + format.bias();
    if (field < (1 << format.exponent) - 1) {
        return sign |
               static_cast<uint32_t>((static_cast<uint64_t>(field) << format.fraction) + (kept - implicit));
    }
    const bool away = mode == RoundMode::CAST_NONE || mode == RoundMode::CAST_RINT ||
                      mode == RoundMode::CAST_ROUND ||
                      mode == (value.negative ? RoundMode::CAST_FLOOR : RoundMode::CAST_CEIL);
    return sign | (away ? format.infinity() : format.infinity() - 1);
}

inline uint32_t encode(BinaryFormat format, double value, RoundMode mode) {
    if (std::isnan(value)) return format.sign(true) - 1;  // quiet, positive, all bits set
    if (std::isinf(value)) return format.sign(value < 0) | format.infinity();
    return encode(format, ExactValue::of(value), mode);
}
inline uint32_t encode(BinaryFormat format, int64_t value, RoundMode mode) {
    return encode(format, ExactValue::of(value), mode);
}

// A whole number. ODD is not a mode of integers.
inline double round_whole(double value, RoundMode mode) {
    switch (mode) {
        case RoundMode::CAST_FLOOR:
            return std::floor(value);
        case RoundMode::CAST_CEIL:
            return std::ceil(value);
        case RoundMode::CAST_TRUNC:
            return std::trunc(value);
        case RoundMode::CAST_ROUND:
            return std::round(value);
        default:
            return std::nearbyint(value);
    }
}

template <typename Integer>
Integer saturated(double whole) {
    using Limits = std::numeric_limits<Integer>;
    if (std::isnan(whole)) return 0;
    if (whole <= static_cast<double>(Limits::min())) return Limits::min();
    if (whole >= static_cast<double>(Limits::max())) return Limits::max();
    return static_cast<Integer>(whole);
}

template <typename Integer>
Integer saturated(int64_t whole) {
    using Limits = std::numeric_limits<Integer>;
    if (whole <= static_cast<int64_t>(Limits::min())) return Limits::min();
    if (whole >= static_cast<int64_t>(Limits::max())) return Limits::max();
    return static_cast<Integer>(whole);
}

template <typename T>
inline constexpr bool is_float_v =
    std::is_same_v<T, float> || std::is_same_v<T, half> || std::is_same_v<T, bfloat16_t>;

// The type in which a value of format T is exact and arithmetic on it rounds, if at all, far below T.
template <typename T>
using Wide = std::conditional_t<is_float_v<T>, double, int64_t>;

template <typename T>
constexpr const char* format_name() {
    if constexpr (std::is_same_v<T, half>)
        return "half";
    else if constexpr (std::is_same_v<T, bfloat16_t>)
        return "bfloat16_t";
    else if constexpr (std::is_same_v<T, float>)
        return "float";
    else if constexpr (std::is_same_v<T, AscendC::int4b_t>)
        return "int4b_t";
    else if constexpr (std::is_same_v<T, int8_t>)
        return "int8_t";
    else if constexpr (std::is_same_v<T, uint8_t>)
        return "uint8_t";
    else if constexpr (std::is_same_v<T, int16_t>)
        return "int16_t";
    else if constexpr (std::is_same_v<T, uint16_t>)
        return "uint16_t";
    else if constexpr (std::is_same_v<T, int32_t>)
        return "int32_t";
    else if constexpr (std::is_same_v<T, uint32_t>)
        return "uint32_t";
    else if constexpr (std::is_same_v<T, int64_t>)
        return "int64_t";
    else if constexpr (std::is_same_v<T, uint64_t>)
        return "uint64_t";
    else
        return "another type";
}

template <typename T, typename... Formats>
inline constexpr bool is_one_of = (std::is_same_v<T, Formats> || ...);

// A double or int64_t in a 16-bit format.
template <typename Format, typename Value>
uint16_t encoded(BinaryFormat format, Value value, RoundMode mode) {
    const bool nearest = mode == RoundMode::CAST_RINT || mode == RoundMode::CAST_NONE;
    const float single = static_cast<float>(value);
    if (nearest && static_cast<double>(single) == static_cast<double>(value))
        return Format::from_float(single);
    return static_cast<uint16_t>(encode(format, value, mode));
}

// `value`, a double or int64_t, in the format T.
template <typename T, typename Value>
T rounded(Value value, RoundMode mode = RoundMode::CAST_RINT) {
    T result{};
    if constexpr (std::is_same_v<T, half>) {
        result.bits = encoded<F16>(kHalfFormat, value, mode);
    } else if constexpr (std::is_same_v<T, bfloat16_t>) {
        result.bits = encoded<Bf16>(kBfloat16Format, value, mode);
    } else if constexpr (std::is_same_v<T, float>) {
        const bool nearest = mode == RoundMode::CAST_RINT || mode == RoundMode::CAST_NONE;
        result = nearest ? static_cast<float>(value) : bits_float(encode(kFloatFormat, value, mode));
    } else if constexpr (std::is_same_v<Value, double>) {
        result = saturated<T>(round_whole(value, mode));
    } else {
        result = saturated<T>(value);
    }
    return result;
}

}  // namespace moe_jit::emulator
