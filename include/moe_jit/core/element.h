// Element types as run-time numbers.
#pragma once

namespace moe_jit {

enum class Element { kI8, kI32, kI64, kF16, kBf16, kF32 };

}  // namespace moe_jit
