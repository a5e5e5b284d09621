"""Compiles everything that a model needs before an engine starts."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import backends, checks, jit
from ..problem import Device
from .models import ExpertLayer, expert_layer, read_config

_HOPPER_SMS = 132


@dataclass(frozen=True)
class WarmupReport:
    """What a warm-up prepared."""

    layer: ExpertLayer
    specs: tuple[jit.ModuleSpec, ...]
    paths: tuple[Path, ...]  # of the compiled modules, in the order of the specs
    seconds: float


def warmup(
    model: str | Path | Mapping[str, Any],
    *,
    tp: int = 1,
    ep: int = 1,
    max_tokens: int = 8192,
    arch: str = "9.0a",
    output: str | Path | None = None,
) -> WarmupReport:
    """Compile every module that the expert layers of a model can need, in parallel.

    Args:
        model: a Hugging Face config.json, a directory that holds one, or its contents.
        tp: ranks that share each expert's intermediate size.
        ep: ranks that share the experts.
        max_tokens: the most tokens of a call; every smaller number is covered too, routed here or before.
        arch: "9.0a" (Hopper), or "cpu". No GPU is needed.
        output: None to fill the user's cache only, or a directory to copy the modules to. A machine without
            compilers uses it as ``MOE_JIT_PREBUILT_DIR``; several models can share one directory.

    Raises ValueError for a model, shape or architecture that is not supported, and what compiling raises.
    """
    start = time.monotonic()
    checks.integer("max_tokens", max_tokens, 1)
    for name, ways in (("tp", tp), ("ep", ep)):
        checks.integer(name, ways, 1)
    layer = expert_layer(read_config(model)).shard(tp, ep)
    specs = module_specs(layer, max_tokens, _device(arch))
    entries = jit.build_all(specs)
    if output is not None:
        store = jit.Store(Path(output).expanduser().absolute())
        entries = [store.adopt(entry) for entry in entries]
    paths = tuple(entry.payload for entry in entries)
    return WarmupReport(layer, tuple(specs), paths, time.monotonic() - start)


def module_specs(layer: ExpertLayer, max_tokens: int, device: Device) -> list[jit.ModuleSpec]:
    """The distinct modules of all calls with 1 to ``max_tokens`` tokens."""
    routed = (False, True) if layer.routing_method is not None else (True,)
    problems = (
        layer.problem(num_tokens, device, pre_routed=pre_routed)
        for pre_routed in routed
        for num_tokens in range(1, max_tokens + 1)
    )
    return list(dict.fromkeys(map(backends.module_spec, problems)))


def _device(arch: str) -> Device:
    if arch == "cpu":
        return Device("cpu")
    if not re.fullmatch(r"(sm_)?9\.?0a?", arch):
        raise ValueError(f"arch must be '9.0a' or 'cpu', got {arch!r}")
    if torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0):
        return backends.describe(torch.device("cuda", torch.cuda.current_device()))
    return Device("cuda", compute_capability=(9, 0), sm_count=_HOPPER_SMS)
