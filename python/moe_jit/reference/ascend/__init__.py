"""Float64 and int64 reference of the operators with torch_npu's signatures."""

from moe_jit.reference.ascend.finalize import scatter_rows
from moe_jit.reference.ascend.groups import row_experts
from moe_jit.reference.ascend.matmul import (
    Product,
    accumulate,
    activate,
    dequantised_weight,
    float_product,
    fp19,
    int4_product,
    requantised,
    scaled_product,
)
from moe_jit.reference.ascend.quantise import Quantised, dequant_swiglu_quant, dynamic_quant

__all__ = [
    "Product",
    "Quantised",
    "accumulate",
    "activate",
    "dequant_swiglu_quant",
    "dequantised_weight",
    "dynamic_quant",
    "float_product",
    "fp19",
    "int4_product",
    "requantised",
    "row_experts",
    "scaled_product",
    "scatter_rows",
]
