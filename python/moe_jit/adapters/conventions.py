"""What serving engines call things, in terms of this package.

Of an engine's enum member the name is mapped, because engines and FlashInfer versions number routing methods
and activations differently.
"""

from __future__ import annotations

import torch

from .. import checks
from ..enums import ActivationType, RoutingMethodType

# vLLM's MoEActivation values; SGLang's MoeRunnerConfig.activation without a gate has no suffix.
_ACTIVATIONS = {
    "silu": ActivationType.Swiglu,
    "gelu": ActivationType.Geglu,
    "relu2_no_mul": ActivationType.Relu2,
}
_LOGITS = (torch.float32, torch.bfloat16)


def routing_method(method: object) -> RoutingMethodType:
    """The method of a member of an engine's RoutingMethodType, or of a documented number."""
    name = getattr(method, "name", None)
    if name is None:
        return RoutingMethodType.parse(method)  # type: ignore[arg-type]
    known = [m.name for m in RoutingMethodType if m is not RoutingMethodType.Unspecified]
    if name not in known:
        checks.reject("routing_method", f"one of {', '.join(known)}", name)
    return RoutingMethodType[name]


def activation_type(activation: object) -> ActivationType:
    """The activation that a vLLM MoEActivation or its value names; gelu is the exact one."""
    name = getattr(activation, "value", activation)
    if name not in _ACTIVATIONS:
        checks.reject("activation", f"one of {', '.join(_ACTIVATIONS)}", repr(name))
    return _ACTIVATIONS[str(name)]


def router_logits(logits: torch.Tensor) -> torch.Tensor:
    """Logits as the operation takes them: float32 and bfloat16 unchanged, others widened to float32."""
    return (logits if logits.dtype in _LOGITS else logits.float()).contiguous()


def per_expert(name: str, scale: torch.Tensor, num_experts: int) -> torch.Tensor:
    """A scale as float32 [num_experts], from one value, [num_experts] or [num_experts, 1, ...]."""
    if scale.numel() not in (1, num_experts):
        checks.reject(name, f"one value or one per expert ({num_experts})", f"shape {tuple(scale.shape)}")
    return scale.float().reshape(-1).expand(num_experts).contiguous()


def first_local_expert(expert_map: torch.Tensor | None, num_local: int, default: int) -> int:
    """The global id of local expert 0 under an engine's map from global to local ids (-1: another rank's).

    Reads the map on the host. Raises ValueError unless the local experts are consecutive and in order.
    """
    if expert_map is None:
        return default
    ids = expert_map.cpu()
    local = (ids >= 0).nonzero().flatten()
    consecutive = torch.arange(num_local)
    if local.numel() != num_local or not torch.equal(ids[local].long(), consecutive):
        checks.reject("expert_map", f"a map to local experts 0 to {num_local - 1} in order", ids.tolist())
    if not torch.equal(local - local[0], consecutive):
        checks.reject("expert_map", "a map of consecutive experts (linear placement)", ids.tolist())
    return int(local[0])
