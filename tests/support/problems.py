"""Random problems for value tests: fresh in every run, reproducible through MOE_JIT_TEST_SEED."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from moe_jit.enums import ActivationType
from moe_jit.reference import selection_margin

AMPLITUDE = 64.0
MARGIN = 2e-6  # 16 to 32 fp32 ulps of a sigmoid, far above what two exp or tanh differ by


def fresh_seed() -> int:
    """Seed of this run: MOE_JIT_TEST_SEED if set, else from the operating system."""
    given = os.environ.get("MOE_JIT_TEST_SEED")
    return int(given) if given else int.from_bytes(os.urandom(4), "little")


def generator(seed: int, device: str) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


@dataclass(frozen=True)
class Layer:
    """Weights of local experts as the API takes them. Random rows are valid in every layout."""

    gemm1: torch.Tensor
    sc: torch.Tensor
    sg: torch.Tensor
    gemm2: torch.Tensor
    s2: torch.Tensor
    activation: int
    weight_layout: str = "shuffled"

    @property
    def hidden_size(self) -> int:
        return self.gemm2.shape[1]

    @property
    def intermediate_size(self) -> int:
        return self.gemm2.shape[2]

    def shard(self, offset: int, count: int) -> Layer:
        part = slice(offset, offset + count)
        names = ("gemm1", "sc", "sg", "gemm2", "s2")
        return replace(self, **{name: getattr(self, name)[part].contiguous() for name in names})

    def experts(self) -> dict[str, Any]:
        """Arguments of reference.fp8_moe."""
        return {
            "w1": self.gemm1,
            "sc": self.sc,
            "sg": self.sg,
            "w2": self.gemm2,
            "s2": self.s2,
            "activation": self.activation,
            "weight_layout": self.weight_layout,
            "intermediate_size": self.intermediate_size,
        }


def random_e4m3(gen: torch.Generator, *shape: int) -> torch.Tensor:
    values = torch.randn(*shape, generator=gen, device=gen.device) * AMPLITUDE
    return values.clamp(-448, 448).to(torch.float8_e4m3fn)


def random_weight(gen: torch.Generator, num_experts: int, rows: int, columns: int) -> torch.Tensor:
    """e4m3 [num_experts, rows, columns], made one expert at a time to bound the memory."""
    weight = torch.empty(num_experts, rows, columns, dtype=torch.float8_e4m3fn, device=gen.device)
    for expert in range(num_experts):
        weight[expert] = random_e4m3(gen, rows, columns)
    return weight


def random_layer(
    gen: torch.Generator,
    *,
    num_experts: int,
    hidden_size: int,
    intermediate_size: int,
    activation: int = 3,
    weight_layout: str = "shuffled",
) -> Layer:
    """Unrelated SC, SG and S2 per expert; the gate has unit variance and a few intermediates saturate."""

    def spread() -> torch.Tensor:
        return torch.rand(num_experts, generator=gen, device=gen.device) + 0.5

    kind = ActivationType.parse(activation)
    rows = intermediate_size * (2 if kind.is_gated else 1)
    dequantise = 1 / (AMPLITUDE**2 * hidden_size**0.5)
    quantise = 100.0
    linear = 1.0 if kind in (ActivationType.Relu2, ActivationType.Gelu) else dequantise
    return Layer(
        gemm1=random_weight(gen, num_experts, rows, hidden_size),
        sc=spread() * quantise * linear,
        sg=spread() * dequantise,
        gemm2=random_weight(gen, num_experts, hidden_size, intermediate_size),
        s2=spread() / (quantise * AMPLITUDE * intermediate_size**0.5),
        activation=activation,
        weight_layout=weight_layout,
    )


@dataclass(frozen=True)
class Routing:
    """Routing inputs and settings as the API takes them."""

    logits: torch.Tensor
    bias: torch.Tensor | None
    method: int
    top_k: int
    n_group: int | None = None
    topk_group: int | None = None
    factor: float | None = None
    norm_topk_prob: bool = True
    extra: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """Keyword arguments of reference.route besides the two tensors."""
        return {
            "method": self.method,
            "top_k": self.top_k,
            "n_group": self.n_group,
            "topk_group": self.topk_group,
            "routed_scaling_factor": self.factor,
            "norm_topk_prob": self.norm_topk_prob,
        }


def random_routing(
    gen: torch.Generator,
    num_tokens: int,
    num_experts: int,
    *,
    method: int,
    top_k: int,
    dtype: torch.dtype = torch.float32,
    bias_dtype: torch.dtype | None = torch.float32,
    shift: float = 0.0,
    **settings: Any,
) -> Routing:
    """Normal logits around ``shift`` whose selection does not hinge on the last bits of exp or tanh.

    bf16 logits keep their many exact ties. ``bias_dtype`` None means no bias.
    """

    def logits(rows: int) -> torch.Tensor:
        return (torch.randn(rows, num_experts, generator=gen, device=gen.device) * 1.5 + shift).to(dtype)

    bias = None
    if bias_dtype is not None:
        bias = (torch.randn(num_experts, generator=gen, device=gen.device) * 0.3).to(bias_dtype)
    routing = Routing(logits(num_tokens), bias, method, top_k, **settings)
    limits = {
        k: v for k, v in routing.settings().items() if k in ("method", "top_k", "n_group", "topk_group")
    }
    for _ in range(100):
        near = selection_margin(routing.logits, bias, **limits) < MARGIN
        if not bool(near.any()):
            return routing
        routing.logits[near] = logits(int(near.sum()))
    raise AssertionError("could not draw logits without near-ties")
