"""Which device runs a call, and the compiled function that does."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import cache
from typing import Any, NamedTuple

import torch

from . import jit
from .checks import integer, reject
from .jit.target import SUPPORTED_GPUS, target_of_capability
from .plan import Tactic, plan
from .problem import Device, MoEProblem

_SUPPORTED = f"on the CPU or on a GPU of {SUPPORTED_GPUS}"
CPU_MODULE = jit.ModuleSpec("fp8_moe_cpu", (jit.Unit("cpu/fp8_moe.cpp"),), "cpu")


AUTO = "auto"
EMULATOR = "ascend-emulator"
_MAX_CORES = 64


class Choice(NamedTuple):
    """A backend, and the chip that the emulator stands for."""

    name: str = AUTO
    cores: int = 24
    seed: int = 0


_chosen: ContextVar[Choice] = ContextVar("moe_jit_backend", default=Choice())  # noqa: B039


class use_backend:
    """Choose what runs the calls of this thread (or asyncio task); at once, and in a ``with`` only inside it.

    Args:
        name: ``"auto"``: the device of the tensors decides. ``"ascend-emulator"``: CPU tensors go through the
            Ascend C kernels, which a host program executes and checks; an operator without one raises.
        cores: cube cores of the emulated chip, each with two vector cores; Atlas A2 and A3 have 20 or 24.
        seed: of the order in which the emulator lets its cores run.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    def __init__(self, name: str, *, cores: int = 24, seed: int = 0) -> None:
        if name not in (AUTO, EMULATOR):
            reject("name", f"{AUTO!r} or {EMULATOR!r}", repr(name))
        choice = Choice(name, integer("cores", cores, 1, _MAX_CORES), integer("seed", seed, 0))
        self._before = _chosen.get()
        _chosen.set(choice)

    def __enter__(self) -> use_backend:
        return self

    def __exit__(self, *_: object) -> None:
        _chosen.set(self._before)


def chosen() -> Choice:
    """What ``use_backend`` was called with; its defaults without a call."""
    return _chosen.get()


def kind_of(device: torch.device, argument: str) -> str:
    """What runs a call whose ``argument`` is on ``device``: the device's type, or the chosen backend."""
    if _chosen.get().name == AUTO:
        return device.type
    if device.type != "cpu":
        reject(argument, f"on the CPU with the backend {EMULATOR!r}", device)
    return EMULATOR


def require_auto(operator: str) -> None:
    """For an operator that no chosen backend runs."""
    if (name := _chosen.get().name) != AUTO:
        raise ValueError(f"use_backend: {name!r} does not run {operator}; choose {AUTO!r} for it")


@cache
def describe(device: torch.device, name: str = "hidden_states") -> Device:
    """The device of argument ``name``; raises ValueError for a device without a backend."""
    if device.type == "cpu":
        return Device("cpu")
    if device.type != "cuda" or torch.version.hip is not None:
        reject(name, _SUPPORTED, device)
    properties = torch.cuda.get_device_properties(device)
    capability = (properties.major, properties.minor)
    if target_of_capability(capability) is None:
        given = f"{device} ({properties.name}, compute capability {capability[0]}.{capability[1]})"
        reject(name, _SUPPORTED, given)
    index = torch.cuda.current_device() if device.index is None else device.index
    target = jit.cuda_target(capability)
    return Device("cuda", index, target, properties.multi_processor_count, properties.name)


def module_spec(problem: MoEProblem, tactic: Tactic | None = None) -> jit.ModuleSpec:
    """The module that solves ``problem`` with ``tactic`` (None: the default one)."""
    return CPU_MODULE if problem.device.kind == "cpu" else plan(problem, tactic).module


def load(spec: jit.ModuleSpec) -> Callable[..., Any]:
    """Compile or load a module and return its ``fp8_moe`` function."""
    function: Callable[..., Any] = jit.load(spec)["fp8_moe"]
    return function
