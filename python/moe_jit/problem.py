"""What the host knows about one call: the input of planning, and the cache key of everything compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from .enums import ActivationType, RoutingMethodType, WeightLayout


@dataclass(frozen=True, slots=True)
class Device:
    """A device that can run the operation. ``compute_capability`` and ``sm_count`` are zero on the CPU."""

    kind: Literal["cpu", "cuda"]
    index: int = 0
    compute_capability: tuple[int, int] = (0, 0)
    sm_count: int = 0


@dataclass(frozen=True, slots=True)
class MoEProblem:
    """Everything about a call that is known without reading device memory.

    ``routing_method`` and ``logits_dtype`` are None when the caller passes expert ids and weights.
    ``n_group`` and ``topk_group`` are 0 unless selection is limited to groups. ``bias_dtype`` is None
    without a bias.
    """

    num_tokens: int
    hidden_size: int
    intermediate_size: int
    num_experts: int
    num_local_experts: int
    local_expert_offset: int
    top_k: int
    n_group: int
    topk_group: int
    routing_method: RoutingMethodType | None
    activation: ActivationType
    weight_layout: WeightLayout
    logits_dtype: torch.dtype | None
    bias_dtype: torch.dtype | None
    do_finalize: bool
    scale_input: bool
    has_replay: bool
    enable_pdl: bool
    tune_max_num_tokens: int
    device: Device

    @property
    def is_pre_routed(self) -> bool:
        return self.routing_method is None

    @property
    def num_pairs(self) -> int:
        """(token, rank) pairs: the largest possible number of rows of the permuted buffers."""
        return self.num_tokens * self.top_k

    @property
    def gemm1_rows(self) -> int:
        return (2 if self.activation.is_gated else 1) * self.intermediate_size
