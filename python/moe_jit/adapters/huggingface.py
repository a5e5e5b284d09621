"""Experts of Hugging Face transformers models in FP8, through transformers' registry of implementations.

Importing this module registers the experts implementation ``"moe_jit"`` (transformers 5 or newer).
``quantize_experts`` turns a model's experts into ``FusedMoE`` layers and selects that implementation. The
model keeps its own router; whatever it computes reaches the layer as expert ids and weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, _default_apply_gate

from ..enums import ActivationType
from ..layer import FusedMoE

IMPLEMENTATION = "moe_jit"
_PROJECTIONS = ("gate_up_proj", "up_proj", "down_proj")
_CANDIDATES: dict[tuple[bool, ActivationType], Callable[[torch.Tensor], torch.Tensor]] = {
    (True, ActivationType.Swiglu): torch.nn.functional.silu,
    (True, ActivationType.Geglu): torch.nn.functional.gelu,
    (False, ActivationType.Relu2): lambda z: torch.relu(z).square(),
    (False, ActivationType.Gelu): torch.nn.functional.gelu,
    (False, ActivationType.Identity): lambda z: z,
}


def experts_forward(
    module: torch.nn.Module,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """What transformers calls for experts [T, H], [T, top_k], [T, top_k] with this implementation."""
    layer = getattr(module, IMPLEMENTATION, None)
    if layer is None:
        raise RuntimeError(f"{type(module).__name__}: call quantize_experts before its experts run")
    ids = top_k_index.to(torch.int32).contiguous()
    weights = top_k_weights.to(torch.bfloat16).contiguous()
    result: torch.Tensor = layer.forward_routed(hidden_states, ids, weights)
    return result.to(hidden_states.dtype)


ALL_EXPERTS_FUNCTIONS.register(IMPLEMENTATION, experts_forward)


@torch.no_grad()
def quantize_experts(model: torch.nn.Module, samples: Iterable[Mapping[str, Any]]) -> list[FusedMoE]:
    """Replace the weights of every experts module of a transformers model by FP8, in place.

    Args:
        model: a ``PreTrainedModel`` with bfloat16, float16 or float32 experts.
        samples: keyword arguments of calls of the model, from whose activations the static scales are chosen.
            Every experts module must receive tokens; experts without tokens share the scale of the others.

    Returns the new layers in the order of the model's modules. Raises ValueError for experts that the
    operation does not compute (with biases, a norm after the experts, interleaved or unusual gates) and for a
    model without experts.
    """
    experts = {name: module for name, module in model.named_modules() if _has_experts(module)}
    if not experts:
        raise ValueError(
            f"model must have experts with a choice of implementation, got {type(model).__name__}"
        )
    kinds = {name: _activation_of(name, module) for name, module in experts.items()}
    inputs = _record_inputs(model, experts, samples)
    layers = []
    for name, module in experts.items():
        layer = _quantize(module, kinds[name], *inputs.pop(name))
        for projection in _PROJECTIONS:
            module._parameters.pop(projection, None)
        module.add_module(IMPLEMENTATION, layer)
        layers.append(layer)
    model.set_experts_implementation(IMPLEMENTATION)  # type: ignore[operator]
    return layers


def _has_experts(module: torch.nn.Module) -> bool:
    """Whether transformers' ``use_experts_implementation`` has set this module up."""
    return hasattr(module, "is_concatenated") and "down_proj" in module._parameters


def _activation_of(name: str, module: Any) -> ActivationType:
    for supported, what in (
        (not module.has_bias, "without biases"),
        (module.is_concatenated or not module.has_gate, "with concatenated gate and up projections"),
        (not getattr(module, "has_post_expert_norm", False), "without a norm after the experts"),
        (not module.has_gate or type(module)._apply_gate is _default_apply_gate, "with a usual gate"),
    ):
        if not supported:
            raise ValueError(f"{name} must be experts {what}, got {type(module).__name__}")
    points = torch.linspace(-6, 6, 25)
    value = module.act_fn(points)
    for (gated, kind), function in _CANDIDATES.items():
        if gated == module.has_gate and torch.allclose(value, function(points), rtol=1e-5, atol=1e-6):
            return kind
    known = ", ".join(kind.name for gated, kind in _CANDIDATES if gated == module.has_gate)
    raise ValueError(f"{name}.act_fn must be that of {known}, got {module.act_fn}")


def _record_inputs(
    model: torch.nn.Module, experts: dict[str, torch.nn.Module], samples: Iterable[Mapping[str, Any]]
) -> dict[str, tuple[torch.Tensor, ...]]:
    """What reaches each experts module while the model runs: hidden states, expert ids and weights."""
    recorded: dict[str, list[tuple[torch.Tensor, ...]]] = {name: [] for name in experts}

    def hook_for(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            given = (*args, *kwargs.values())
            recorded[name].append(tuple(value.detach() for value in given[:3]))

        return hook

    hooks = [
        module.register_forward_pre_hook(hook_for(name), with_kwargs=True) for name, module in experts.items()
    ]
    try:
        for sample in samples:
            model(**sample)
    finally:
        for hook in hooks:
            hook.remove()
    for name, calls in recorded.items():
        if not calls:
            raise ValueError(f"samples must reach {name}, got none that does")
    return {name: tuple(map(torch.cat, zip(*calls, strict=True))) for name, calls in recorded.items()}


def _quantize(
    module: Any, activation: ActivationType, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
) -> FusedMoE:
    first = module.gate_up_proj if module.has_gate else module.up_proj
    second = module.down_proj
    if module.is_transposed:
        first, second = first.transpose(1, 2).contiguous(), second.transpose(1, 2).contiguous()
    layer = FusedMoE(
        first.detach(), second.detach(), top_k=ids.shape[1], activation_type=activation, w13_order="w1_w3"
    )
    layer.calibrate_routed(hidden, ids, weights)
    return layer
