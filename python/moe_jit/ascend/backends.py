"""Which compiled function runs an operator, by the kind of device.

Every module of an operator exports one function with the operator's name; its arguments are described in
``include/moe_jit/ffi/<operator>_call.h`` and are the same for every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch

from moe_jit import jit
from moe_jit.backends import describe, kind_of, require_auto
from moe_jit.checks import reject

from . import kernel_calls

OPERATORS = (
    "dequant_swiglu_quant",
    "dynamic_quant",
    "grouped_matmul",
    "grouped_matmul_finalize_routing",
)

# Translation units under csrc/cuda, for the operators that have kernels.
_CUDA_UNITS = {
    "dequant_swiglu_quant": ("dequant_swiglu_quant.cpp", "dequant_swiglu_quant.cu"),
    "dynamic_quant": ("dynamic_quant.cpp", "dynamic_quant.cu"),
    "ordered_sum": ("ordered_sum.cpp", "ordered_sum.cu"),
}
# Operators whose GPU modules depend on the call.
_PLANNED = ("grouped_matmul", "grouped_matmul_finalize_routing")
CUDA_OPERATORS = (*_CUDA_UNITS, *_PLANNED)


@cache
def module_spec(operator: str, target: str) -> jit.ModuleSpec | None:
    """The module of ``operator`` for "cpu" or a CUDA target; None where there is none."""
    if target == "cpu":
        return jit.ModuleSpec(f"{operator}_cpu", (jit.Unit(f"cpu/{operator}.cpp"),), target)
    if operator not in _CUDA_UNITS:
        return None
    units = tuple(jit.Unit(f"cuda/{source}") for source in _CUDA_UNITS[operator])
    return jit.ModuleSpec(f"{operator}_{target.replace('_', '')}", units, target)


@cache
def _load(operator: str, spec: jit.ModuleSpec) -> Callable[..., Any]:
    function: Callable[..., Any] = jit.load(spec)[operator]
    return function


@cache
def _target(operator: str, device: torch.device, argument: str) -> str:
    """What modules of the operator are compiled for on a CPU or GPU."""
    kinds = ("cpu", "cuda") if operator in CUDA_OPERATORS else ("cpu",)
    if device.type not in kinds:
        reject(argument, f"on a device that npu_{operator} supports ({' or '.join(kinds)})", device)
    return describe(device, argument).target or "cpu"


def function_for(
    operator: str,
    device: torch.device,
    argument: str,
    plan: Callable[[str], jit.ModuleSpec] | None = None,
    tuning_config: Sequence[int] | None = None,
) -> Callable[..., Any]:
    """The function that runs ``operator`` on ``device`` (that of ``argument``), or on the chosen backend.
    ``plan`` chooses among the modules for a GPU target; ``tuning_config`` is a hint for Ascend C kernels:
    first the expected rows of a group.

    Compiles or loads its module. Raises ValueError where nothing supports it; nothing falls back to another
    one.
    """
    kind = kind_of(device, argument)
    if kind in kernel_calls.KINDS:
        if operator in kernel_calls.FUNCTIONS:
            hints = {"expected_rows": tuning_config[0]} if tuning_config else {}
            return partial(kernel_calls.FUNCTIONS[operator], kind, **hints)
        require_auto(f"npu_{operator}")
    target = _target(operator, device, argument)
    spec = plan(target) if plan and target != "cpu" else module_spec(operator, target)
    assert spec is not None
    return _load(operator, spec)
