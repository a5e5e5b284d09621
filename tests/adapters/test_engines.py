"""vLLM's and SGLang's conventions against the layer, which takes the same checkpoint."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from adapters import recorded
from adapters.recorded import NO_DEFAULT, SglangQuantInfo, VllmActivation, VllmRouting

import moe_jit
from moe_jit import ActivationType, FusedMoE, RoutingMethodType
from moe_jit.adapters import conventions, sglang, vllm
from moe_jit.reference import route

E, H, I, K, T = 8, 64, 32, 2, 21  # noqa: E741
E4M3 = torch.float8_e4m3fn


@dataclass
class Checkpoint:
    """A layer as engines load it: [gate; up] rows and dequantisation scales, one per expert after merging."""

    w13: torch.Tensor
    w2: torch.Tensor
    w13_scale: torch.Tensor
    w2_scale: torch.Tensor
    input_scale: torch.Tensor
    intermediate_scale: torch.Tensor
    gated: bool

    @classmethod
    def random(cls, gated: bool = True) -> Checkpoint:
        def fp8(*shape: int) -> torch.Tensor:
            return (torch.randn(*shape) * 60).clamp(-448, 448).to(E4M3)

        def spread() -> torch.Tensor:
            return torch.rand(E) + 0.5

        return cls(
            w13=fp8(E, (2 if gated else 1) * I, H),
            w2=fp8(E, H, I),
            w13_scale=spread() / 480,
            w2_scale=spread() / 340,
            input_scale=torch.tensor(0.011),
            intermediate_scale=torch.tensor(0.02),
            gated=gated,
        )

    def layer(self, part: slice = slice(None), **options: Any) -> FusedMoE:
        start, stop, _ = part.indices(E)
        return FusedMoE(
            self.w13[start:stop],
            self.w2[start:stop],
            w13_scale=self.w13_scale[start:stop],
            w2_scale=self.w2_scale[start:stop],
            input_scale=self.input_scale,
            intermediate_scale=self.intermediate_scale,
            num_experts=E,
            local_expert_offset=start,
            activation_type=ActivationType.Swiglu if self.gated else ActivationType.Relu2,
            **{"top_k": K, **options},
        )

    def vllm(
        self, method: Any, ep_rank: int = 0, ep_size: int = 1, top_k: int = K
    ) -> vllm.Fp8PerTensorExperts:
        local = E // ep_size
        part = slice(ep_rank * local, (ep_rank + 1) * local)
        moe_config = SimpleNamespace(
            routing_method=method,
            experts_per_token=top_k,
            num_local_experts=local,
            intermediate_size_per_partition=I,
            hidden_dim=H,
            activation=VllmActivation.SILU if self.gated else VllmActivation.RELU2_NO_MUL,
            is_act_and_mul=self.gated,
            moe_parallel_config=SimpleNamespace(ep_rank=ep_rank, use_ep=ep_size > 1),
        )
        quant_config = SimpleNamespace(
            is_per_tensor=True,
            block_shape=None,
            w1_scale=self.w13_scale[part].view(-1, 1, 1),
            w2_scale=self.w2_scale[part].view(-1, 1, 1),
            a1_scale=self.input_scale,
            a2_scale=self.intermediate_scale,
        )
        return vllm.Fp8PerTensorExperts(moe_config, quant_config)

    def sglang(self, method: int, weight_layout: str) -> tuple[SglangQuantInfo, SimpleNamespace]:
        alphas = self.w13_scale * self.input_scale
        factor = alphas if self.gated else torch.ones(E)
        w13, w2 = self.w13, self.w2
        if weight_layout == "shuffled":
            w13 = moe_jit.shuffle_gemm1(w13, gated=self.gated, source="w1_w3")
            w2 = moe_jit.shuffle_gemm2(w2)
        quant_info = SglangQuantInfo(
            w13_weight=w13,
            w2_weight=w2,
            global_num_experts=E,
            local_expert_offset=0,
            local_num_experts=E,
            intermediate_size=I,
            routing_method_type=method,
            block_quant=False,
            w13_input_scale=self.input_scale,
            output1_scales_scalar=factor / self.intermediate_scale,
            output1_scales_gate_scalar=alphas,
            output2_scales_scalar=self.intermediate_scale * self.w2_scale,
        )
        runner_config = SimpleNamespace(
            activation="silu" if self.gated else "relu2",
            is_gated=self.gated,
            no_combine=False,
            routed_scaling_factor=None,
        )
        return quant_info, runner_config


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(99)


def tokens() -> tuple[torch.Tensor, torch.Tensor]:
    return (torch.randn(T, H) * 80).clamp(-448, 448).to(E4M3), torch.randn(T, E)


def apply(
    experts: vllm.Fp8PerTensorExperts, checkpoint: Checkpoint, x: Any, logits: Any, **changes: Any
) -> Any:
    count = experts.num_local_experts
    offset = experts._default_offset
    arguments = {
        "hidden_states": x,
        "w1": checkpoint.w13[offset : offset + count],
        "w2": checkpoint.w2[offset : offset + count],
        "router_logits": logits,
        "activation": VllmActivation.SILU if checkpoint.gated else VllmActivation.RELU2_NO_MUL,
        "global_num_experts": E,
        "expert_map": None,
        "a1q_scale": checkpoint.input_scale,
        "apply_router_weight_on_input": False,
    }
    return experts.apply(**(arguments | changes))


def test_vllm_signature_is_the_recorded_one() -> None:
    parameters = list(inspect.signature(vllm.Fp8PerTensorExperts.apply).parameters.values())[1:]
    actual = {p.name: NO_DEFAULT if p.default is p.empty else p.default for p in parameters}
    assert list(actual.items()) == list(recorded.VLLM_APPLY.items())


@pytest.mark.parametrize("engine", recorded.FLASHINFER_KEYWORDS)
def test_calls_of_the_flashinfer_function_bind(engine: str) -> None:
    signature = inspect.signature(moe_jit.trtllm_fp8_per_tensor_scale_moe)
    signature.bind(**dict.fromkeys(recorded.FLASHINFER_KEYWORDS[engine]))


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_vllm_renormalize(gated: bool, dtype: torch.dtype) -> None:
    checkpoint, (x, logits) = Checkpoint.random(gated), tokens()
    logits = logits.to(dtype)
    widened = logits if dtype == torch.bfloat16 else logits.float()
    actual = apply(checkpoint.vllm(VllmRouting.Renormalize), checkpoint, x, logits)
    assert torch.equal(actual, checkpoint.layer()(x, widened))
    assert actual.abs().amax() > 0


def test_vllm_grouped_routing_with_bias() -> None:
    checkpoint, (x, logits) = Checkpoint.random(), tokens()
    bias = torch.randn(E)
    options = {"topk_group": 2, "routed_scaling_factor": 2.5}
    actual = apply(
        checkpoint.vllm(VllmRouting.DeepSeekV3),
        checkpoint,
        x,
        logits,
        num_expert_group=4,
        e_score_correction_bias=bias,
        **options,
    )
    layer = checkpoint.layer(
        routing_method_type=RoutingMethodType.DeepSeekV3, routing_bias=bias, n_group=4, **options
    )
    assert torch.equal(actual, layer(x, logits))


def test_vllm_llama4_scales_the_input() -> None:
    checkpoint, (x, logits) = Checkpoint.random(), tokens()
    experts = checkpoint.vllm(VllmRouting.Llama4, top_k=1)
    actual = apply(experts, checkpoint, x, logits, apply_router_weight_on_input=True)
    layer = checkpoint.layer(top_k=1, routing_method_type=RoutingMethodType.Llama4)
    assert torch.equal(actual, layer(x, logits))


@pytest.mark.parametrize("with_map", [True, False])
def test_vllm_ranks_add_up(with_map: bool) -> None:
    checkpoint, (x, logits) = Checkpoint.random(), tokens()
    total = torch.zeros(T, H)
    for rank in range(4):
        expert_map = torch.full((E,), -1, dtype=torch.int32)
        expert_map[2 * rank : 2 * rank + 2] = torch.arange(2, dtype=torch.int32)
        experts = checkpoint.vllm(VllmRouting.Renormalize, ep_rank=rank, ep_size=4)
        part = apply(experts, checkpoint, x, logits, expert_map=expert_map if with_map else None)
        assert torch.equal(part, checkpoint.layer(slice(2 * rank, 2 * rank + 2))(x, logits))
        total += part
    torch.testing.assert_close(total, checkpoint.layer()(x, logits).float(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("expert_map", [[0, -1, 1, -1], [1, 0, -1, -1], [0, -1, -1, -1], [0, 1, 2, -1]])
def test_other_placements_are_refused(expert_map: list[int]) -> None:
    with pytest.raises(ValueError, match="expert_map must be a map"):
        conventions.first_local_expert(torch.tensor(expert_map), 2, 0)


@pytest.mark.parametrize("method", VllmRouting)
def test_vllm_routing_methods_by_name(method: VllmRouting) -> None:
    if method >= VllmRouting.Unspecified:
        with pytest.raises(ValueError, match=f"routing_method must be one of .*, got {method.name}"):
            conventions.routing_method(method)
    else:
        assert conventions.routing_method(method).name == method.name


@pytest.mark.parametrize("activation", VllmActivation)
def test_vllm_activations(activation: VllmActivation) -> None:
    known = {
        "SILU": ActivationType.Swiglu,
        "GELU": ActivationType.Geglu,
        "RELU2_NO_MUL": ActivationType.Relu2,
    }
    if activation.name in known:
        assert conventions.activation_type(activation) is known[activation.name]
        assert conventions.activation_type(activation.value) is known[activation.name]
    else:
        with pytest.raises(ValueError, match=f"activation must be one of .*, got '{activation.value}'"):
            conventions.activation_type(activation)


def test_vllm_wrong_configurations() -> None:
    checkpoint, (x, logits) = Checkpoint.random(), tokens()
    experts = checkpoint.vllm(VllmRouting.Renormalize)
    with pytest.raises(ValueError, match="activation must be that of moe_config"):
        apply(experts, checkpoint, x, logits, activation=VllmActivation.GELU)
    quant_config = SimpleNamespace(**{**vars(experts.quant_config), "a2_scale": None})
    with pytest.raises(ValueError, match=r"quant_config\.a2_scale must be given"):
        vllm.Fp8PerTensorExperts(experts.moe_config, quant_config)
    for wrong in ({"block_shape": [128, 128]}, {"is_per_tensor": False}):
        quant_config = SimpleNamespace(**{**vars(experts.quant_config), **wrong})
        with pytest.raises(ValueError, match="quant_config must be static FP8 with per-tensor scales"):
            vllm.Fp8PerTensorExperts(experts.moe_config, quant_config)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("weight_layout", ["shuffled", "w1_w3"])
@pytest.mark.parametrize("quantised", [True, False])
def test_sglang_routes_in_the_kernel(gated: bool, weight_layout: str, quantised: bool) -> None:
    checkpoint, (x, logits) = Checkpoint.random(gated), tokens()
    hidden = x if quantised else (x.float() * checkpoint.input_scale * 1.01).bfloat16()
    bias = torch.randn(E)
    config = SimpleNamespace(top_k=K, num_expert_group=4, topk_group=2, correction_bias=bias)
    quant_info, runner_config = checkpoint.sglang(2, weight_layout)
    dispatch = SimpleNamespace(
        hidden_states=hidden, topk_output=recorded.SglangBypassed(hidden, logits, config)
    )
    actual = sglang.fused_experts(dispatch, quant_info, runner_config, weight_layout=weight_layout)
    layer = checkpoint.layer(
        routing_method_type=RoutingMethodType.DeepSeekV3, routing_bias=bias, n_group=4, topk_group=2
    )
    torch.testing.assert_close(actual, layer(hidden, logits), rtol=0.02, atol=0.02)
    assert actual.abs().amax() > 1


@pytest.mark.parametrize("local_ids", [True, False])
def test_sglang_routed_already(local_ids: bool) -> None:
    checkpoint, (x, logits) = Checkpoint.random(), tokens()
    quant_info, runner_config = checkpoint.sglang(1, "w1_w3")
    ids, weights = route(logits, None, method=RoutingMethodType.Renormalize, top_k=K)
    quant_info.w13_weight, quant_info.w2_weight = checkpoint.w13[4:], checkpoint.w2[4:]
    for name in ("output1_scales_scalar", "output1_scales_gate_scalar", "output2_scales_scalar"):
        setattr(quant_info, name, getattr(quant_info, name)[4:])
    quant_info.local_expert_offset, quant_info.local_num_experts = 4, 4
    given = torch.where(ids >= 4, ids - 4, -1) if local_ids else ids
    topk = recorded.SglangStandard(weights.float(), given, logits)
    actual = sglang.fused_experts(
        SimpleNamespace(hidden_states=x, topk_output=topk),
        quant_info,
        runner_config,
        weight_layout="w1_w3",
        local_ids=local_ids,
    )
    expected = checkpoint.layer(slice(4, 8)).forward_routed(x, ids.int(), weights.bfloat16())
    torch.testing.assert_close(actual, expected, rtol=0.02, atol=0.02)


def test_sglang_wrong_configurations() -> None:
    checkpoint = Checkpoint.random()
    quant_info, runner_config = checkpoint.sglang(1, "w1_w3")
    dispatch = SimpleNamespace(hidden_states=tokens()[0], topk_output=None)
    for owner, name, value, message in (
        (quant_info, "block_quant", True, r"quant_info\.block_quant must be False"),
        (runner_config, "no_combine", True, r"runner_config\.no_combine must be False"),
        (runner_config, "activation", "relu2", r"activation must be one of silu, gelu with is_gated True"),
    ):
        before = getattr(owner, name)
        setattr(owner, name, value)
        with pytest.raises(ValueError, match=message):
            sglang.fused_experts(dispatch, quant_info, runner_config)
        setattr(owner, name, before)
