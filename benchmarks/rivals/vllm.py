"""vLLM's Triton fused_experts with static per-tensor scales; quantises its bf16 input inside the call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from inputs import Inputs
from layers import INTERMEDIATE_GAIN, Layer

from moe_jit.enums import ActivationType
from rivals.base import Rival, Unavailable


class Vllm(Rival):
    name = "vllm"

    def __init__(self, layer: Layer) -> None:
        try:
            from vllm.model_executor.layers.fused_moe import fused_experts
            from vllm.model_executor.layers.fused_moe.config import fp8_w8a8_moe_quant_config
        except ImportError as error:
            raise Unavailable(f"not importable ({error})") from error
        if layer.model.activation is not ActivationType.Swiglu:
            raise Unavailable(f"no {layer.model.activation.name} activation here")
        self.layer, self.run = layer, fused_experts
        one = torch.ones((), device=layer.scale1.device)
        self.quant_config = fp8_w8a8_moe_quant_config(
            w1_scale=layer.gate_scale,
            w2_scale=layer.scale2 * INTERMEDIATE_GAIN,
            a1_scale=one,
            a2_scale=one / INTERMEDIATE_GAIN,
        )
        self.expert_map = None
        if layer.is_sharded:
            local = torch.arange(layer.model.num_experts, device=one.device) - layer.local_offset
            self.expert_map = torch.where((local >= 0) & (local < layer.num_local), local, -1).int()
        self.widened: dict[int, torch.Tensor] = {}

    def tune(self, inputs: Sequence[Inputs]) -> str:
        """vLLM picks its own config; bf16 copies of the tokens are made here, outside the timing."""
        self.widened = {x.hidden.data_ptr(): x.hidden.bfloat16() for x in inputs}
        return ""

    def call(self, index: int, inputs: Inputs) -> torch.Tensor:
        weights = self.layer.weights_of_call(index)
        return self.run(
            self.widened[inputs.hidden.data_ptr()],
            weights.gemm1,
            weights.gemm2,
            inputs.weights,
            inputs.ids,
            apply_router_weight_on_input=self.layer.model.scale_input,
            global_num_experts=self.layer.model.num_experts,
            expert_map=self.expert_map,
            quant_config=self.quant_config,
        )
