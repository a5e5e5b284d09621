"""vLLM's interface of monolithic FP8 per-tensor experts, served by this package.

vLLM is not imported. In a vLLM plugin, combine ``Fp8PerTensorExperts`` with vLLM's own base class, whose
predicates (``_supports_*``) describe what the base class may select it for::

    class MoEJitExperts(Fp8PerTensorExperts, mk.FusedMoEExpertsMonolithic): ...

Differences from vLLM's TensorRT-LLM experts: weights stay in vLLM's [gate; up] rows without a shuffled copy,
router logits of any float type are accepted for every routing method, ranks may hold a part of the experts,
and ``topk_group`` takes effect.
"""

from __future__ import annotations

from typing import Any

import torch

from .. import checks, scales
from ..enums import WeightLayout
from ..fused_moe import trtllm_fp8_per_tensor_scale_moe
from . import conventions


class Fp8PerTensorExperts:
    """Experts of one layer; reads ``moe_config`` (FusedMoEConfig) and ``quant_config`` (FusedMoEQuantConfig).

    ``quant_config`` must be static per-tensor FP8: ``w1_scale`` and ``w2_scale`` one value or one per local
    expert, ``a1_scale`` and ``a2_scale`` likewise, all real = quantised * scale. ``weight_layout`` is "w1_w3"
    for the rows that vLLM loads, "shuffled" after vLLM's preparation for FlashInfer.
    """

    def __init__(self, moe_config: Any, quant_config: Any, *, weight_layout: str = "w1_w3") -> None:
        if not quant_config.is_per_tensor or quant_config.block_shape is not None:
            checks.reject("quant_config", "static FP8 with per-tensor scales", quant_config)
        self.moe_config, self.quant_config = moe_config, quant_config
        self.weight_layout = WeightLayout.parse(weight_layout).public_name
        self.routing_method = conventions.routing_method(moe_config.routing_method)
        self.top_k = int(moe_config.experts_per_token)
        self.num_local_experts = int(moe_config.num_local_experts)
        self.intermediate_size = int(moe_config.intermediate_size_per_partition)
        self.activation = conventions.activation_type(moe_config.activation)
        self._default_offset = int(moe_config.moe_parallel_config.ep_rank) * self.num_local_experts
        self._offsets: dict[int, int] = {}
        self.kernel_scales = self._combine_scales()

    def _combine_scales(self) -> scales.KernelScales:
        names = ("a1_scale", "w1_scale", "a2_scale", "w2_scale")
        values = {name: getattr(self.quant_config, name) for name in names}
        for name, value in values.items():
            if value is None:
                checks.reject(f"quant_config.{name}", "given (static quantisation)", None)
        a1, w1, a2, w2 = (
            conventions.per_expert(f"quant_config.{name}", value, self.num_local_experts)
            for name, value in values.items()
        )
        return scales.combine(self.activation, a1.amax(), w1, w1, a2, w2)

    def _first_local_expert(self, expert_map: torch.Tensor | None) -> int:
        """Read once per map, because reading synchronises."""
        if expert_map is None:
            return self._default_offset
        key = expert_map.data_ptr()
        if key not in self._offsets:
            self._offsets[key] = conventions.first_local_expert(
                expert_map, self.num_local_experts, self._default_offset
            )
        return self._offsets[key]

    def apply(
        self,
        hidden_states: torch.Tensor,
        w1: torch.Tensor,
        w2: torch.Tensor,
        router_logits: torch.Tensor,
        activation: Any,
        global_num_experts: int,
        expert_map: torch.Tensor | None,
        a1q_scale: torch.Tensor | None,
        apply_router_weight_on_input: bool,
        num_expert_group: int | None = None,
        e_score_correction_bias: torch.Tensor | None = None,
        routed_scaling_factor: float | None = None,
        topk_group: int | None = None,
    ) -> torch.Tensor:
        """bfloat16 [T, H] from float8_e4m3fn hidden states, as vLLM calls its monolithic experts."""
        if conventions.activation_type(activation) is not self.activation:
            checks.reject("activation", f"that of moe_config ({self.activation.name})", activation)
        bias = e_score_correction_bias
        result = trtllm_fp8_per_tensor_scale_moe(
            conventions.router_logits(router_logits),
            None if bias is None else conventions.router_logits(bias),
            hidden_states,
            w1,
            self.kernel_scales.output1,
            self.kernel_scales.output1_gate,
            w2,
            self.kernel_scales.output2,
            global_num_experts,
            self.top_k,
            num_expert_group,
            topk_group,
            self.intermediate_size,
            self._first_local_expert(expert_map),
            self.num_local_experts,
            routed_scaling_factor,
            apply_router_weight_on_input,
            routing_method_type=self.routing_method,
            activation_type=self.activation,
            weight_layout=self.weight_layout,
        )
        assert isinstance(result, torch.Tensor)
        return result
