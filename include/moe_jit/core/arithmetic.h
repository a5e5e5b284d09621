// fp32 operations that round once, to nearest even, on every platform: the compiler can neither contract nor
// reorder them. (Host code is compiled with -ffp-contract=off.)
#pragma once

#include <cmath>

#include "moe_jit/core/platform.h"

namespace moe_jit::fp32 {

#if MOE_JIT_DEVICE_PASS
#define MOE_JIT_FP32(device, host) return device
#else
#define MOE_JIT_FP32(device, host) return host
#endif

MOE_JIT_HD MOE_JIT_INLINE float add(float a, float b) { MOE_JIT_FP32(__fadd_rn(a, b), a + b); }
MOE_JIT_HD MOE_JIT_INLINE float mul(float a, float b) { MOE_JIT_FP32(__fmul_rn(a, b), a * b); }
MOE_JIT_HD MOE_JIT_INLINE float div(float a, float b) { MOE_JIT_FP32(__fdiv_rn(a, b), a / b); }
MOE_JIT_HD MOE_JIT_INLINE float fma(float a, float b, float c) {
    MOE_JIT_FP32(__fmaf_rn(a, b, c), __builtin_fmaf(a, b, c));
}
MOE_JIT_HD MOE_JIT_INLINE float rint(float a) { MOE_JIT_FP32(rintf(a), __builtin_rintf(a)); }
MOE_JIT_HD MOE_JIT_INLINE float abs(float a) { MOE_JIT_FP32(fabsf(a), __builtin_fabsf(a)); }

#undef MOE_JIT_FP32

// A NaN bound never wins; a NaN value becomes `low`.
MOE_JIT_HD MOE_JIT_INLINE float clamp(float value, float low, float high) {
    const float raised = value > low ? value : low;
    return raised < high ? raised : high;
}

}  // namespace moe_jit::fp32
