"""One launch of an Ascend C kernel: what is compiled, its arguments, and where it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch

from moe_jit import backends, jit
from moe_jit.checks import reject
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


def run_kernel(
    source: str | Path, entry: str, arguments: Sequence[Argument], *, blocks: int, cores: int = 24
) -> emulator.LaunchReport:
    """Compile an Ascend C kernel of your own and run it on the emulator.

    Args:
        source: a .cpp file that includes only ``kernel_operator.h`` (and headers of its own).
        entry: the name of its ``extern "C" __global__ __aicore__`` function, which takes only GM_ADDR.
        arguments: its arguments in order; contiguous CPU tensors, or None for a null pointer.
        blocks: as in ``entry<<<blocks, ...>>>``.
        cores: cube cores of the emulated chip, each with two vector cores.

    Returns:
        The report of the launch.

    Raises:
        EmulatorError: the kernel breaks a rule of the chip.
        CompileError: with the compiler's messages.
        ValueError: naming the argument.
    """
    for argument in arguments:
        tensor = argument.tensor
        if tensor is not None and (tensor.device.type != "cpu" or not tensor.is_contiguous()):
            given = f"a tensor of strides {tensor.stride()} on {tensor.device}"
            reject(argument.name, "contiguous and on the CPU", given)
    kernel = Kernel(str(Path(source).absolute()), entry, len(arguments))
    with backends.use_backend(backends.EMULATOR, cores=cores):
        launch(backends.EMULATOR, kernel, blocks, list(arguments))
    report = emulator.last_report()
    assert report is not None
    return report
