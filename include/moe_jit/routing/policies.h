// Routing methods. A policy is a score (what the logit becomes), a selection key and a weight rule:
//
//   score(logit, row)              fp32; `row` holds softmax statistics when kNeedsRowStats
//   selection_key<Policy>(...)     order key of score, or of score + bias when kUsesBias; larger wins, ties
//   to the
//                                  lower expert index
//   weight(score, top_score)       unnormalised weight of a selected expert; top_score is that of rank 0
//   normalize(weight, sum, rule)   final weight; sum runs over all selected experts, local or not
//
// The CPU backend and the CUDA kernels both instantiate these structs.
#pragma once

#include <cmath>
#include <cstdint>

#include "moe_jit/core/platform.h"
#include "moe_jit/routing/order_key.h"

namespace moe_jit::routing {

enum class Method : int {
    kPreRouted = -1,
    kDefault = 0,
    kRenormalize = 1,
    kDeepSeekV3 = 2,
    kLlama4 = 3,
    kRenormalizeNaive = 4,
    kTopK = 5,
    kSigmoidRenorm = 6,
    kMiniMax2 = 7,
    kSigmoid = 8,
    kTopKSigmoid = 10,
};

struct RowStats {
    float max = 0.0f;  // largest logit
    float sum = 0.0f;  // sum over all experts of exp(logit - max)
};

constexpr int kScanLanes = 32;

struct WeightRule {
    float scaling_factor = 1.0f;
    bool norm_topk_prob = true;
};

MOE_JIT_HD MOE_JIT_INLINE float sigmoid(float x) { return 0.5f * tanhf(0.5f * x) + 0.5f; }

namespace detail {

struct RawScore {
    static constexpr bool kNeedsRowStats = false;
    static constexpr bool kComputedScore = false;
    static constexpr bool kLaneScan = false;
    MOE_JIT_HD static MOE_JIT_INLINE float score(float logit, RowStats) { return logit; }
};

// Each of kScanLanes lanes first reduces its experts (lane, lane + kScanLanes, ...) by a strict ">" scan from
// -inf, and only its winner competes: a NaN never wins, and +0.0 does not displace an earlier -0.0 of the
// same lane.
struct LaneScanScore : RawScore {
    static constexpr bool kLaneScan = true;
    MOE_JIT_HD static MOE_JIT_INLINE float score(float logit, RowStats) {
        return logit != logit ? bits_float(0xff800000u) : logit;
    }
};

struct SigmoidScore {
    static constexpr bool kNeedsRowStats = false;
    static constexpr bool kComputedScore = true;
    static constexpr bool kLaneScan = false;
    MOE_JIT_HD static MOE_JIT_INLINE float score(float logit, RowStats) { return sigmoid(logit); }
};

struct SoftmaxScore {
    static constexpr bool kNeedsRowStats = true;
    static constexpr bool kComputedScore = true;
    static constexpr bool kLaneScan = false;
    MOE_JIT_HD static MOE_JIT_INLINE float score(float logit, RowStats row) {
        return expf(logit - row.max) / row.sum;
    }
};

struct ScoreWeight {
    MOE_JIT_HD static MOE_JIT_INLINE float weight(float score, float) { return score; }
    MOE_JIT_HD static MOE_JIT_INLINE float normalize(float weight, float, WeightRule) { return weight; }
};

struct SigmoidWeight {
    MOE_JIT_HD static MOE_JIT_INLINE float weight(float score, float) { return sigmoid(score); }
    MOE_JIT_HD static MOE_JIT_INLINE float normalize(float weight, float, WeightRule) { return weight; }
};

struct SelectedSoftmaxWeight {
    MOE_JIT_HD static MOE_JIT_INLINE float weight(float score, float top_score) {
        return expf(score - top_score);
    }
    MOE_JIT_HD static MOE_JIT_INLINE float normalize(float weight, float sum, WeightRule) {
        return weight / sum;
    }
};

struct ScaledSumWeight {
    MOE_JIT_HD static MOE_JIT_INLINE float weight(float score, float) { return score; }
    MOE_JIT_HD static MOE_JIT_INLINE float normalize(float weight, float sum, WeightRule rule) {
        return weight * rule.scaling_factor / (sum + 1e-20f);
    }
};

struct OptionalSumWeight {
    MOE_JIT_HD static MOE_JIT_INLINE float weight(float score, float) { return score; }
    MOE_JIT_HD static MOE_JIT_INLINE float normalize(float weight, float sum, WeightRule rule) {
        if (!rule.norm_topk_prob) return weight;
        return weight / (sum < 1e-20f ? 1e-20f : sum);  // a NaN sum stays NaN
    }
};

template <Method kId, class Score, class Weight, bool kBias = false, bool kGroups = false>
struct Policy : Score, Weight {
    static constexpr Method kMethod = kId;
    static constexpr bool kUsesBias = kBias;     // selection only
    static constexpr bool kHasGroups = kGroups;  // group-limited when n_group > 1 at run time
    static constexpr bool kFromLogits = true;
};

}  // namespace detail

using Default = detail::Policy<Method::kDefault, detail::SoftmaxScore, detail::ScoreWeight>;
using Renormalize = detail::Policy<Method::kRenormalize, detail::RawScore, detail::SelectedSoftmaxWeight>;
using DeepSeekV3 =
    detail::Policy<Method::kDeepSeekV3, detail::SigmoidScore, detail::ScaledSumWeight, true, true>;
using Llama4 = detail::Policy<Method::kLlama4, detail::LaneScanScore, detail::SigmoidWeight>;
using RenormalizeNaive =
    detail::Policy<Method::kRenormalizeNaive, detail::RawScore, detail::SelectedSoftmaxWeight>;
using TopK = detail::Policy<Method::kTopK, detail::RawScore, detail::ScoreWeight>;
using SigmoidRenorm = detail::Policy<Method::kSigmoidRenorm, detail::SigmoidScore, detail::OptionalSumWeight>;
using MiniMax2 = detail::Policy<Method::kMiniMax2, detail::SigmoidScore, detail::ScaledSumWeight, true>;
using Sigmoid = detail::Policy<Method::kSigmoid, detail::SigmoidScore, detail::ScoreWeight>;
using TopKSigmoid = detail::Policy<Method::kTopKSigmoid, detail::RawScore, detail::SigmoidWeight>;

// Expert ids and weights come from the caller.
struct PreRouted {
    static constexpr Method kMethod = Method::kPreRouted;
    static constexpr bool kFromLogits = false;
};

template <class Policy>
MOE_JIT_HD MOE_JIT_INLINE uint32_t selection_key(float score, float bias) {
    const float value = Policy::kUsesBias ? score + bias : score;
    return Policy::kComputedScore ? order_key_canonical_nan(value) : order_key(value);
}

}  // namespace moe_jit::routing
