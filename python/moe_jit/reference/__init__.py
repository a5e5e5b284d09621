"""Reference implementation in torch, independent of the native code, and when a result agrees with it."""

from moe_jit.reference.agreement import Agreement, compare_output, compare_routing, compare_rows
from moe_jit.reference.experts import FP32, HOPPER_FP8, HOPPER_FP8_FAST, Accumulation, Reference, fp8_moe
from moe_jit.reference.routing import route, selection_keys, selection_margin

__all__ = [
    "FP32",
    "HOPPER_FP8",
    "HOPPER_FP8_FAST",
    "Accumulation",
    "Agreement",
    "Reference",
    "compare_output",
    "compare_routing",
    "compare_rows",
    "fp8_moe",
    "route",
    "selection_keys",
    "selection_margin",
]
