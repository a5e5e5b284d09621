"""Layers of well-known models: a few tokens at real sizes on a GPU, scaled down on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from support.calls import accumulation, call, call_unfinalised, check_finalised, check_routing
from support.setup import DEVICES, Setup

from moe_jit.reference import compare_output, compare_rows, fp8_moe, route

pytestmark = pytest.mark.parametrize("device", DEVICES)


@dataclass(frozen=True)
class Model:
    num_experts: int
    hidden_size: int
    intermediate_size: int
    scaled_down: tuple[int, int]  # hidden and intermediate size on the CPU
    routing: dict[str, Any]
    activation: int = 3
    scale_input: bool = False
    layout: str = "shuffled"
    num_tokens: tuple[int, ...] = field(default=(1, 64, 1000))


MODELS = {
    "DeepSeek-V3": Model(
        256, 7168, 2048, (448, 128), {"method": 2, "top_k": 8, "n_group": 8, "topk_group": 4, "factor": 2.5}
    ),
    "Qwen3-30B-A3B": Model(
        128,
        2048,
        768,
        (256, 96),
        {"method": 4, "top_k": 8},
        layout="w1_w3",
        num_tokens=(1, 64, 1000, 8192),
    ),
    "Mixtral-8x7B": Model(8, 4096, 14336, (256, 896), {"method": 1, "top_k": 2}, layout="w3_w1"),
    "Llama4-Maverick": Model(128, 5120, 8192, (320, 512), {"method": 3, "top_k": 1}, scale_input=True),
    "Nemotron": Model(
        512,
        4096,
        2688,
        (256, 160),
        {"method": 2, "top_k": 22, "factor": 5.0},
        activation=6,
        num_tokens=(1, 300),
    ),
}
COMPARED_TOKENS = 4


@pytest.mark.parametrize("name", list(MODELS))
def test_model(device, name):
    model, setup = MODELS[name], Setup(device)
    real = device == "cuda"
    hidden_size, intermediate_size = (
        (model.hidden_size, model.intermediate_size) if real else model.scaled_down
    )
    layer = setup.layer(
        model.num_experts,
        hidden_size,
        intermediate_size,
        activation=model.activation,
        weight_layout=model.layout,
    )
    for num_tokens in model.num_tokens if real else (1, 5):
        dtype = torch.bfloat16 if num_tokens == 64 else torch.float32
        routing = setup.routing(num_tokens, model.num_experts, dtype=dtype, **model.routing)
        hidden = setup.hidden(num_tokens, layer)
        context = f"{name}, T {num_tokens}, seed {setup.seed}"

        parts = call_unfinalised(layer, hidden, routing, use_routing_scales_on_input=model.scale_input)
        check_routing(parts, routing, context)
        output = call(layer, hidden, routing, use_routing_scales_on_input=model.scale_input)
        check_finalised(output, parts, model.scale_input)

        some = torch.linspace(0, num_tokens - 1, min(COMPARED_TOKENS, num_tokens), device=device).long()
        ids, _ = route(routing.logits, routing.bias, **routing.settings())
        reference = fp8_moe(
            hidden.view(torch.uint8)[some].view(torch.float8_e4m3fn),
            ids=ids[some],
            weights=parts.weights[some],
            use_routing_scales_on_input=model.scale_input,
            accumulation=accumulation(ids, model.num_experts, layer),
            **layer.experts(),
        )
        index = parts.pair_to_row.view(num_tokens, -1)[some].flatten()
        print(f"{context}: {compare_output(output[some], reference).check(context)}")
        print(f"{context}, rows: {compare_rows(parts.rows, index, reference).check(context)}")
