"""The expert layer of a model, read from its Hugging Face configuration.

The facts about each architecture are those of its router and expert classes in transformers 5.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..enums import ActivationType, RoutingMethodType
from ..problem import Device, MoEProblem

_MULTIPLE = 16  # of the hidden and intermediate sizes of any weight layout
_NESTED = ("text_config", "llm_config", "language_config")  # of multimodal models
_SIZES = {
    "hidden_size": ("moe_latent_size", "hidden_size"),
    "intermediate_size": ("moe_intermediate_size", "intermediate_size"),
    "num_experts": ("n_routed_experts", "num_local_experts", "num_experts"),
    "top_k": ("num_experts_per_tok",),
}
_ACTIVATIONS = {
    "silu": ActivationType.Swiglu,
    "gelu": ActivationType.Geglu,
    "relu2": ActivationType.Relu2,
}


@dataclass(frozen=True)
class ExpertLayer:
    """The shape of one rank's expert layer; ``routing_method`` is None where the model routes by itself."""

    hidden_size: int
    intermediate_size: int
    num_experts: int
    num_local_experts: int
    top_k: int
    routing_method: RoutingMethodType | None
    n_group: int = 0
    topk_group: int = 0
    activation: ActivationType = ActivationType.Swiglu
    scale_input: bool = False

    def shard(self, tp: int, ep: int) -> ExpertLayer:
        """The layer of one rank: ``tp`` divides the intermediate size, ``ep`` the experts."""
        for name, ways, size, what in (
            ("tp", tp, self.intermediate_size, "intermediate size"),
            ("ep", ep, self.num_local_experts, "number of experts"),
        ):
            if ways < 1 or size % ways:
                raise ValueError(f"{name} must be a divisor of the {what} {size}, got {ways}")
        if self.intermediate_size // tp % _MULTIPLE:
            part = f"{self.intermediate_size} / {tp} = {self.intermediate_size // tp}"
            raise ValueError(
                f"tp must leave an intermediate size that is a multiple of {_MULTIPLE}, got {part}"
            )
        return dataclasses.replace(
            self,
            intermediate_size=self.intermediate_size // tp,
            num_local_experts=self.num_local_experts // ep,
        )

    def problem(self, num_tokens: int, device: Device, *, pre_routed: bool) -> MoEProblem:
        """A call of this layer, from router logits unless ``pre_routed``."""
        return MoEProblem(
            device=device,
            num_tokens=num_tokens,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_experts=self.num_experts,
            num_local_experts=self.num_local_experts,
            top_k=self.top_k,
            n_group=0 if pre_routed else self.n_group,
            topk_group=0 if pre_routed else self.topk_group,
            routing_method=None if pre_routed else self.routing_method,
            activation=self.activation,
            scale_input=self.scale_input,
        )


def _softmax(config: Mapping[str, Any]) -> dict[str, Any]:
    renormalized = config.get("norm_topk_prob", False)
    return {"routing_method": RoutingMethodType.Renormalize if renormalized else RoutingMethodType.Default}


def _softmax_over_chosen(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"routing_method": RoutingMethodType.Renormalize}


def _biased_sigmoid(config: Mapping[str, Any]) -> dict[str, Any]:
    if not config.get("norm_topk_prob", True) or config.get("scoring_func", "sigmoid") != "sigmoid":
        return {"routing_method": None}
    groups = {"n_group": config.get("n_group") or 0, "topk_group": config.get("topk_group") or 0}
    limited = groups if groups["n_group"] > 1 else {}
    return {"routing_method": RoutingMethodType.DeepSeekV3, **limited}


def _minimax(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"routing_method": RoutingMethodType.MiniMax2}


def _llama4(config: Mapping[str, Any]) -> dict[str, Any]:
    return {"routing_method": RoutingMethodType.Llama4, "scale_input": True}


_ROUTING: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    **dict.fromkeys(("olmoe", "qwen2_moe", "qwen3_moe", "qwen3_next", "qwen3_vl_moe_text"), _softmax),
    **dict.fromkeys(("granitemoe", "minimax", "mixtral"), _softmax_over_chosen),
    **dict.fromkeys(
        ("deepseek_v3", "deepseek_v32", "dots1", "glm4_moe", "glm4v_moe_text", "kimi_k2", "nemotron_h"),
        _biased_sigmoid,
    ),
    "minimax_m2": _minimax,
    "llama4_text": _llama4,
}


def read_config(model: str | Path | Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration from a config.json, a directory that holds one, or a mapping."""
    if isinstance(model, Mapping):
        return model
    path = Path(model)
    path = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"model must be a Hugging Face config.json, got {path}: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(
            f"model must be a Hugging Face config.json, got {path} with a {type(config).__name__}"
        )
    return config


def expert_layer(config: Mapping[str, Any]) -> ExpertLayer:
    """The expert layer of the whole model; raises ValueError for a model without one that is known here."""
    model_type = config.get("model_type")
    if model_type not in _ROUTING:
        for name in _NESTED:
            if isinstance(nested := config.get(name), Mapping):
                return expert_layer(nested)
        known = ", ".join(sorted(_ROUTING))
        raise ValueError(f"model_type must be one of {known}, got {model_type!r}")
    sizes = {name: _first(config, keys) for name, keys in _SIZES.items()}
    for name in ("hidden_size", "intermediate_size"):
        if sizes[name] % _MULTIPLE:
            raise ValueError(f"{name} must be a multiple of {_MULTIPLE}, got {sizes[name]}")
    activation = config.get("mlp_hidden_act") or config.get("hidden_act", "silu")
    if activation not in _ACTIVATIONS:
        raise ValueError(f"hidden_act must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}")
    layer = ExpertLayer(
        hidden_size=sizes["hidden_size"],
        intermediate_size=sizes["intermediate_size"],
        num_experts=sizes["num_experts"],
        num_local_experts=sizes["num_experts"],
        top_k=sizes["top_k"],
        routing_method=None,
        activation=_ACTIVATIONS[activation],
    )
    return dataclasses.replace(layer, **_ROUTING[model_type](config))


def _first(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    for key in keys:
        if isinstance(value := config.get(key), int):
            return value
    raise ValueError(f"the model's configuration must have {' or '.join(keys)}, got neither")
