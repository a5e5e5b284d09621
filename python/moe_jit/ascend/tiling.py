"""How a call is divided over an Ascend chip: pure functions of sizes."""

from .dequant_tiling import plan_dequant_swiglu_quant
from .kernel_structs import CHIP, Chip, GroupListTiling, Plan
from .matmul_tiling import Tile, WeightLayout, candidates, plan_finalize_routing, plan_grouped_matmul

__all__ = [
    "CHIP",
    "Chip",
    "GroupListTiling",
    "Plan",
    "Tile",
    "WeightLayout",
    "candidates",
    "plan_dequant_swiglu_quant",
    "plan_finalize_routing",
    "plan_grouped_matmul",
]
