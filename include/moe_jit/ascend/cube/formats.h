// Operand formats of the matrix unit.
//
// Carrier: the element type of copies. Operand: that of the product. kPack operands make a carrier. kBlock:
// operands in 32 bytes (c0). kSquare: side of the squares that transposing loads work on.
#pragma once

#include "moe_jit/ascend/gm.h"

namespace moe_jit::ascend {

struct Int8 {
    using Carrier = int8_t;
    using Operand = int8_t;
    using Accumulator = int32_t;
    static constexpr int32_t kPack = 1, kBlock = 32, kSquare = 32;
};

struct Int4 {
    using Carrier = int8_t;
    using Operand = int4b_t;
    using Accumulator = int32_t;
    static constexpr int32_t kPack = 2, kBlock = 64, kSquare = 64;
};

// T is half or bfloat16_t.
template <class T>
struct Float16 {
    using Carrier = T;
    using Operand = T;
    using Accumulator = float;
    static constexpr int32_t kPack = 1, kBlock = 16, kSquare = 16;
};

struct Float32 {
    using Carrier = float;
    using Operand = float;
    using Accumulator = float;
    static constexpr int32_t kPack = 1, kBlock = 8, kSquare = 16;
};

constexpr int32_t kFractal = 16;  // rows (or columns) of a fractal, which has 512 bytes

// Carriers in 32 bytes, and in a fractal.
template <class Format>
constexpr int32_t kBlockCarriers = kBlockBytes / static_cast<int32_t>(sizeof(typename Format::Carrier));
template <class Format>
constexpr int32_t kFractalCarriers = kFractal * kBlockCarriers<Format>;
template <class Format>
constexpr int32_t kSquareFractals = Format::kSquare * Format::kSquare / (kFractal * Format::kBlock);
// Whether the fractals of a square lie side by side, so that weights [k, n] are blocked by k first.
template <class Format>
constexpr bool kBlockedByDepth = Format::kBlock < Format::kSquare;

}  // namespace moe_jit::ascend
