"""Expert layers of real models, and the physical lower bound of their running time on one H200."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from moe_jit.enums import ActivationType, RoutingMethodType

# Measured on an H200: streaming reads through TMA, and a dense 8192^3 e4m3 product with fast accumulation.
READ_BYTES_PER_S = 4.538e12
FP8_FLOP_PER_S = 1.453e15


@dataclass(frozen=True)
class Model:
    name: str
    hidden_size: int
    intermediate_size: int
    num_experts: int
    top_k: int
    routing: RoutingMethodType = RoutingMethodType.Renormalize
    n_group: int | None = None
    topk_group: int | None = None
    activation: ActivationType = ActivationType.Swiglu
    scale_input: bool = False

    @property
    def gemm1_rows(self) -> int:
        return (2 if self.activation.is_gated else 1) * self.intermediate_size

    @property
    def expert_bytes(self) -> int:
        return (self.gemm1_rows + self.intermediate_size) * self.hidden_size

    def experts_hit(self, num_tokens: int) -> float:
        """Expected number of distinct experts under uniform routing."""
        return self.num_experts * (1 - (1 - self.top_k / self.num_experts) ** num_tokens)

    def bound_us(self, num_tokens: int) -> float:
        """Each needed weight byte, token and result moves once; every product is computed once."""
        pairs = num_tokens * self.top_k
        return self._bound_us(self.experts_hit(num_tokens), pairs, num_tokens, num_tokens)

    def routed_bound_us(self, ids: torch.Tensor, local_offset: int, num_local: int) -> float:
        """The same bound for the experts that ``ids`` [T, top_k] choose, counting the local ones only.

        A token without a local expert is not read; its result, zero, is written all the same.
        """
        local = ids.long() - local_offset
        live = (local >= 0) & (local < num_local)
        counts = torch.bincount(local[live], minlength=num_local)
        hit = int((counts > 0).sum())
        return self._bound_us(hit, int(counts.sum()), int(live.any(dim=1).sum()), ids.shape[0])

    def _bound_us(self, experts: float, pairs: int, tokens_read: int, tokens_written: int) -> float:
        tokens = (tokens_read + 2 * tokens_written) * self.hidden_size
        flops = 2 * pairs * self.expert_bytes
        return 1e6 * max((self.expert_bytes * experts + tokens) / READ_BYTES_PER_S, flops / FP8_FLOP_PER_S)


MODELS = {
    m.name: m
    for m in (
        Model("dsv3", 7168, 2048, 256, 8, RoutingMethodType.DeepSeekV3, 8, 4),
        Model("qwen3-235b", 4096, 1536, 128, 8),
        Model("qwen3-30b", 2048, 768, 128, 8),
        Model("mixtral", 4096, 14336, 8, 2),
        Model("maverick", 5120, 8192, 128, 1, RoutingMethodType.Llama4, scale_input=True),
        Model("kimi-k2", 7168, 2048, 384, 8, RoutingMethodType.DeepSeekV3),
        Model("nemotron", 4096, 2688, 512, 22, RoutingMethodType.DeepSeekV3, activation=ActivationType.Relu2),
    )
}
