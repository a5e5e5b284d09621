"""Float64 and int64 reference of the operators with torch_npu's signatures."""

from moe_jit.reference.ascend.groups import row_experts
from moe_jit.reference.ascend.quantise import Quantised, dequant_swiglu_quant, dynamic_quant

__all__ = ["Quantised", "dequant_swiglu_quant", "dynamic_quant", "row_experts"]
