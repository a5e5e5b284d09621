// Which conversions the vector unit has, with which rounding modes.
#pragma once

#include "moe_jit/ascend_emulator/instructions/formats.h"

namespace moe_jit::emulator {

using ModeSet = uint8_t;
constexpr ModeSet modes(RoundMode mode) { return static_cast<ModeSet>(1u << static_cast<int>(mode)); }

inline constexpr ModeSet kNoMode = 0;
inline constexpr ModeSet kExact = modes(RoundMode::CAST_NONE);
inline constexpr ModeSet kDirected = modes(RoundMode::CAST_RINT) | modes(RoundMode::CAST_FLOOR) |
                                     modes(RoundMode::CAST_CEIL) | modes(RoundMode::CAST_ROUND) |
                                     modes(RoundMode::CAST_TRUNC);
inline constexpr ModeSet kDirectedOrNone = kDirected | kExact;
inline constexpr ModeSet kAnyMode = kDirectedOrNone | modes(RoundMode::CAST_ODD);

template <typename From, typename To>
constexpr ModeSet cast_modes() {
    using AscendC::int4b_t;
    if constexpr (is_one_of<From, int4b_t, int8_t, uint8_t>) {
        return std::is_same_v<To, half> ? kExact : kNoMode;
    } else if constexpr (std::is_same_v<From, int16_t>) {
        if (std::is_same_v<To, half>) return kDirectedOrNone;
        return std::is_same_v<To, float> ? kExact : kNoMode;
    } else if constexpr (std::is_same_v<From, half>) {
        if (is_one_of<To, int4b_t, int8_t, uint8_t>) return kDirectedOrNone;
        if (is_one_of<To, int16_t, int32_t>) return kDirected;
        return std::is_same_v<To, float> ? kExact : kNoMode;
    } else if constexpr (std::is_same_v<From, bfloat16_t>) {
        if (std::is_same_v<To, int32_t>) return kDirected;
        return std::is_same_v<To, float> ? kExact : kNoMode;
    } else if constexpr (std::is_same_v<From, int32_t>) {
        if (is_one_of<To, int16_t, int64_t>) return kExact;
        if (std::is_same_v<To, half>) return kAnyMode;  // the mode has no effect
        return std::is_same_v<To, float> ? kDirectedOrNone : kNoMode;
    } else if constexpr (std::is_same_v<From, float>) {
        if (std::is_same_v<To, half>) return kAnyMode;
        return is_one_of<To, int16_t, bfloat16_t, int32_t, float, int64_t> ? kDirected : kNoMode;
    } else if constexpr (std::is_same_v<From, int64_t>) {
        if (std::is_same_v<To, int32_t>) return kExact;
        return std::is_same_v<To, float> ? kDirected : kNoMode;
    }
    return kNoMode;
}

constexpr const char* mode_name(RoundMode mode) {
    constexpr const char* names[] = {"CAST_NONE",  "CAST_RINT",  "CAST_FLOOR", "CAST_CEIL",
                                     "CAST_ROUND", "CAST_TRUNC", "CAST_ODD"};
    return names[static_cast<int>(mode)];
}

// An element, except for int32 to half, which multiplies by DEQSCALE: see Cast.
template <typename To, typename From>
To converted(From value, RoundMode mode) {
    if constexpr (std::is_same_v<To, float> && std::is_same_v<From, float>) {
        return static_cast<float>(round_whole(static_cast<double>(value), mode));
    } else {
        using W = Wide<From>;
        W wide;
        if constexpr (is_float_v<From>)
            wide = static_cast<double>(static_cast<float>(value));
        else
            wide = static_cast<int64_t>(value);
        return rounded<To>(wide, mode);
    }
}

// Four-bit integers, two to a byte.
inline int32_t int4_of(const uint8_t* bytes, int64_t element) {
    const uint32_t nibble = (bytes[element >> 1] >> (4 * (element & 1))) & 15u;
    return static_cast<int32_t>(nibble ^ 8u) - 8;
}

inline void set_int4(uint8_t* bytes, int64_t element, int32_t value) {
    const int shift = static_cast<int>(4 * (element & 1));
    uint8_t& byte = bytes[element >> 1];
    byte = static_cast<uint8_t>((byte & ~(15u << shift)) | ((static_cast<uint32_t>(value) & 15u) << shift));
}

inline int32_t saturated_int4(double whole) {
    if (std::isnan(whole)) return 0;
    return static_cast<int32_t>(whole < -8 ? -8 : whole > 7 ? 7 : whole);
}

}  // namespace moe_jit::emulator
