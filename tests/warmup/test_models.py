"""Expert layers read from the configurations of real models, and what is compiled for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moe_jit import ActivationType, RoutingMethodType, backends
from moe_jit.plan import candidates
from moe_jit.problem import Device
from moe_jit.warmup import ExpertLayer, expert_layer, module_specs, read_config

CONFIGS = Path(__file__).parent / "configs"
HOPPER = Device("cuda", 0, "sm_90a", 132)
DEEPSEEK, RENORMALIZE = RoutingMethodType.DeepSeekV3, RoutingMethodType.Renormalize

# hidden size, intermediate size, experts, top_k, routing
LAYERS: dict[str, tuple[Any, ...]] = {
    "deepseek_v3": (7168, 2048, 256, 8, DEEPSEEK),
    "glm4_moe": (5120, 1536, 160, 8, DEEPSEEK),
    "llama4": (5120, 8192, 128, 1, RoutingMethodType.Llama4),
    "minimax_m2": (3072, 1536, 256, 8, RoutingMethodType.MiniMax2),
    "mixtral": (4096, 14336, 8, 2, RENORMALIZE),
    "nemotron_h": (2688, 1856, 128, 6, DEEPSEEK),
    "nemotron_h_latent": (1024, 2688, 512, 22, DEEPSEEK),
    "qwen3_moe": (2048, 768, 128, 8, RENORMALIZE),
}


def layer_of(name: str, **changes: Any) -> ExpertLayer:
    return expert_layer({**read_config(CONFIGS / f"{name}.json"), **changes})


def test_every_configuration_is_checked() -> None:
    assert {path.stem for path in CONFIGS.iterdir()} == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_of_a_model(name: str) -> None:
    layer = layer_of(name)
    sizes = (layer.hidden_size, layer.intermediate_size, layer.num_experts, layer.top_k)
    assert (*sizes, layer.routing_method) == LAYERS[name]
    assert layer.num_local_experts == layer.num_experts
    assert layer.activation == (ActivationType.Relu2 if "nemotron" in name else ActivationType.Swiglu)
    assert layer.scale_input == (name == "llama4")
    assert (layer.n_group, layer.topk_group) == ((8, 4) if name == "deepseek_v3" else (0, 0))


def test_routing_that_the_operation_does_not_have_is_left_to_the_model() -> None:
    assert layer_of("deepseek_v3", norm_topk_prob=False).routing_method is None
    assert layer_of("deepseek_v3", scoring_func="softmax").routing_method is None
    assert layer_of("qwen3_moe", norm_topk_prob=False).routing_method is RoutingMethodType.Default


def test_shards() -> None:
    whole = layer_of("deepseek_v3")
    part = whole.shard(tp=4, ep=8)
    assert (part.intermediate_size, part.num_local_experts, part.num_experts) == (512, 32, 256)
    assert whole.shard(1, 1) == whole


@pytest.mark.parametrize(
    ("name", "tp", "ep", "message"),
    [
        ("qwen3_moe", 5, 1, "tp must be a divisor of the intermediate size 768, got 5"),
        ("qwen3_moe", 1, 3, "ep must be a divisor of the number of experts 128, got 3"),
        ("qwen3_moe", 0, 1, "tp must be a divisor of the intermediate size 768, got 0"),
        ("nemotron_h", 8, 1, "a multiple of 16, got 1856 / 8 = 232"),
    ],
)
def test_impossible_shards(name: str, tp: int, ep: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer_of(name).shard(tp, ep)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llama"}, "model_type must be one of deepseek_v3, .*, got 'llama'"),
        ({"num_experts": None}, "n_routed_experts or num_local_experts or num_experts"),
        ({"hidden_act": "tanh"}, "hidden_act must be one of silu, gelu, relu2, got 'tanh'"),
        ({"hidden_size": 2050}, "hidden_size must be a multiple of 16, got 2050"),
    ],
)
def test_models_without_a_supported_layer(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layer_of("qwen3_moe", **changes)


@pytest.mark.parametrize("text", [None, "{", "[1]"])
def test_unreadable_configuration(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"model must be a Hugging Face config\.json, got .*config\.json"):
        read_config(tmp_path)


def test_a_directory_or_a_mapping_is_read_too(tmp_path: Path) -> None:
    config = json.loads((CONFIGS / "mixtral.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_config(tmp_path) == read_config(config) == config


@pytest.mark.parametrize("name", LAYERS)
def test_the_modules_cover_every_call(name: str) -> None:
    layer = layer_of(name)
    specs = module_specs(layer, 300, HOPPER)
    assert len(specs) == len(set(specs))
    for tokens in (1, 2, 17, 128, 299, 300):
        for pre_routed in (False, True):
            problem = layer.problem(tokens, HOPPER, pre_routed=pre_routed)
            assert {backends.module_spec(problem, tactic) for tactic in candidates(problem)} <= set(specs)


def test_a_model_that_routes_by_itself_needs_no_routing_kernel() -> None:
    specs = module_specs(layer_of("deepseek_v3", norm_topk_prob=False), 8, HOPPER)
    defines = {define for spec in specs for unit in spec.units for define in unit.defines}
    assert [value for name, value in defines if name == "MOE_JIT_ROUTING"] == ["PreRouted"]


def test_layers_agree_with_transformers() -> None:
    """The defaults of transformers' own classes are read like a checkpoint's configuration."""
    transformers = pytest.importorskip("transformers")
    for name in ("DeepseekV3Config", "MiniMaxM2Config", "MixtralConfig", "Qwen3MoeConfig", "Glm4MoeConfig"):
        config = getattr(transformers, name)()
        layer = expert_layer(config.to_dict())
        assert layer.hidden_size == config.hidden_size
        assert layer.num_experts in (
            getattr(config, "num_experts", None),
            getattr(config, "num_local_experts", None),
        )
        assert layer.top_k == config.num_experts_per_tok
