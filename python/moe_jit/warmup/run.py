"""Compiles and tunes everything that a model needs before an engine starts."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import backends, checks, jit
from ..enums import WeightLayout
from ..jit.target import target_of_arch, target_of_capability
from ..plan import candidates
from ..problem import Device
from .models import ExpertLayer, expert_layer, read_config
from .tuning import tune as tune_layer

AUTOTUNE_FILE = "autotune.json"  # in the output directory
_HOPPER_SMS = 132


@dataclass(frozen=True)
class WarmupReport:
    """What a warm-up prepared."""

    layer: ExpertLayer
    specs: tuple[jit.ModuleSpec, ...]
    paths: tuple[Path, ...]  # of the compiled modules, in the order of the specs
    tuned: bool
    seconds: float


def warmup(
    model: str | Path | Mapping[str, Any],
    *,
    tp: int = 1,
    ep: int = 1,
    max_tokens: int = 8192,
    arch: str = "9.0a",
    output: str | Path | None = None,
    tune: bool | None = None,
    weight_layout: str | WeightLayout = "w1_w3",
    logits_dtype: torch.dtype = torch.float32,
) -> WarmupReport:
    """Compile every module that the expert layers of a model can need, in parallel, and tune them on a GPU.

    Args:
        model: a Hugging Face config.json, a directory that holds one, or its contents.
        tp: ranks that share each expert's intermediate size.
        ep: ranks that share the experts.
        max_tokens: the most tokens of a call; every smaller number is covered too, routed here or before.
        arch: "9.0a" (Hopper), or "cpu". No GPU is needed.
        output: None to fill the user's cache only, or a directory to copy the modules to. A machine without
            compilers uses it as ``MOE_JIT_PREBUILT_DIR``, and ``autotune.json`` in it as
            ``MOE_JIT_AUTOTUNE_CACHE``; several models can share one directory.
        tune: whether to measure tactics; None where there is a Hopper GPU and the target is one. Without
            ``output`` they go to ``MOE_JIT_AUTOTUNE_CACHE``, if that is set.
        weight_layout, logits_dtype: what the engine will pass, which only tuning distinguishes.

    Raises ValueError for a model, shape or architecture that is not supported, and what compiling raises.
    """
    start = time.monotonic()
    checks.integer("max_tokens", max_tokens, 1)
    for name, ways in (("tp", tp), ("ep", ep)):
        checks.integer(name, ways, 1)
    layer = expert_layer(read_config(model)).shard(tp, ep)
    device = _device(arch)
    specs = module_specs(layer, max_tokens, device)
    entries = jit.build_all(specs)
    if output is not None:
        store = jit.Store(Path(output).expanduser().absolute())
        entries = [store.adopt(entry) for entry in entries]
    gpu = _gpu() if device.kind == "cuda" else None
    if tune and gpu is None:
        raise ValueError(f"tune must be None or False without a Hopper GPU and with arch {arch!r}, got True")
    tuned = gpu is not None and tune is not False
    if gpu is not None and tuned:
        cache = None if output is None else Path(output).expanduser().absolute() / AUTOTUNE_FILE
        layout = WeightLayout.parse(weight_layout)
        tune_layer(layer, max_tokens, cache, device=gpu, weight_layout=layout, logits_dtype=logits_dtype)
    paths = tuple(entry.payload for entry in entries)
    return WarmupReport(layer, tuple(specs), paths, tuned, time.monotonic() - start)


def module_specs(layer: ExpertLayer, max_tokens: int, device: Device) -> list[jit.ModuleSpec]:
    """The distinct modules of all calls with 1 to ``max_tokens`` tokens, with any tactic worth measuring."""
    routed = (False, True) if layer.routing_method is not None else (True,)
    problems = (
        layer.problem(num_tokens, device, pre_routed=pre_routed)
        for pre_routed in routed
        for num_tokens in range(1, max_tokens + 1)
    )
    chosen = ((problem, tactic) for problem in problems for tactic in candidates(problem))
    return list(dict.fromkeys(backends.module_spec(problem, tactic) for problem, tactic in chosen))


def _device(arch: str) -> Device:
    if arch == "cpu":
        return Device("cpu")
    try:
        target = target_of_arch("arch", arch)
    except jit.ToolchainError:
        raise ValueError(f"arch must be '9.0a' or 'cpu', got {arch!r}") from None
    gpu = _gpu()
    return backends.describe(gpu) if gpu else Device("cuda", 0, target, _HOPPER_SMS)


def _gpu() -> torch.device | None:
    """The current device, if it is a supported GPU."""
    if torch.cuda.is_available() and target_of_capability(torch.cuda.get_device_capability()):
        return torch.device("cuda", torch.cuda.current_device())
    return None
