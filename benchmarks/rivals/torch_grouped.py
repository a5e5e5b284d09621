"""Baseline from torch's own operators: sort, gather, torch._scaled_grouped_mm, weighted sum."""

from __future__ import annotations

import torch
from inputs import Inputs
from layers import Layer

from rivals.base import Rival, Unavailable
from rivals.triton_moe import activate, activation_gain, combine


class TorchGrouped(Rival):
    name = "torch_grouped_mm"

    def __init__(self, layer: Layer) -> None:
        if not hasattr(torch, "_scaled_grouped_mm"):
            raise Unavailable(f"torch {torch.__version__} has no _scaled_grouped_mm")
        self.layer = layer
        self.gain = activation_gain(layer)
        model = layer.model
        self.gemm1_scale = layer.gate_scale[:, None].expand(-1, model.gemm1_rows).contiguous()
        self.gemm2_scale = layer.scale2[:, None].expand(-1, model.hidden_size).contiguous()
        device = layer.scale1.device
        self.experts = torch.arange(layer.num_local, dtype=torch.int32, device=device) + layer.local_offset

    def call(self, index: int, inputs: Inputs) -> torch.Tensor:
        layer, model = self.layer, self.layer.model
        weights = layer.weights_of_call(index)
        expert, pair = self._by_expert(inputs.ids)
        ends = torch.searchsorted(expert, self.experts, right=True).int()
        row_of_pair = torch.empty_like(pair).scatter_(0, pair, torch.arange(pair.numel(), device=pair.device))
        tokens = inputs.hidden.view(torch.uint8).index_select(0, pair // model.top_k)
        on_input = inputs.weights.flatten().index_select(0, pair) if model.scale_input else None
        ones = torch.ones(pair.numel(), device=pair.device)
        values = torch._scaled_grouped_mm(
            tokens.view(torch.float8_e4m3fn),
            weights.gemm1.transpose(1, 2),
            ones if on_input is None else on_input,
            self.gemm1_scale,
            offs=ends,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        values = torch._scaled_grouped_mm(
            activate(values, expert, self.gain, layer),
            weights.gemm2.transpose(1, 2),
            ones,
            self.gemm2_scale,
            offs=ends,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return combine(values, inputs.ids, layer, row_of_pair, None if model.scale_input else inputs.weights)

    def _by_expert(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Experts of the pairs in ascending order, those of other shards at the end, and the pairs."""
        layer, flat = self.layer, ids.flatten()
        if layer.is_sharded:
            local = (flat >= layer.local_offset) & (flat < layer.local_offset + layer.num_local)
            flat = torch.where(local, flat, layer.model.num_experts)
        return torch.sort(flat, stable=True)
