"""A mixture-of-experts layer that takes weights and scales as checkpoints store them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from . import checks, scales, validate
from .checks import Dim
from .enums import ActivationType, RoutingMethodType, WeightLayout
from .fused_moe import trtllm_fp8_per_tensor_scale_moe, trtllm_fp8_per_tensor_scale_routed_moe
from .reference.experts import activate

_TO_QUANTIZE = (torch.bfloat16, torch.float16, torch.float32)
_E4M3 = torch.float8_e4m3fn
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32}
_SCALES = ("input_scale", "intermediate_scale", "output1_scales", "output1_gate_scales", "output2_scales")
_CONVENTIONS = ("dequantize", "quantize")

Scale = torch.Tensor | float


class FusedMoE(torch.nn.Module):
    """FP8 mixture of experts with static per-tensor scales.

    L is the number of local experts, H the hidden and I the intermediate size; both are multiples of 16.
    Weights are used where they are, without a copy in another layout.

    Args:
        w13: first projection(s) of the experts: [L, 2I, H] when the activation is gated, else [L, I, H].
            float8_e4m3fn with ``w13_scale``, or bfloat16, float16 or float32 to be quantised here.
        w2: second projection [L, H, I], float8_e4m3fn with ``w2_scale`` exactly when w13 is.
        top_k: experts per token.
        w13_order: "w1_w3" when the gate rows come first (the order of gate_up_proj in checkpoints), "w3_w1"
            when the up rows do. Irrelevant without a gate.
        w13_scale: one value, [L], or [L, 2] in the order of the halves, which need not share a scale.
        w2_scale: one value or [L].
        input_scale: static scale of the input: one value, [L] or [L, 2], of which the widest range is used.
        intermediate_scale: static scale of the activation's result: one value or [L].
        scale_convention: "dequantize" when real = quantised * scale (as in vLLM, SGLang and Hugging Face
            checkpoints), "quantize" when quantised = real * scale.
        activation_type, routing_method_type, routing_bias, n_group, topk_group, routed_scaling_factor,
            norm_topk_prob: as in ``trtllm_fp8_per_tensor_scale_moe``.
        use_routing_scales_on_input: None means for Llama4 only.
        fast_accum: as in ``trtllm_fp8_per_tensor_scale_moe``.
        num_experts: global number of experts, None for L.
        local_expert_offset: global id of the first local expert.

    A layer without ``input_scale`` or ``intermediate_scale`` needs ``calibrate`` before its first use. Moving
    it with ``to``, ``half`` and the like does not change its data types.

    Raises TypeError or ValueError naming the argument, what is expected and what was given.
    """

    w13: torch.Tensor
    w2: torch.Tensor
    w13_scale: torch.Tensor
    w2_scale: torch.Tensor
    routing_bias: torch.Tensor | None
    input_scale: torch.Tensor | None
    intermediate_scale: torch.Tensor | None
    output1_scales: torch.Tensor | None
    output1_gate_scales: torch.Tensor | None
    output2_scales: torch.Tensor | None

    def __init__(
        self,
        w13: torch.Tensor,
        w2: torch.Tensor,
        *,
        top_k: int,
        w13_order: str = "w1_w3",
        w13_scale: Scale | None = None,
        w2_scale: Scale | None = None,
        input_scale: Scale | None = None,
        intermediate_scale: Scale | None = None,
        scale_convention: str = "dequantize",
        activation_type: int = ActivationType.Swiglu,
        routing_method_type: int = RoutingMethodType.Renormalize,
        routing_bias: torch.Tensor | None = None,
        n_group: int | None = None,
        topk_group: int | None = None,
        routed_scaling_factor: float | None = None,
        norm_topk_prob: bool = True,
        use_routing_scales_on_input: bool | None = None,
        num_experts: int | None = None,
        local_expert_offset: int = 0,
        fast_accum: bool = True,
    ) -> None:
        super().__init__()
        self.activation = ActivationType.parse(activation_type)
        self.layout = WeightLayout.parse(w13_order, "w13_order", plain=True)
        if scale_convention not in _CONVENTIONS:
            checks.reject("scale_convention", " or ".join(map(repr, _CONVENTIONS)), repr(scale_convention))
        self._check_weights(w13, w2)
        self.num_local_experts, self.hidden_size, self.intermediate_size = w2.shape
        method = RoutingMethodType.parse(routing_method_type)
        self.top_k = top_k
        scale_input = use_routing_scales_on_input
        self._experts: dict[str, Any] = {
            "num_experts": self.num_local_experts if num_experts is None else num_experts,
            "top_k": top_k,
            "intermediate_size": self.intermediate_size,
            "local_expert_offset": local_expert_offset,
            "local_num_experts": self.num_local_experts,
            "use_routing_scales_on_input": method is RoutingMethodType.Llama4
            if scale_input is None
            else scale_input,
            "activation_type": self.activation,
            "weight_layout": self.layout,
            "fast_accum": fast_accum,
        }
        self._routing: dict[str, Any] = {
            "n_group": n_group,
            "topk_group": topk_group,
            "routed_scaling_factor": routed_scaling_factor,
            "routing_method_type": method,
            "norm_topk_prob": norm_topk_prob,
        }
        self._check_options(routing_bias)
        inverse = scale_convention == "quantize"
        self._set_weights(w13, w2, w13_scale, w2_scale, inverse)
        self.register_buffer("routing_bias", routing_bias)
        self._set_static_scales(input_scale, intermediate_scale, inverse)

    @classmethod
    def from_gate_up(
        cls,
        gate: torch.Tensor,
        up: torch.Tensor,
        down: torch.Tensor,
        *,
        gate_scale: torch.Tensor | None = None,
        up_scale: torch.Tensor | None = None,
        **options: Any,
    ) -> FusedMoE:
        """Build the layer from separate gate [L, I, H], up [L, I, H] and down [L, H, I] projections.

        ``gate_scale`` and ``up_scale`` are [L] each (both or neither); ``options`` are those of the class,
        ``w2_scale`` being the scale of ``down``.
        """
        for name, half in (("gate", gate), ("up", up)):
            checks.is_tensor(name, half)
            checks.dense(name, half)
        checks.same_device("up", up, gate.device, "gate")
        if gate.shape != up.shape or gate.dtype != up.dtype:
            expected = f"like gate: shape {tuple(gate.shape)}, {gate.dtype}"
            checks.reject("up", expected, f"shape {tuple(up.shape)}, {up.dtype}")
        if (gate_scale is None) != (up_scale is None):
            missing = "gate_scale" if gate_scale is None else "up_scale"
            checks.reject(missing, "given together with the other half's scale", None)
        if gate_scale is not None and up_scale is not None:
            options["w13_scale"] = torch.stack([gate_scale.reshape(-1), up_scale.reshape(-1)], dim=1)
        as_bytes = gate.dtype == _E4M3
        halves = [half.view(torch.uint8) if as_bytes else half for half in (gate, up)]
        w13 = torch.cat(halves, dim=1)
        return cls(w13.view(_E4M3) if as_bytes else w13, down, w13_order="w1_w3", **options)

    def forward(
        self,
        hidden_states: torch.Tensor,
        router_logits: torch.Tensor,
        *,
        output: torch.Tensor | None = None,
        routing_replay_out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return bfloat16 of the shape of ``hidden_states``.

        hidden_states: [..., H], float8_e4m3fn already quantised with ``input_scale``, or a wider float to be
        quantised here. router_logits: [T, num_experts] float32 or bfloat16, T the product of the leading
        dimensions. output: None or bfloat16 [T, H]; routing_replay_out: None or int16 [>= T, top_k].
        """
        checks.is_tensor("router_logits", router_logits)
        result = trtllm_fp8_per_tensor_scale_moe(
            router_logits,
            self.routing_bias,
            self.quantize_input(hidden_states),
            **self._expert_arguments(),
            **self._routing,
            output=output,
            routing_replay_out=routing_replay_out,
        )
        assert isinstance(result, torch.Tensor)
        return result.view(hidden_states.shape)

    def forward_routed(
        self,
        hidden_states: torch.Tensor,
        topk_ids: torch.Tensor,
        topk_weights: torch.Tensor,
        *,
        output: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """``forward`` with the routing done: int32 global ids and bfloat16 weights, both [T, top_k]."""
        result = trtllm_fp8_per_tensor_scale_routed_moe(
            topk_ids,
            topk_weights,
            self.quantize_input(hidden_states),
            **self._expert_arguments(),
            output=output,
        )
        assert isinstance(result, torch.Tensor)
        return result.view(hidden_states.shape)

    @torch.no_grad()
    def calibrate(self, hidden_states: torch.Tensor, router_logits: torch.Tensor) -> None:
        """Choose the static scales from sample inputs, so that their largest magnitudes map to 448.

        Sets ``intermediate_scale``, and ``input_scale`` unless it was given to the constructor or
        ``hidden_states`` is quantised already. Arguments as in ``forward``.
        """
        with self._provisional_scales(hidden_states):
            ids, weights = self._route(hidden_states, router_logits)
            self._calibrate_intermediate(hidden_states, ids, weights)

    @torch.no_grad()
    def calibrate_routed(
        self, hidden_states: torch.Tensor, topk_ids: torch.Tensor, topk_weights: torch.Tensor
    ) -> None:
        """``calibrate`` with the routing done; arguments as in ``forward_routed``."""
        with self._provisional_scales(hidden_states):
            self._calibrate_intermediate(hidden_states, topk_ids, topk_weights)

    @contextmanager
    def _provisional_scales(self, hidden_states: torch.Tensor) -> Iterator[None]:
        """The input's scale and ones for the intermediate; what was there before if the calibration fails."""
        checks.is_tensor("hidden_states", hidden_states)
        checks.dense("hidden_states", hidden_states)
        before = self.input_scale, self.intermediate_scale
        if hidden_states.dtype != _E4M3 and not self._has_given_input_scale:
            self.input_scale = scales.full_range_scale(hidden_states)
        self.intermediate_scale = torch.ones(self.num_local_experts, device=self.w2.device)
        self._update_scales()
        try:
            yield
        except BaseException:
            self.input_scale, self.intermediate_scale = before
            self._update_scales()
            raise

    def _calibrate_intermediate(
        self, hidden_states: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> None:
        largest = self._largest_intermediate(self.quantize_input(hidden_states), ids, weights)
        self.intermediate_scale = scales.full_range_scale(largest).expand(self.num_local_experts).contiguous()
        self._update_scales()

    def _check_options(self, routing_bias: torch.Tensor | None) -> None:
        validate.check_options(**self._experts, **self._routing)
        if checks.is_tensor("routing_bias", routing_bias, optional=True):
            assert routing_bias is not None
            checks.storage("routing_bias", routing_bias, validate.LOGITS, 1)
            checks.shape("routing_bias", routing_bias, [Dim(self._experts["num_experts"], "num_experts")])

    def _check_weights(self, w13: torch.Tensor, w2: torch.Tensor) -> None:
        for name, weight in (("w13", w13), ("w2", w2)):
            checks.is_tensor(name, weight)
            checks.storage(name, weight, (_E4M3, *_TO_QUANTIZE), 3)
        checks.same_device("w13", w13, w2.device, "w2")
        if (w13.dtype == _E4M3) != (w2.dtype == _E4M3):
            checks.reject("w13", f"quantised exactly when w2 ({w2.dtype}) is", w13.dtype)
        factor, prefix = (2, "2 * ") if self.activation.is_gated else (1, "")
        rows = Dim(factor * w2.shape[2], f"{prefix}w2.shape[2], activation_type {self.activation.name}")
        for dim in (1, 2):
            checks.multiple(f"w2.shape[{dim}]", w2.shape[dim], 16, "hidden and intermediate size")
        checks.shape("w13", w13, (Dim(w2.shape[0], "w2.shape[0]"), rows, Dim(w2.shape[1], "w2.shape[1]")))

    def _set_weights(
        self,
        w13: torch.Tensor,
        w2: torch.Tensor,
        w13_scale: Scale | None,
        w2_scale: Scale | None,
        inverse: bool,
    ) -> None:
        parts = 2 if self.activation.is_gated else 1
        given = {"w13_scale": w13_scale, "w2_scale": w2_scale}
        if w13.dtype == _E4M3:
            for name, scale in given.items():
                if scale is None:
                    checks.reject_type(name, "a float or a torch.Tensor with float8_e4m3fn weights", None)
            assert w13_scale is not None
            assert w2_scale is not None
            experts, device = self.num_local_experts, w2.device
            w13_dequant = scales.from_checkpoint("w13_scale", w13_scale, inverse, experts, parts, device)
            w2_dequant = scales.from_checkpoint("w2_scale", w2_scale, inverse, experts, 1, device)
        else:
            for name, scale in given.items():
                if scale is not None:
                    checks.reject(name, f"None with weights to quantise ({w13.dtype})", "a scale")
            w13, w13_dequant = scales.quantize_weight(w13, parts)
            w2, w2_dequant = scales.quantize_weight(w2, 1)
        self.register_buffer("w13", w13)
        self.register_buffer("w2", w2)
        self.register_buffer("w13_scale", w13_dequant)
        self.register_buffer("w2_scale", w2_dequant[:, 0].contiguous())

    def _set_static_scales(
        self, input_scale: Scale | None, intermediate_scale: Scale | None, inverse: bool
    ) -> None:
        experts, device = self.num_local_experts, self.w2.device
        self._has_given_input_scale = input_scale is not None
        common = per_expert = None
        if input_scale is not None:
            common = scales.from_checkpoint("input_scale", input_scale, inverse, experts, 2, device).amax()
        if intermediate_scale is not None:
            per_expert = scales.from_checkpoint(
                "intermediate_scale", intermediate_scale, inverse, experts, 1, device
            )
            per_expert = per_expert[:, 0].contiguous()
        self.register_buffer("input_scale", common)
        self.register_buffer("intermediate_scale", per_expert)
        for name in _SCALES[2:]:
            self.register_buffer(name, None)
        self._update_scales()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> FusedMoE:
        """``to``, ``half`` and the like move the layer but leave its data types: fn sees integers."""

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            return fn(tensor.view(_BITS[tensor.element_size()])).view(tensor.dtype)

        super()._apply(moved, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """A layer that was not calibrated takes the scales of one that was."""
        for name in _SCALES:
            stored = state_dict.get(prefix + name)
            if stored is not None and getattr(self, name) is None:
                setattr(self, name, torch.empty_like(stored, device=self.w2.device))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _update_scales(self) -> None:
        if self.input_scale is None or self.intermediate_scale is None:
            self.output1_scales = self.output1_gate_scales = self.output2_scales = None
            return
        linear, gate = self.w13_scale[:, 0], self.w13_scale[:, -1]
        if self.layout is WeightLayout.W1W3:
            linear, gate = gate, linear
        self.output1_scales, self.output1_gate_scales, self.output2_scales = scales.combine(
            self.activation, self.input_scale, linear, gate, self.intermediate_scale, self.w2_scale
        )

    def quantize_input(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """``hidden_states`` as float8_e4m3fn [T, H]; unchanged when quantised already."""
        checks.is_tensor("hidden_states", hidden_states)
        checks.dense("hidden_states", hidden_states)
        if self.input_scale is None:
            checks.reject("input_scale", "given to the constructor, or found by calibrate()", None)
        if hidden_states.dtype not in (_E4M3, *_TO_QUANTIZE):
            checks.reject("hidden_states", "float8_e4m3fn or a wider float", hidden_states.dtype)
        if hidden_states.dim() < 2 or hidden_states.shape[-1] != self.hidden_size:
            expected = f"of shape (..., {self.hidden_size} (w2.shape[1]))"
            checks.reject("hidden_states", expected, f"shape {tuple(hidden_states.shape)}")
        flat = hidden_states.reshape(-1, self.hidden_size)
        return flat if flat.dtype == _E4M3 else scales.quantize(flat, self.input_scale).contiguous()

    @property
    def kernel_scales(self) -> scales.KernelScales:
        """The three float32 [L] scale arguments of the operation."""
        if self.output1_scales is None or self.output1_gate_scales is None or self.output2_scales is None:
            checks.reject("intermediate_scale", "given to the constructor, or found by calibrate()", None)
        return scales.KernelScales(self.output1_scales, self.output1_gate_scales, self.output2_scales)

    def _expert_arguments(self) -> dict[str, Any]:
        output1, output1_gate, output2 = self.kernel_scales
        return {
            "gemm1_weights": self.w13,
            "output1_scales_scalar": output1,
            "output1_scales_gate_scalar": output1_gate,
            "gemm2_weights": self.w2,
            "output2_scales_scalar": output2,
            **self._experts,
        }

    def _route(
        self, hidden_states: torch.Tensor, router_logits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Global ids and weights [T, top_k] as the operation itself chooses them."""
        checks.is_tensor("router_logits", router_logits)
        hidden = self.quantize_input(hidden_states)
        ids = torch.empty(hidden.shape[0], self.top_k, dtype=torch.int16, device=hidden.device)
        parts = trtllm_fp8_per_tensor_scale_moe(
            router_logits,
            self.routing_bias,
            hidden,
            **self._expert_arguments(),
            **self._routing,
            do_finalize=False,
            routing_replay_out=ids,
        )
        return ids, parts[1]

    def _largest_intermediate(
        self, hidden: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Largest magnitude of the activation's result, [L], zero for an expert without tokens."""
        assert self.input_scale is not None
        largest = torch.zeros(self.num_local_experts, device=hidden.device)
        one = torch.ones((), dtype=torch.float64, device=hidden.device)
        inputs = hidden.float() * self.input_scale
        for expert in range(self.num_local_experts):
            token, rank = (ids == expert + self._experts["local_expert_offset"]).nonzero(as_tuple=True)
            if not token.numel():
                continue
            x = inputs[token]
            if self._experts["use_routing_scales_on_input"]:
                x = x * weights[token, rank, None].float()
            halves = self.w13[expert].float().chunk(self.w13_scale.shape[1])
            linear, *gate = (x @ w.T * s for w, s in zip(halves, self.w13_scale[expert], strict=True))
            if self.layout is WeightLayout.W1W3 and gate:
                linear, gate = gate[0], [linear]
            value = activate(self.activation, linear, gate[0] if gate else None, one, one)
            largest[expert] = value.abs().amax()
        return largest
