"""From a plan and tensors to a launch: workspace, tiling and the kernel to compile."""

from __future__ import annotations

from functools import cache

import torch

from . import launch
from .kernel_structs import Plan
from .launch import Argument, Kernel, Role

FORMATS = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.int32: "i32"}
_ALIGNMENT = 512


@cache
def _on_device(data: bytes, device: torch.device) -> torch.Tensor:
    """Kept, so that a repeated call copies nothing to the device."""
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)


def _workspace(size: int, device: torch.device) -> torch.Tensor | None:
    """Scratch memory of the current stream, aligned."""
    if not size:
        return None
    memory = torch.empty(size + _ALIGNMENT, dtype=torch.uint8, device=device)
    skipped = -memory.data_ptr() % _ALIGNMENT
    return memory[skipped : skipped + size]


def run(kind: str, plan: Plan, device: torch.device, arguments: list[Argument]) -> None:
    common = [
        Argument("workspace", _workspace(plan.workspace, device), Role.WORKSPACE),
        Argument("tiling", _on_device(plan.tiling, device)),
    ]
    kernel = Kernel(f"ascend/{plan.entry}.cpp", plan.entry, len(arguments) + len(common))
    launch.launch(kind, kernel, plan.blocks, [*arguments, *common])


def inputs(**tensors: torch.Tensor | None) -> list[Argument]:
    return [Argument(name, tensor) for name, tensor in tensors.items()]
