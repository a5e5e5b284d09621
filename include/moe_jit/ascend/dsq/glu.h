// Gated activations of npu_dequant_swiglu_quant in its order of operations: moe_jit/core/glu.h for vectors.
#pragma once

#include "moe_jit/ascend/tiling.h"
#include "moe_jit/ascend/vector/transfer.h"
#include "moe_jit/core/operator_modes.h"

namespace moe_jit::ascend::dsq {

class Glu {
  public:
    __aicore__ inline explicit Glu(const DequantSwigluQuantTiling& tiling)
        : mode_(static_cast<GluMode>(tiling.swiglu_mode)),
          limit_(tiling.clamp_limit),
          alpha_(tiling.glu_alpha),
          bias_(tiling.glu_bias) {}

    __aicore__ inline bool interleaved() const { return mode_ == GluMode::kClampedInterleaved; }

    // The result replaces `activated`; `linear` and `scratch` are lost.
    __aicore__ inline void apply(const LocalTensor<float>& activated, const LocalTensor<float>& linear,
                                 const LocalTensor<float>& scratch, int32_t count) const {
        if (mode_ != GluMode::kSwiglu) clamp(linear, count);
        const bool clamps_input = mode_ == GluMode::kClampedInterleaved || mode_ == GluMode::kClampedHalves;
        if (clamps_input) {
            Mins(activated, activated, limit_, count);
            Adds(linear, linear, bias_, count);
            vector_barrier();
        }
        times_sigmoid(activated, scratch, clamps_input ? alpha_ : 1.0f, count);
        if (mode_ == GluMode::kClampedSilu) {
            Mins(activated, activated, limit_, count);
            vector_barrier();
        }
        Mul(activated, activated, linear, count);
        vector_barrier();
    }

  private:
    __aicore__ inline void clamp(const LocalTensor<float>& values, int32_t count) const {
        Maxs(values, values, -limit_, count);
        vector_barrier();
        Mins(values, values, limit_, count);
        vector_barrier();
    }

    // a / (1 + exp(-factor * a))
    __aicore__ inline void times_sigmoid(const LocalTensor<float>& a, const LocalTensor<float>& scratch,
                                         float factor, int32_t count) const {
        Muls(scratch, a, -factor, count);
        vector_barrier();
        Exp(scratch, scratch, count);
        vector_barrier();
        Adds(scratch, scratch, 1.0f, count);
        vector_barrier();
        Div(a, a, scratch, count);
        vector_barrier();
    }

    GluMode mode_;
    float limit_, alpha_, bias_;
};

}  // namespace moe_jit::ascend::dsq
