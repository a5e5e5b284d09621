// Numbers of parameters of the operators with torch_npu's signatures, for CPU, CUDA and Ascend C alike: no
// other header is needed to read them.
#pragma once

namespace moe_jit {

// `group_list_type`
enum class GroupListType : int { kCumulative = 0, kCounts = 1, kSparse = 2 };

// `act_type` of npu_grouped_matmul
enum class PointwiseType : int { kNone = 0, kRelu = 1, kGeluTanh = 2, kFastGelu = 4, kSilu = 5 };

// `swiglu_mode` of npu_dequant_swiglu_quant
enum class GluMode : int { kSwiglu = 0, kClampedInterleaved = 1, kClampedHalves = 2, kClampedSilu = 3 };

}  // namespace moe_jit
