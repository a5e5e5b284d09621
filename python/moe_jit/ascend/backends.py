"""Which compiled function runs an operator, by the kind of device.

Every module of an operator exports one function with the operator's name; its arguments are described in
``include/moe_jit/ffi/<operator>_call.h`` and are the same for every device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from moe_jit import backends, jit
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


# On GPUs the module of these depends on the call.
_PLANNED = {"cuda": ("grouped_matmul",)}


@cache
def load(operator: str, module: jit.ModuleSpec) -> Callable[..., Any]:
    """Compile or load a module and return its function ``operator``."""
    function: Callable[..., Any] = jit.load(module)[operator]
    return function


def function_for(
    operator: str,
    device: torch.device,
    argument: str,
    plan: Callable[[], jit.ModuleSpec] | None = None,
) -> Callable[..., Any]:
    """The function that runs ``operator`` on ``device``, which is that of ``argument``; on a GPU, the one of
    the module that ``plan`` chooses.

    Raises ValueError where no module supports the device; nothing falls back to another one.
    """
    if plan is not None and operator in _PLANNED.get(device.type, ()):
        backends.describe(device, argument)
        return load(operator, plan())
    if operator not in _MODULES.get(device.type, {}):
        offers = {kind: (*_MODULES.get(kind, {}), *_PLANNED.get(kind, ())) for kind in ("cpu", "cuda")}
        kinds = " or ".join(kind for kind, operators in offers.items() if operator in operators)
        reject(argument, f"on a device that npu_{operator} supports ({kinds})", device)
    return load(operator, _MODULES[device.type][operator])
