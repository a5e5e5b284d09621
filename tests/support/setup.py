"""One random problem after another on one device, each checked against the reference."""

from __future__ import annotations

import math
import random

import pytest
import torch

from moe_jit.reference import compare_output, compare_rows
from support.calls import call, call_unfinalised, check_finalised, check_routing, reference_for
from support.problems import Layer, Routing, fresh_seed, generator, random_e4m3, random_layer, random_routing

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
IDENTICAL_ON_CPU = 0.97  # share of row elements that equal the rounded reference with fp32 accumulation
FLIPPED_ROWS = 2  # rows in which an intermediate may have rounded the other way, see reference.agreement


class Setup:
    """Random problems on one device."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seed = fresh_seed()
        self.gen = generator(self.seed, device)
        self.random = random.Random(self.seed)

    def layer(self, num_experts=8, hidden_size=192, intermediate_size=96, **kind) -> Layer:
        return random_layer(
            self.gen,
            num_experts=num_experts,
            hidden_size=hidden_size,
            intermediate_size=intermediate_size,
            **kind,
        )

    def hidden(self, num_tokens: int, layer: Layer) -> torch.Tensor:
        return random_e4m3(self.gen, num_tokens, layer.hidden_size)

    def routing(
        self, num_tokens: int, num_experts: int = 8, *, method: int = 1, top_k: int = 2, **kind
    ) -> Routing:
        return random_routing(self.gen, num_tokens, num_experts, method=method, top_k=top_k, **kind)

    def check(
        self,
        layer: Layer,
        routing: Routing,
        hidden: torch.Tensor | None = None,
        *,
        offset: int = 0,
        scale_input: bool = False,
        note: str = "",
    ) -> torch.Tensor:
        """Compare both forms of the result with the reference; return the finalised one."""
        num_tokens = routing.logits.shape[0]
        hidden = self.hidden(num_tokens, layer) if hidden is None else hidden
        context = f"seed {self.seed} T {num_tokens} {tuple(layer.gemm2.shape)} act {layer.activation} {note}"
        options = {"offset": offset, "use_routing_scales_on_input": scale_input}
        parts = call_unfinalised(layer, hidden, routing, **options)
        check_routing(parts, routing, context)
        reference = reference_for(
            layer,
            hidden,
            routing,
            weights=parts.weights,
            scale_input=scale_input,
            local_expert_offset=offset,
        )
        rows = compare_rows(parts.rows, parts.pair_to_row, reference).check(context)
        if self.device == "cpu":
            assert rows.identical > IDENTICAL_ON_CPU - FLIPPED_ROWS / max(1, reference.rows.shape[0]), context

        poisoned = torch.full(
            (num_tokens, layer.hidden_size), math.nan, dtype=torch.bfloat16, device=self.device
        )
        output = call(layer, hidden, routing, output=poisoned, **options)
        assert output is poisoned
        compare_output(output, reference).check(context)
        check_finalised(output, parts, scale_input)
        return output
