"""This library: routing from logits, experts and finalize in one call."""

from __future__ import annotations

import torch
from inputs import Inputs
from layers import Layer

import moe_jit
from rivals.base import Rival


class MoeJit(Rival):
    name = "moe_jit"
    weight_layout = "shuffled"
    routes = True

    def __init__(self, layer: Layer, enable_pdl: bool | None = None) -> None:
        self.layer = layer
        self.enable_pdl = enable_pdl

    def call(self, index: int, inputs: Inputs) -> torch.Tensor:
        layer, m = self.layer, self.layer.model
        weights = layer.weights_of_call(index)
        output = moe_jit.trtllm_fp8_per_tensor_scale_moe(
            inputs.logits, None, inputs.hidden, weights.gemm1, layer.scale1, layer.gate_scale,
            weights.gemm2, layer.scale2, m.num_experts, m.top_k, m.n_group, m.topk_group,
            m.intermediate_size, layer.local_offset, layer.num_local, 1.0, m.scale_input, int(m.routing),
            activation_type=int(m.activation), weight_layout=self.weight_layout,
            enable_pdl=self.enable_pdl,
        )  # fmt: skip
        assert isinstance(output, torch.Tensor)
        return output
