"""Implementations of the expert layer that one benchmark run times side by side."""

from __future__ import annotations

from rivals.base import Rival, Unavailable
from rivals.flashinfer import FlashInfer
from rivals.hpc_ops import HpcOps
from rivals.moe_jit import MoeJit
from rivals.torch_grouped import TorchGrouped
from rivals.triton_moe import TritonMoe
from rivals.vllm import Vllm

OURS = MoeJit.name
RIVALS: dict[str, type[Rival]] = {
    r.name: r for r in (MoeJit, TritonMoe, TorchGrouped, Vllm, FlashInfer, HpcOps)
}

__all__ = ["OURS", "RIVALS", "Rival", "Unavailable"]
