"""Kernels on the host emulator: its errors and its reports."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moe_jit import backends

if TYPE_CHECKING:
    from .launch import Argument


class EmulatorError(RuntimeError):
    """A kernel broke a rule of the chip. The message says which, and the attributes where.

    Attributes:
        kernel: the entry point.
        file, line: the call in the kernel's source.
        core: such as "AIV 3".
        tensor: the buffer or argument, where one is involved; else empty.
    """

    def __init__(self, kernel: str, message: str, file: str, line: int, core: str, tensor: str) -> None:
        super().__init__(f"{kernel}: {message}")
        self.kernel, self.file, self.line, self.core, self.tensor = kernel, file, line, core, tensor


@dataclass(frozen=True)
class LaunchReport:
    """What one kernel did, and a first model of its time from the chip's published rates.

    Attributes:
        kernel, blocks: the entry point, and on how many blocks of cores it ran.
        seconds: the longest chain of instructions and waits, and not less than ``memory_seconds``.
        bound_seconds: no schedule of the same work takes less: the larger of the next two.
        memory_seconds: ``hbm_bytes`` at the memory's bandwidth.
        cube_seconds: all products, spread evenly over the cubes of the chip.
        own_bound_seconds: no schedule of all that this kernel does takes less: the largest of those two and
            of the next three, which are no part of the bound because they are the kernel's choice.
        load_seconds: operands on their way from global memory to the cubes, spread evenly.
        store_seconds: sums on their way from the cubes to global memory, spread evenly.
        vector_seconds: vector instructions, spread evenly over the vector cores.
        hbm_bytes: lines of global memory that were touched, each counted once; caches serve the rest.
        bytes: moved over each path, such as ``"GM_L1"``.
        cube_operations: additions and multiplications for each type of operand.
        vector_repeats: vector instructions of up to 256 bytes.
        cores: for each core the second at which it ends.
        busy_seconds: for each core how long each of its pipes worked.
    """

    kernel: str
    blocks: int
    seconds: float
    bound_seconds: float
    memory_seconds: float
    cube_seconds: float
    own_bound_seconds: float
    load_seconds: float
    store_seconds: float
    vector_seconds: float
    hbm_bytes: int
    bytes: dict[str, int]
    cube_operations: dict[str, int]
    vector_repeats: int
    cores: dict[str, float]
    busy_seconds: dict[str, dict[str, float]]

    @classmethod
    def of(cls, kernel: str, blocks: int, text: str) -> LaunchReport:
        facts = json.loads(text)
        cores = facts.pop("cores")
        facts["cores"] = {core["name"]: core["seconds"] for core in cores}
        facts["busy_seconds"] = {core["name"]: core["busy_seconds"] for core in cores}
        return cls(kernel, blocks, **facts)


@dataclass
class EmulatorReport:
    """The launches inside a ``with emulator_report()``, in order."""

    count_only: bool = False
    launches: list[LaunchReport] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Estimated, one launch after the other."""
        return sum(launch.seconds for launch in self.launches)

    @property
    def bytes(self) -> dict[str, int]:
        """Of all launches, for each path."""
        return dict(sum((Counter(launch.bytes) for launch in self.launches), Counter()))


_collected: ContextVar[EmulatorReport | None] = ContextVar("moe_jit_emulator_report", default=None)
_last: ContextVar[LaunchReport | None] = ContextVar("moe_jit_emulator_last", default=None)
_one_at_a_time = threading.Lock()  # a module's emulator is one machine


@contextmanager
def emulator_report(count_only: bool = False) -> Iterator[EmulatorReport]:
    """Collect the reports of the launches inside the ``with``.

    ``count_only``: kernels compute nothing and read only what steers them, such as group lists; results are
    undefined. For the statistics and times of large problems.
    """
    report = EmulatorReport(count_only)
    token = _collected.set(report)
    try:
        yield report
    finally:
        _collected.reset(token)


def last_report() -> LaunchReport | None:
    """The report of the last launch of this thread; None before the first."""
    return _last.get()


def run(function: Callable[..., Any], kernel: str, blocks: int, arguments: list[Argument]) -> None:
    """Call the module's function and keep its report; raises EmulatorError."""
    names = " ".join(argument.name for argument in arguments)
    roles = "".join("-" if a.tensor is None else a.role.value for a in arguments)
    memory: list[int] = []
    for _, tensor, _ in arguments:
        memory += (0, 0) if tensor is None else (tensor.data_ptr(), tensor.numel() * tensor.element_size())
    choice = backends.chosen()
    collected = _collected.get()
    count_only = collected is not None and collected.count_only
    with _one_at_a_time:
        result = function(blocks, choice.cores, choice.seed, count_only, names, roles, *memory)
    if not isinstance(result, str):
        message, file, line, core, where = map(str, result)
        raise EmulatorError(kernel, message, file, int(line), core, where)
    report = LaunchReport.of(kernel, blocks, str(result))
    _last.set(report)
    if collected is not None:
        collected.launches.append(report)
