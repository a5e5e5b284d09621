"""FlashInfer's CUTLASS fused MoE, autotuned per point."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from inputs import Inputs
from layers import INTERMEDIATE_GAIN, Layer

from moe_jit.enums import ActivationType
from rivals.base import Rival, Unavailable


class FlashInfer(Rival):
    name = "flashinfer"
    weight_layout = "w3_w1"

    def __init__(self, layer: Layer) -> None:
        try:
            from flashinfer.autotuner import autotune
            from flashinfer.fused_moe import cutlass_fused_moe
        except ImportError as error:
            raise Unavailable(f"not importable ({error})") from error
        if layer.model.activation is not ActivationType.Swiglu or layer.model.scale_input:
            raise Unavailable("only SwiGLU with router weights on the output")
        self.layer, self.run, self.autotune = layer, cutlass_fused_moe, autotune
        one = torch.ones((), device=layer.scale1.device)
        self.quant_scales = [
            layer.gate_scale,
            one * INTERMEDIATE_GAIN,
            layer.scale2,
            one,
        ]
        self.num_shards = layer.model.num_experts // layer.num_local

    def tune(self, inputs: Sequence[Inputs]) -> str:
        with self.autotune(True):
            self.call(0, inputs[0])
        return "autotuned"

    def call(self, index: int, inputs: Inputs) -> torch.Tensor:
        weights = self.layer.weights_of_call(index)
        output = torch.empty(inputs.hidden.shape, dtype=torch.bfloat16, device=inputs.hidden.device)
        self.run(
            input=inputs.hidden,
            token_selected_experts=inputs.ids,
            token_final_scales=inputs.weights,
            fc1_expert_weights=weights.gemm1,
            fc2_expert_weights=weights.gemm2,
            output_dtype=torch.bfloat16,
            quant_scales=self.quant_scales,
            output=output,
            ep_size=self.num_shards,
            ep_rank=self.layer.local_offset // self.layer.num_local,
            tune_max_num_tokens=max(8192, inputs.num_tokens),
        )
        return output
