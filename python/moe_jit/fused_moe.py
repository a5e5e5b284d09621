"""The FP8 per-tensor-scale mixture-of-experts operation as a function."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from . import autotuner, backends, ops
from .enums import WeightLayout
from .jit import ModuleSpec
from .plan import Tactic
from .problem import MoEProblem
from .validate import NUM_TENSORS, Arguments, check_aliasing, validate

_MAX_SIGNATURES = 8192


@dataclass(frozen=True, slots=True)
class _Launcher:
    """A validated call signature, bound to its compiled function (without tokens there is none)."""

    problem: MoEProblem
    spec: ModuleSpec | None
    function: Callable[..., Any] | None
    generation: int
    integers: tuple[int, ...]
    flags: tuple[bool | int, ...]

    @classmethod
    def prepare(cls, args: Arguments, tactic: Tactic | None = None) -> _Launcher:
        """Validate a call and load its module, with ``tactic`` or the one that the tuner chooses."""
        problem = validate(args)
        spec, generation = None, autotuner.generation()
        if problem.num_tokens:
            if tactic is None:
                choice = autotuner.choose(problem, partial(_runner, problem, args))
                tactic, generation = choice.tactic, choice.generation
            spec = backends.module_spec(problem, tactic)
        return cls(
            problem=problem,
            generation=generation,
            spec=spec,
            function=backends.load(spec) if spec else None,
            integers=(
                problem.num_experts,
                problem.top_k,
                problem.n_group,
                problem.topk_group,
                problem.intermediate_size,
                problem.local_expert_offset,
                problem.num_local_experts,
            ),
            flags=(
                args.norm_topk_prob,
                problem.scale_input,
                int(problem.weight_layout),
                problem.enable_pdl,
                -1 if problem.routing_method is None else int(problem.routing_method),
                int(problem.activation),
            ),
        )

    def __call__(self, args: Arguments) -> torch.Tensor | list[torch.Tensor]:
        problem, hidden = self.problem, args.hidden_states
        top_k, hidden_size = problem.top_k, problem.hidden_size
        output = gemm2_output = None
        if not problem.do_finalize:
            gemm2_output = hidden.new_empty((problem.num_pairs, hidden_size), dtype=torch.bfloat16)
        elif args.output is not None:
            output = args.output
        else:
            output = hidden.new_empty((problem.num_tokens, hidden_size), dtype=torch.bfloat16)
        expert_weights = hidden.new_empty((problem.num_tokens, top_k), dtype=torch.bfloat16)
        pair_to_row = hidden.new_empty((problem.num_pairs,), dtype=torch.int32)
        if self.function is not None:
            factor = args.routed_scaling_factor
            self.function(
                *args[: NUM_TENSORS - 2],
                output,
                gemm2_output,
                expert_weights,
                pair_to_row,
                args.routing_replay_out,
                *self.integers,
                1.0 if factor is None else float(factor),
                *self.flags,
            )
        if output is not None:
            return output
        assert gemm2_output is not None
        return [gemm2_output, expert_weights, pair_to_row]


def _runner(problem: MoEProblem, args: Arguments, skew: float) -> autotuner.CudaRunner:
    def bind(call: Arguments, tactic: Tactic) -> Callable[[], object]:
        return partial(_Launcher.prepare(call, tactic), call)

    return autotuner.CudaRunner(problem, args, bind, skew)


_launchers: dict[Hashable, _Launcher] = {}


def modules_in_use() -> tuple[ModuleSpec, ...]:
    """The modules that the calls of this process have needed so far."""
    return tuple(dict.fromkeys(launcher.spec for launcher in _launchers.values() if launcher.spec))


def _signature(args: Arguments) -> Hashable:
    """All metadata that validation and planning depend on.

    Types are part of it because True == 1 == 1.0; the address bits because GPU copies need 16-byte alignment.
    """
    tensors = [
        None if t is None else (t.shape, t.dtype, t.device, t.is_contiguous(), t.data_ptr() & 15)
        for t in args.tensors
    ]
    return (backends.chosen(), *tensors, *args[NUM_TENSORS:], *map(type, args))


def _run(args: Arguments) -> torch.Tensor | list[torch.Tensor]:
    try:
        signature = _signature(args)
        launcher = _launchers.get(signature)
    except Exception:  # not tensors, or not hashable: validation says which argument is wrong
        launcher = signature = None
    if launcher is None or launcher.generation != autotuner.generation():
        launcher = _Launcher.prepare(args)
        if len(_launchers) >= _MAX_SIGNATURES:
            _launchers.clear()
        _launchers[signature] = launcher
    if args.output is not None or args.routing_replay_out is not None:
        check_aliasing(args)
    device = launcher.problem.device
    if device.kind == "cuda" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device.index):
            return launcher(args)
    return launcher(args)


ops.register(_run)


def _dispatch(args: Arguments) -> torch.Tensor | list[torch.Tensor]:
    return ops.call(args) if ops.is_traced(args.hidden_states) else _run(args)


def trtllm_fp8_per_tensor_scale_moe(
    routing_logits: torch.Tensor,
    routing_bias: torch.Tensor | None,
    hidden_states: torch.Tensor,
    gemm1_weights: torch.Tensor,
    output1_scales_scalar: torch.Tensor,
    output1_scales_gate_scalar: torch.Tensor,
    gemm2_weights: torch.Tensor,
    output2_scales_scalar: torch.Tensor,
    num_experts: int,
    top_k: int,
    n_group: int | None,
    topk_group: int | None,
    intermediate_size: int,
    local_expert_offset: int,
    local_num_experts: int,
    routed_scaling_factor: float | None,
    use_routing_scales_on_input: bool,
    routing_method_type: int = 0,
    do_finalize: bool = True,
    enable_pdl: bool | None = None,
    tune_max_num_tokens: int = 8192,
    activation_type: int = 3,
    norm_topk_prob: bool = True,
    routing_replay_out: torch.Tensor | None = None,
    output: torch.Tensor | None = None,
    *,
    weight_layout: str | WeightLayout = "shuffled",
    fast_accum: bool = True,
) -> torch.Tensor | list[torch.Tensor]:
    """Route tokens to experts and apply a two-layer FP8 MLP with per-tensor scales per expert.

    The parameters, their order and defaults are those documented for the FlashInfer function of this name
    (0.6.13, plus the ``output`` of 0.6.14). T is the number of tokens, E num_experts, L local_num_experts,
    H the hidden size, I intermediate_size; R is 2 * I for a gated activation, else I. All tensors are
    contiguous and on one device.

    Args:
        routing_logits: [T, E] float32 or bfloat16.
        routing_bias: None (zeros) or [E] float32 or bfloat16; used by methods 2 and 7, for selection only.
        hidden_states: [T, H] float8_e4m3fn.
        gemm1_weights: [>= L, R, H] float8_e4m3fn; index 0 is the first local expert.
        output1_scales_scalar: [L] float32, multiplies the linear half (the only half when not gated): the
            quantisation scale of the intermediate, times both dequantisation scales of gemm1 if the
            activation is gated or Identity.
        output1_scales_gate_scalar: [L] float32, multiplies the gate half, or the input of Relu2 and Gelu:
            both dequantisation scales of gemm1. Required, though Identity does not read it.
        gemm2_weights: [>= L, H, I] float8_e4m3fn.
        output2_scales_scalar: [L] float32, both dequantisation scales of gemm2.
        num_experts: global number of experts, at most 2048.
        top_k: experts per token, at most 32; 1 for Llama4.
        n_group, topk_group: group-limited selection of method 2; n_group None, 0 or 1 means no groups. The
            other methods ignore both.
        intermediate_size: I. H and I are multiples of 16; with the shuffled layout H (and I when not gated)
            is a multiple of 32.
        local_expert_offset, local_num_experts: the experts of this rank. The others contribute nothing.
        routed_scaling_factor: factor of the weights of methods 2 and 7; None means 1.
        use_routing_scales_on_input: multiply the input row by the routing weight instead of the output row.
        routing_method_type: a ``RoutingMethodType``.
        do_finalize: whether to sum the weighted expert outputs of each token.
        enable_pdl: programmatic dependent launch; None means where the GPU has it. No effect on the result.
        tune_max_num_tokens: largest T the tuner considers. No effect on the result.
        activation_type: an ``ActivationType``.
        norm_topk_prob: whether method 6 normalises its weights; ignored by the other methods.
        routing_replay_out: None or [>= T, top_k] int16, receives the global expert ids in rank order. Rows
            from T on stay untouched.
        output: None or [T, H] bfloat16 to write the result to; ignored when do_finalize is false.
        weight_layout: "shuffled" (FlashInfer's preparation), or plain rows with gemm1 as "w3_w1"
            [up; gate] or "w1_w3" [gate; up].
        fast_accum: whether the GPU may keep FP8 sums in its tensor cores (about 14 bits) where that is
            faster: by default above about 128 tokens per expert. False: sums move to fp32 every 128 of K.

    Returns:
        With do_finalize, bfloat16 [T, H] (``output`` itself if given). Otherwise a list of
        gemm2_output bfloat16 [T * top_k, H], expert_weights bfloat16 [T, top_k] and
        expanded_idx_to_permuted_idx int32 [T * top_k]: the gemm2_output row of the pair (t, rank) at
        t * top_k + rank, or -1 for an expert of another rank. Nothing else about the row order is promised,
        and rows that no pair refers to are uninitialised.

    Raises:
        TypeError: an argument has a wrong Python type.
        ValueError: an argument has a wrong value; the message names it, what is expected and what was given.
    """
    return _dispatch(
        Arguments(
            routing_logits,
            routing_bias,
            None,
            None,
            hidden_states,
            gemm1_weights,
            output1_scales_scalar,
            output1_scales_gate_scalar,
            gemm2_weights,
            output2_scales_scalar,
            routing_replay_out,
            output,
            num_experts,
            top_k,
            n_group,
            topk_group,
            intermediate_size,
            local_expert_offset,
            local_num_experts,
            routed_scaling_factor,
            use_routing_scales_on_input,
            routing_method_type,
            do_finalize,
            enable_pdl,
            tune_max_num_tokens,
            activation_type,
            norm_topk_prob,
            weight_layout,
            fast_accum,
            False,
        )
    )


def trtllm_fp8_per_tensor_scale_routed_moe(
    topk_ids: torch.Tensor,
    topk_weights: torch.Tensor,
    hidden_states: torch.Tensor,
    gemm1_weights: torch.Tensor,
    output1_scales_scalar: torch.Tensor,
    output1_scales_gate_scalar: torch.Tensor,
    gemm2_weights: torch.Tensor,
    output2_scales_scalar: torch.Tensor,
    num_experts: int,
    top_k: int,
    intermediate_size: int,
    local_expert_offset: int,
    local_num_experts: int,
    use_routing_scales_on_input: bool = False,
    do_finalize: bool = True,
    enable_pdl: bool | None = None,
    tune_max_num_tokens: int = 8192,
    activation_type: int = 3,
    routing_replay_out: torch.Tensor | None = None,
    output: torch.Tensor | None = None,
    *,
    weight_layout: str | WeightLayout = "shuffled",
    fast_accum: bool = True,
) -> torch.Tensor | list[torch.Tensor]:
    """``trtllm_fp8_per_tensor_scale_moe`` for tokens that are routed already.

    Args:
        topk_ids: [T, top_k] int32 global expert ids. An id outside [0, num_experts), or a second occurrence
            within a row, is ignored (its index entry is -1).
        topk_weights: [T, top_k] bfloat16, applied as given.

    The other arguments, the result and the errors are those of ``trtllm_fp8_per_tensor_scale_moe``.
    """
    return _dispatch(
        Arguments(
            None,
            None,
            topk_ids,
            topk_weights,
            hidden_states,
            gemm1_weights,
            output1_scales_scalar,
            output1_scales_gate_scalar,
            gemm2_weights,
            output2_scales_scalar,
            routing_replay_out,
            output,
            num_experts,
            top_k,
            None,
            None,
            intermediate_size,
            local_expert_offset,
            local_num_experts,
            None,
            use_routing_scales_on_input,
            0,
            do_finalize,
            enable_pdl,
            tune_max_num_tokens,
            activation_type,
            True,
            weight_layout,
            fast_accum,
            True,
        )
    )
