"""Which compiled function runs an operator, by the kind of device.

Every module of an operator exports one function with the operator's name; its arguments are described in
``include/moe_jit/ffi/<operator>_call.h`` and are the same for every device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from moe_jit import jit
from moe_jit.backends import kind_of, require_auto
from moe_jit.checks import reject

OPERATORS = (
    "dequant_swiglu_quant",
    "dynamic_quant",
    "grouped_matmul",
    "grouped_matmul_finalize_routing",
)

_MODULES = {
    "cpu": {name: jit.ModuleSpec(f"{name}_cpu", (jit.Unit(f"cpu/{name}.cpp"),), "cpu") for name in OPERATORS},
}


@cache
def load(operator: str, kind: str) -> Callable[..., Any]:
    """Compile or load the module of ``operator`` for a device kind and return its function."""
    function: Callable[..., Any] = jit.load(_MODULES[kind][operator])[operator]
    return function


def function_for(operator: str, device: torch.device, argument: str) -> Callable[..., Any]:
    """The function that runs ``operator`` on ``device`` (that of ``argument``), or on the chosen backend.

    Raises ValueError where no module supports it; nothing falls back to another one.
    """
    kind = kind_of(device, argument)
    if operator not in _MODULES.get(kind, {}):
        require_auto(f"npu_{operator}")
        kinds = " or ".join(sorted(kind for kind, modules in _MODULES.items() if operator in modules))
        reject(argument, f"on a device that npu_{operator} supports ({kinds})", device)
    return load(operator, kind)
