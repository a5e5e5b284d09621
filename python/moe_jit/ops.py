"""The operation as torch.library operators, for torch.compile, torch.export and other tracing.

``torch.ops.moe_jit.fp8_per_tensor_scale_moe`` writes the finalised result to ``output``;
``torch.ops.moe_jit.fp8_per_tensor_scale_moe_rows`` returns the unfinalised one. Both write
``routing_replay_out``. The public functions use them only while torch traces, because the dispatcher would
double the host time of a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .enums import WeightLayout
from .validate import Arguments

_TYPES = {
    "routing_logits": "Tensor?",
    "routing_bias": "Tensor?",
    "topk_ids": "Tensor?",
    "topk_weights": "Tensor?",
    "hidden_states": "Tensor",
    "gemm1_weights": "Tensor",
    "output1_scales_scalar": "Tensor",
    "output1_scales_gate_scalar": "Tensor",
    "gemm2_weights": "Tensor",
    "output2_scales_scalar": "Tensor",
    "routing_replay_out": "Tensor(a!)?",
    "output": "Tensor(b!)",
    "num_experts": "int",
    "top_k": "int",
    "n_group": "int?",
    "topk_group": "int?",
    "intermediate_size": "int",
    "local_expert_offset": "int",
    "local_num_experts": "int",
    "routed_scaling_factor": "float?",
    "use_routing_scales_on_input": "bool",
    "routing_method_type": "int",
    "do_finalize": "bool",
    "enable_pdl": "bool?",
    "tune_max_num_tokens": "int",
    "activation_type": "int",
    "norm_topk_prob": "bool",
    "weight_layout": "str",
    "fast_accum": "bool",
    "pre_routed": "bool",
}
# In the order of Arguments. What the operator's name says, or what it returns, is not among its parameters.
_FINALIZED = tuple(name for name in _TYPES if name != "do_finalize")
_ROWS = tuple(name for name in _FINALIZED if name != "output")
_OUTPUT, _DO_FINALIZE = (Arguments._fields.index(name) for name in ("output", "do_finalize"))
_PLAIN_TENSORS = (torch.Tensor, torch.nn.Parameter)

_library = torch.library.Library("moe_jit", "FRAGMENT")


def is_traced(tensor: object) -> bool:
    """Whether a call must go through the dispatcher: torch is tracing, or ``tensor`` is of a subclass."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or (type(tensor) not in _PLAIN_TENSORS and isinstance(tensor, torch.Tensor))
    )


def call(args: Arguments) -> torch.Tensor | list[torch.Tensor]:
    """The result of the public functions, computed by an operator. Validation happens when it runs."""
    hidden = args.hidden_states
    args = args._replace(
        routing_method_type=int(args.routing_method_type),
        activation_type=int(args.activation_type),
        weight_layout=WeightLayout.name_of(args.weight_layout),
    )
    if not args.do_finalize:
        return list(torch.ops.moe_jit.fp8_per_tensor_scale_moe_rows(*[getattr(args, name) for name in _ROWS]))
    output = args.output
    if output is None:
        output = hidden.new_empty(hidden.shape, dtype=torch.bfloat16)
        args = args._replace(output=output)
    torch.ops.moe_jit.fp8_per_tensor_scale_moe(*[getattr(args, name) for name in _FINALIZED])
    return output


def register(run: Callable[[Arguments], torch.Tensor | list[torch.Tensor]]) -> None:
    """Define the operators; ``run`` computes them."""

    def finalized(*values: Any) -> None:
        run(Arguments._make((*values[:_DO_FINALIZE], True, *values[_DO_FINALIZE:])))

    def rows(*values: Any) -> tuple[torch.Tensor, ...]:
        values = (*values[:_OUTPUT], None, *values[_OUTPUT:])
        return tuple(run(Arguments._make((*values[:_DO_FINALIZE], False, *values[_DO_FINALIZE:]))))

    _define("fp8_per_tensor_scale_moe", _FINALIZED, "()", finalized, lambda *values: None)
    _define("fp8_per_tensor_scale_moe_rows", _ROWS, "(Tensor, Tensor, Tensor)", rows, _empty_rows)


def _define(
    name: str, fields: tuple[str, ...], returns: str, run: Callable[..., Any], fake: Callable[..., Any]
) -> None:
    parameters = ", ".join(f"{_TYPES[field]} {field}" for field in fields)
    _library.define(f"{name}({parameters}) -> {returns}", tags=(torch.Tag.pt2_compliant_tag,))
    _library.impl(name, run, "CPU")
    _library.impl(name, run, "CUDA")
    torch.library.register_fake(f"moe_jit::{name}", fake, lib=_library)


def _empty_rows(*values: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    named = dict(zip(_ROWS, values, strict=True))
    hidden, top_k = named["hidden_states"], named["top_k"]
    num_tokens, hidden_size = hidden.shape
    return (
        hidden.new_empty((num_tokens * top_k, hidden_size), dtype=torch.bfloat16),
        hidden.new_empty((num_tokens, top_k), dtype=torch.bfloat16),
        hidden.new_empty((num_tokens * top_k,), dtype=torch.int32),
    )
