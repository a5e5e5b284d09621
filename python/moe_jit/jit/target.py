"""What GPU modules are compiled for: the one place that knows which architectures have code."""

from __future__ import annotations

import os
import re

from .spec import HOPPER
from .toolchain import ToolchainError

SUPPORTED_GPUS = "compute capability 9.0 (Hopper: H100, H200, H800, H20, GH200)"


def target_of_capability(capability: tuple[int, int]) -> str | None:
    """The target that runs on GPUs of a compute capability, or None where there is none."""
    return HOPPER if capability == (9, 0) else None


def target_of_arch(name: str, arch: str) -> str:
    """The target that ``arch`` spells ("9.0a", "90a", "sm_90a"); an error calls the setting ``name``."""
    if re.fullmatch(r"(sm_)?9\.?0a?", arch):
        return HOPPER
    raise ToolchainError(f"{name}: given {arch!r}, expected 9.0a (the supported architecture)")


def cuda_target(capability: tuple[int, int]) -> str:
    """The target for a device of this compute capability: that of MOE_JIT_CUDA_ARCH, where it is set.

    Raises ToolchainError for a capability or a variable without a target.
    """
    if arch := os.environ.get("MOE_JIT_CUDA_ARCH", "").strip():
        return target_of_arch("MOE_JIT_CUDA_ARCH", arch)
    if target := target_of_capability(capability):
        return target
    given = ".".join(map(str, capability))
    raise ToolchainError(f"compute capability: given {given}, expected {SUPPORTED_GPUS}")
