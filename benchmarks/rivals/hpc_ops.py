"""Tencent's hpc-ops fuse_moe with static per-tensor scales."""

from __future__ import annotations

import torch
from inputs import Inputs
from layers import INTERMEDIATE_GAIN, Layer

from moe_jit.enums import ActivationType
from rivals.base import Rival, Unavailable


class HpcOps(Rival):
    name = "hpc_ops"

    def __init__(self, layer: Layer) -> None:
        try:
            from hpc import fuse_moe
        except ImportError as error:
            raise Unavailable(f"not importable ({error})") from error
        if layer.model.activation is not ActivationType.Swiglu or layer.model.scale_input:
            raise Unavailable("only SwiGLU with router weights on the output")
        self.layer, self.run = layer, fuse_moe
        self.intermediate_scale = torch.full((1,), INTERMEDIATE_GAIN, device=layer.scale1.device)

    def call(self, index: int, inputs: Inputs) -> torch.Tensor:
        layer = self.layer
        weights = layer.weights_of_call(index)
        return self.run(
            inputs.hidden,
            weights.gemm1,
            weights.gemm2,
            layer.gate_scale,
            layer.scale2,
            self.intermediate_scale,
            inputs.ids,
            inputs.weights,
            layer.local_offset // layer.num_local,
            layer.model.num_experts,
        )
