"""How a call is divided over an Ascend chip: pure functions of sizes."""

from .dequant_tiling import Batch, batches_to_measure, plan_dequant_swiglu_quant
from .kernel_structs import CHIP, Chip, GroupListTiling, Plan
from .matmul_tiling import (
    Tile,
    WeightLayout,
    candidates,
    plan_finalize_routing,
    plan_grouped_matmul,
    tiles_to_measure,
)

__all__ = [
    "CHIP",
    "Batch",
    "Chip",
    "GroupListTiling",
    "Plan",
    "Tile",
    "WeightLayout",
    "batches_to_measure",
    "candidates",
    "plan_dequant_swiglu_quant",
    "plan_finalize_routing",
    "plan_grouped_matmul",
    "tiles_to_measure",
]
