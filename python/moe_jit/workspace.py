"""How much scratch memory a call takes."""

from __future__ import annotations

import torch

from . import backends, checks, jit
from .enums import ActivationType, RoutingMethodType
from .problem import MoEProblem
from .validate import MAX_EXPERTS, MAX_SIZE, MAX_TOP_K

_INDEX_BYTES = 4  # of an entry of expanded_idx_to_permuted_idx
_WEIGHT_BYTES = 2  # of an entry of expert_weights


def workspace_size(
    num_tokens: int,
    *,
    hidden_size: int,
    intermediate_size: int,
    num_experts: int,
    top_k: int,
    local_num_experts: int | None = None,
    do_finalize: bool = True,
    routing_method_type: int = RoutingMethodType.Renormalize,
    activation_type: int = ActivationType.Swiglu,
    device: torch.device | str | None = None,
) -> int:
    """Bytes that one call takes from torch's allocator beside its arguments and its result.

    They come from the current stream's pool (inside a capture: the graph's) and are free again when the call
    returns, so that the layers of a model share them. The parameters are those of
    ``trtllm_fp8_per_tensor_scale_moe``; local_num_experts None means all, device None the current GPU, or the
    CPU where there is none. On the CPU further scratch memory comes from the C++ heap. May compile, like the
    first call. Raises TypeError or ValueError naming the argument.
    """
    num_local = num_experts if local_num_experts is None else local_num_experts
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        checks.reject("device", "a torch.device, its name or None", repr(device))
    problem = MoEProblem(
        num_tokens=checks.integer("num_tokens", num_tokens, 0, MAX_SIZE),
        hidden_size=checks.integer("hidden_size", hidden_size, 1, MAX_SIZE),
        intermediate_size=checks.integer("intermediate_size", intermediate_size, 1, MAX_SIZE),
        num_experts=checks.integer("num_experts", num_experts, 1, MAX_EXPERTS),
        top_k=checks.integer("top_k", top_k, 1, min(MAX_TOP_K, num_experts), "num_experts"),
        num_local_experts=checks.integer("local_num_experts", num_local, 1, num_experts, "num_experts"),
        do_finalize=checks.boolean("do_finalize", do_finalize),
        routing_method=RoutingMethodType.parse(routing_method_type),
        activation=ActivationType.parse(activation_type),
        device=backends.describe(device, "device"),
    )
    return problem_workspace(problem)


def problem_workspace(problem: MoEProblem) -> int:
    """``workspace_size`` of a problem; the device need not be present."""
    if problem.num_tokens == 0:
        return 0
    intermediate_results = problem.num_pairs * (_INDEX_BYTES + _WEIGHT_BYTES) if problem.do_finalize else 0
    if problem.device.kind == "cpu":
        return intermediate_results
    scratch = jit.load(backends.module_spec(problem))["workspace_size"](
        problem.num_tokens,
        problem.num_experts,
        problem.num_local_experts,
        problem.top_k,
        problem.hidden_size,
        problem.intermediate_size,
        problem.do_finalize,
    )
    return int(scratch) + intermediate_results
