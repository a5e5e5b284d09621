// Symmetric quantisation of a row by its largest magnitude. The recipes differ in the last bit.
#pragma once

#include "moe_jit/core/rounding.h"

namespace moe_jit {

enum class QuantRecipe {
    kDivideByScale,         // scale = amax * (1 / largest), q = v / scale
    kMultiplyByReciprocal,  // scale = amax / largest,       q = v * (1 / scale)
    kMultiplyByRatio        // scale = amax * (1 / largest), q = v * (largest / amax)
};

// `largest` is 127 for int8 and 7 for int4. A row of zeros has scale 0 and quantises to zeros.
struct RowQuantizer {
    QuantRecipe recipe;
    float scale;
    float factor;

    MOE_JIT_HD static MOE_JIT_INLINE RowQuantizer of(QuantRecipe recipe, float amax, float largest) {
        const float scale = recipe == QuantRecipe::kMultiplyByReciprocal ? fp32::div(amax, largest)
                                                                         : fp32::mul(amax, 1.0f / largest);
        if (!(scale > 0.0f)) return {QuantRecipe::kMultiplyByRatio, 0.0f, 0.0f};
        switch (recipe) {
            case QuantRecipe::kDivideByScale:
                return {recipe, scale, scale};
            case QuantRecipe::kMultiplyByReciprocal:
                return {recipe, scale, fp32::div(1.0f, scale)};
            default:
                return {recipe, scale, fp32::div(largest, amax)};
        }
    }

    // Before rounding.
    MOE_JIT_HD MOE_JIT_INLINE float apply(float value) const {
        return recipe == QuantRecipe::kDivideByScale ? fp32::div(value, factor) : fp32::mul(value, factor);
    }
};

}  // namespace moe_jit
