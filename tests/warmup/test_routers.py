"""The routing read from a model's configuration is what the model's own router in transformers computes."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch

from moe_jit.reference import route
from moe_jit.warmup import expert_layer

pytest.importorskip("transformers", minversion="5")

H, T = 32, 50
SIZES: dict[str, Any] = {"hidden_size": H, "intermediate_size": 64, "num_hidden_layers": 1}
GROUPED: dict[str, Any] = {
    "moe_intermediate_size": 48,
    "n_routed_experts": 32,
    "num_experts_per_tok": 6,
    "routed_scaling_factor": 2.5,
    "norm_topk_prob": True,
}

# module, configuration class, router class, and the settings of a small model
ROUTERS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "deepseek_v3": (
        "deepseek_v3",
        "DeepseekV3Config",
        "DeepseekV3TopkRouter",
        {**GROUPED, "n_group": 8, "topk_group": 4},
    ),
    "glm4_moe": (
        "glm4_moe",
        "Glm4MoeConfig",
        "Glm4MoeTopkRouter",
        {**GROUPED, "n_group": 1, "topk_group": 1},
    ),
    "nemotron_h": (
        "nemotron_h",
        "NemotronHConfig",
        "NemotronHTopkRouter",
        {**GROUPED, "layers_block_type": ["moe"], "n_group": 1, "topk_group": 1},
    ),
    "minimax_m2": (
        "minimax_m2",
        "MiniMaxM2Config",
        "MiniMaxM2TopKRouter",
        {"num_local_experts": 32, "num_experts_per_tok": 6},
    ),
    "mixtral": (
        "mixtral",
        "MixtralConfig",
        "MixtralTopKRouter",
        {"num_local_experts": 8, "num_experts_per_tok": 2},
    ),
    "qwen3_moe": (
        "qwen3_moe",
        "Qwen3MoeConfig",
        "Qwen3MoeTopKRouter",
        {"num_experts": 32, "num_experts_per_tok": 6, "moe_intermediate_size": 48, "norm_topk_prob": True},
    ),
    "qwen3_moe, not normalised": (
        "qwen3_moe",
        "Qwen3MoeConfig",
        "Qwen3MoeTopKRouter",
        {"num_experts": 32, "num_experts_per_tok": 6, "moe_intermediate_size": 48, "norm_topk_prob": False},
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("name", ROUTERS)
def test_weights_and_experts(name: str) -> None:
    torch.manual_seed(7)
    package, config_class, router_class, settings = ROUTERS[name]
    models = f"transformers.models.{package}"
    config_module = importlib.import_module(f"{models}.configuration_{package}")
    modeling = importlib.import_module(f"{models}.modeling_{package}")
    config = getattr(config_module, config_class)(**{**SIZES, **settings})
    router = getattr(modeling, router_class)(config).float()
    router.weight.normal_(std=0.3)
    layer = expert_layer(config.to_dict())
    bias = None
    if layer.routing_method is not None and layer.routing_method.uses_bias:
        bias = torch.randn(layer.num_experts) * 0.1
    x = torch.randn(T, H)
    if bias is None:
        logits, weights, ids = router(x)
    elif hasattr(router, "e_score_correction_bias"):
        router.e_score_correction_bias.copy_(bias)
        logits, weights, ids = router(x)
    else:
        logits, weights, ids = router(x, bias)
    expected_ids, expected_weights = route(
        logits.float(),
        bias,
        method=layer.routing_method,
        top_k=layer.top_k,
        n_group=layer.n_group or None,
        topk_group=layer.topk_group or None,
        routed_scaling_factor=settings.get("routed_scaling_factor"),
        round_weights=False,
    )
    shape = (T, layer.num_experts)
    actual = torch.zeros(shape, dtype=torch.float64).scatter(1, ids.long(), weights.double())
    expected = torch.zeros(shape, dtype=torch.float64).scatter(1, expected_ids, expected_weights.double())
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
