"""One launch of an Ascend C kernel: what is compiled, its arguments, and where it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, NamedTuple

import torch

from moe_jit import backends, jit
from moe_jit.jit.spec import EMULATOR, NPU

from . import emulator, npu

_WRAPPERS = {EMULATOR: "ascend/launch/emulator.cpp", NPU: "ascend/launch/npu.cpp"}


@dataclass(frozen=True)
class Kernel:
    """``entry`` of the file ``source`` below csrc/, which takes ``num_arguments`` addresses."""

    source: str
    entry: str
    num_arguments: int
    defines: tuple[tuple[str, str], ...] = ()

    def module(self, target: str) -> jit.ModuleSpec:
        addresses = ",".join(f"at({i})" for i in range(self.num_arguments))
        defines = (*self.defines, ("MOE_JIT_ENTRY", self.entry), ("MOE_JIT_ARGUMENTS(at)", addresses))
        unit = jit.Unit(self.source, defines, _WRAPPERS[target])
        return jit.ModuleSpec(f"{self.entry}_{target.replace('-', '_')}", (unit,), target)


class Role(Enum):
    """What a kernel does with an argument; the emulator holds it to that."""

    INPUT = "i"
    OUTPUT = "o"
    IN_OUT = "u"
    WORKSPACE = "w"


class Argument(NamedTuple):
    """None is passed as a null pointer."""

    name: str
    tensor: torch.Tensor | None
    role: Role = Role.INPUT


@cache
def _function(kernel: Kernel, target: str) -> Callable[..., Any]:
    function: Callable[..., Any] = jit.load(kernel.module(target))["launch"]
    return function


def num_cores(kind: str, device: torch.device) -> int:
    """Cube cores of what ``kind`` names: the NPU's, or as many as ``use_backend`` was given."""
    return backends.chosen().cores if kind == backends.EMULATOR else npu.num_cores(device)


def launch(kind: str, kernel: Kernel, blocks: int, arguments: list[Argument]) -> None:
    """Run ``kernel`` on ``blocks`` blocks of cores: on the NPU of the current stream, or on the emulator.

    Raises EmulatorError where the kernel breaks a rule of the chip.
    """
    if len(arguments) != kernel.num_arguments:
        expected = f"{kernel.num_arguments} for {kernel.entry}"
        raise ValueError(f"arguments: given {len(arguments)}, expected {expected}")
    if kind == backends.EMULATOR:
        emulator.run(_function(kernel, EMULATOR), kernel.entry, blocks, arguments)
    else:
        addresses = [0 if a.tensor is None else a.tensor.data_ptr() for a in arguments]
        _function(kernel, NPU)(blocks, npu.current_stream(), *addresses)
