"""Host-side validation of a call: metadata in, ``MoEProblem`` out. Nothing here reads device memory."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch

from . import backends, checks
from .checks import Dim
from .enums import ActivationType, RoutingMethodType, WeightLayout
from .problem import MoEProblem

MAX_EXPERTS = 2048
MAX_TOP_K = 32
MAX_SIZE = 2**31 - 1
_E4M3 = (torch.float8_e4m3fn,)
_BF16 = (torch.bfloat16,)
_FP32 = (torch.float32,)
LOGITS = (torch.float32, torch.bfloat16)
_TMA_ALIGNMENT = 16


class Arguments(NamedTuple):
    """The arguments of both public functions; the first ``NUM_TENSORS`` fields are tensors or None."""

    routing_logits: torch.Tensor | None
    routing_bias: torch.Tensor | None
    topk_ids: torch.Tensor | None
    topk_weights: torch.Tensor | None
    hidden_states: torch.Tensor
    gemm1_weights: torch.Tensor
    output1_scales_scalar: torch.Tensor
    output1_scales_gate_scalar: torch.Tensor
    gemm2_weights: torch.Tensor
    output2_scales_scalar: torch.Tensor
    routing_replay_out: torch.Tensor | None
    output: torch.Tensor | None
    num_experts: int
    top_k: int
    n_group: int | None
    topk_group: int | None
    intermediate_size: int
    local_expert_offset: int
    local_num_experts: int
    routed_scaling_factor: float | None
    use_routing_scales_on_input: bool
    routing_method_type: int
    do_finalize: bool
    enable_pdl: bool | None
    tune_max_num_tokens: int
    activation_type: int
    norm_topk_prob: bool
    weight_layout: str | WeightLayout
    fast_accum: bool
    pre_routed: bool

    @property
    def tensors(self) -> tuple[torch.Tensor | None, ...]:
        return cast("tuple[torch.Tensor | None, ...]", self[:NUM_TENSORS])


NUM_TENSORS = Arguments._fields.index("num_experts")
_WRITTEN = ("routing_replay_out", "output")
_DEFAULTS = {"do_finalize": True, "tune_max_num_tokens": 8192, "norm_topk_prob": True, "fast_accum": True}
_READ = tuple(name for name in Arguments._fields[:NUM_TENSORS] if name not in _WRITTEN)


def validate(args: Arguments) -> MoEProblem:
    """Check every argument and describe the call.

    Raises TypeError for an argument of a wrong Python type and ValueError for anything else, naming the
    argument, what is expected and what was given.
    """
    layout = WeightLayout.parse(args.weight_layout)
    activation = ActivationType.parse(args.activation_type)
    method = None if args.pre_routed else RoutingMethodType.parse(args.routing_method_type)
    _check_tensor_types(args)
    n_group, topk_group = _check_scalars(args, method)

    hidden = args.hidden_states
    checks.storage("hidden_states", hidden, _E4M3, 2)
    backends.require_auto("trtllm_fp8_per_tensor_scale_moe")
    device = backends.describe(hidden.device)
    num_tokens, hidden_size = hidden.shape
    _check_sizes(args, layout, activation, num_tokens, hidden_size)
    _check_routing_tensors(args, num_tokens)
    _check_expert_tensors(args, activation, hidden_size)
    _check_written_tensors(args, num_tokens, hidden_size)
    if device.kind == "cuda":
        for name in ("hidden_states", "gemm1_weights", "gemm2_weights", "output"):
            value = getattr(args, name)
            if value is not None and (name != "output" or args.do_finalize):
                checks.aligned(name, value, _TMA_ALIGNMENT)

    pdl = args.enable_pdl
    return MoEProblem(
        num_tokens=num_tokens,
        hidden_size=hidden_size,
        intermediate_size=int(args.intermediate_size),
        num_experts=int(args.num_experts),
        num_local_experts=int(args.local_num_experts),
        local_expert_offset=int(args.local_expert_offset),
        top_k=int(args.top_k),
        n_group=n_group,
        topk_group=topk_group,
        routing_method=method,
        activation=activation,
        weight_layout=layout,
        fast_accum=args.fast_accum,
        logits_dtype=None if args.routing_logits is None else args.routing_logits.dtype,
        bias_dtype=None if args.routing_bias is None else args.routing_bias.dtype,
        do_finalize=args.do_finalize,
        scale_input=args.use_routing_scales_on_input,
        has_replay=args.routing_replay_out is not None,
        enable_pdl=device.kind == "cuda" if pdl is None else pdl,
        tune_max_num_tokens=int(args.tune_max_num_tokens),
        device=device,
    )


def check_options(**options: object) -> None:
    """Check arguments that are not tensors; the others have their defaults."""
    given = dict.fromkeys(Arguments._fields) | _DEFAULTS | options
    args = Arguments(**given)  # type: ignore[arg-type]
    _check_scalars(args, RoutingMethodType.parse(args.routing_method_type))


def check_aliasing(args: Arguments) -> None:
    """The tensors written for the caller must not overlap what is read, nor each other."""
    output = args.output if args.do_finalize else None
    candidates = {"output": output, "routing_replay_out": args.routing_replay_out}
    written = [(name, value) for name, value in candidates.items() if value is not None]
    for name, value in written:
        for other_name in _READ:
            other = getattr(args, other_name)
            if other is not None:
                checks.disjoint(name, value, other_name, other)
    if len(written) == 2:
        checks.disjoint(*written[0], *written[1])


def _check_scalars(args: Arguments, method: RoutingMethodType | None) -> tuple[int, int]:
    """n_group and topk_group as ``_groups`` gives them."""
    _check_scalar_types(args)
    _check_expert_counts(args)
    return _groups(args, method)


def _check_scalar_types(args: Arguments) -> None:
    checks.optional_integer("n_group", args.n_group)
    checks.optional_integer("topk_group", args.topk_group)
    checks.optional_finite("routed_scaling_factor", args.routed_scaling_factor)
    checks.boolean("use_routing_scales_on_input", args.use_routing_scales_on_input)
    checks.boolean("do_finalize", args.do_finalize)
    checks.optional_boolean("enable_pdl", args.enable_pdl)
    checks.boolean("norm_topk_prob", args.norm_topk_prob)
    checks.boolean("fast_accum", args.fast_accum)
    checks.integer("tune_max_num_tokens", args.tune_max_num_tokens, 1, MAX_SIZE)


def _check_tensor_types(args: Arguments) -> None:
    absent = ("routing_logits", "routing_bias") if args.pre_routed else ("topk_ids", "topk_weights")
    for name in Arguments._fields[:NUM_TENSORS]:
        if name not in absent:
            optional = name in ("routing_bias", "routing_replay_out", "output")
            checks.is_tensor(name, getattr(args, name), optional=optional)


def _check_expert_counts(args: Arguments) -> None:
    num_experts = checks.integer("num_experts", args.num_experts, 1, MAX_EXPERTS)
    max_top_k = min(MAX_TOP_K, num_experts)
    checks.integer("top_k", args.top_k, 1, max_top_k, f"num_experts {num_experts}, no more than {MAX_TOP_K}")
    num_local = checks.integer("local_num_experts", args.local_num_experts, 1, num_experts, "num_experts")
    checks.integer(
        "local_expert_offset",
        args.local_expert_offset,
        0,
        num_experts - num_local,
        f"num_experts {num_experts} - local_num_experts {num_local}",
    )


def _groups(args: Arguments, method: RoutingMethodType | None) -> tuple[int, int]:
    """(n_group, topk_group), or (0, 0) when the selection is not limited to groups."""
    if method is RoutingMethodType.Llama4 and args.top_k != 1:
        checks.reject("top_k", "1 with routing_method_type 3 (Llama4)", args.top_k)
    if method is not RoutingMethodType.DeepSeekV3 or args.n_group is None:
        return 0, 0
    num_experts, n_group = args.num_experts, args.n_group
    why = f"at least two of num_experts {num_experts} in a group"
    checks.integer("n_group", n_group, 0, max(1, num_experts // 2), why)
    if n_group <= 1:
        return 0, 0
    if num_experts % n_group:
        checks.reject("n_group", f"a divisor of num_experts {num_experts}", n_group)
    if args.topk_group is None:
        checks.reject("topk_group", f"an int in [1, {n_group}] (n_group)", None)
    topk_group = checks.integer("topk_group", args.topk_group, 1, n_group, "n_group")
    selectable = topk_group * (num_experts // n_group)
    if args.top_k > selectable:
        limit = f"topk_group {topk_group} * num_experts {num_experts} / n_group {n_group}"
        checks.reject("top_k", f"at most {selectable} ({limit})", args.top_k)
    return int(n_group), topk_group


def _check_sizes(
    args: Arguments, layout: WeightLayout, activation: ActivationType, num_tokens: int, hidden_size: int
) -> None:
    shuffled = layout is WeightLayout.Shuffled
    why = f"weight_layout {layout.public_name!r}"
    if hidden_size == 0:
        checks.reject("hidden_states", "of shape (num_tokens, hidden_size >= 16)", f"shape {(num_tokens, 0)}")
    checks.multiple("hidden_states.shape[1]", hidden_size, 32 if shuffled else 16, why)
    intermediate_size = checks.integer("intermediate_size", args.intermediate_size, 1)
    checks.multiple(
        "intermediate_size",
        intermediate_size,
        32 if shuffled and not activation.is_gated else 16,
        f"{why}, activation_type {activation.value} ({activation.name})",
    )
    if num_tokens * args.top_k > MAX_SIZE:
        limit = f"below 2**31 with num_tokens {num_tokens} (hidden_states.shape[0]) and top_k {args.top_k}"
        checks.reject("num_tokens * top_k", limit, num_tokens * args.top_k)


def _check_tensor(args: Arguments, name: str, dtypes: tuple[torch.dtype, ...], *dims: Dim) -> None:
    value = getattr(args, name)
    if value is None:
        return
    checks.storage(name, value, dtypes, len(dims))
    checks.same_device(name, value, args.hidden_states.device, "hidden_states")
    checks.shape(name, value, dims)


def _check_routing_tensors(args: Arguments, num_tokens: int) -> None:
    tokens = Dim(num_tokens, "hidden_states.shape[0]")
    experts = Dim(args.num_experts, "num_experts")
    ranks = Dim(args.top_k, "top_k")
    _check_tensor(args, "routing_logits", LOGITS, tokens, experts)
    _check_tensor(args, "routing_bias", LOGITS, experts)
    _check_tensor(args, "topk_ids", (torch.int32,), tokens, ranks)
    _check_tensor(args, "topk_weights", _BF16, tokens, ranks)


def _check_expert_tensors(args: Arguments, activation: ActivationType, hidden_size: int) -> None:
    stored = Dim(args.local_num_experts, "local_num_experts", at_least=True)
    local = Dim(args.local_num_experts, "local_num_experts")
    hidden = Dim(hidden_size, "hidden_states.shape[1]")
    inner = Dim(args.intermediate_size, "intermediate_size")
    factor, prefix = (2, "2 * ") if activation.is_gated else (1, "")
    source = f"{prefix}intermediate_size, activation_type {activation.value} ({activation.name})"
    rows = Dim(factor * args.intermediate_size, source)
    _check_tensor(args, "gemm1_weights", _E4M3, stored, rows, hidden)
    _check_tensor(args, "gemm2_weights", _E4M3, stored, hidden, inner)
    for name in ("output1_scales_scalar", "output1_scales_gate_scalar", "output2_scales_scalar"):
        _check_tensor(args, name, _FP32, local)


def _check_written_tensors(args: Arguments, num_tokens: int, hidden_size: int) -> None:
    tokens = Dim(num_tokens, "hidden_states.shape[0]")
    if args.do_finalize:
        _check_tensor(args, "output", _BF16, tokens, Dim(hidden_size, "hidden_states.shape[1]"))
    _check_tensor(
        args, "routing_replay_out", (torch.int16,), tokens._replace(at_least=True), Dim(args.top_k, "top_k")
    )
