"""What the host knows about one call: the input of planning, and the cache key of everything compiled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from .enums import ActivationType, RoutingMethodType, WeightLayout


@dataclass(frozen=True, slots=True)
class Device:
    """A device that can run the operation. All but ``kind`` is empty on the CPU."""

    kind: Literal["cpu", "cuda"]
    index: int = 0
    target: str = ""  # what its modules are compiled for
    sm_count: int = 0
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoEProblem:
    """Everything about a call that is known without reading device memory.

    ``routing_method`` and ``logits_dtype`` are None when the caller passes expert ids and weights.
    ``n_group`` and ``topk_group`` are 0 unless selection is limited to groups. ``bias_dtype`` is None
    without a bias. The defaults are those of the public function.
    """

    device: Device
    num_tokens: int
    hidden_size: int
    intermediate_size: int
    num_experts: int
    num_local_experts: int
    local_expert_offset: int = 0
    top_k: int
    n_group: int = 0
    topk_group: int = 0
    routing_method: RoutingMethodType | None
    activation: ActivationType = ActivationType.Swiglu
    weight_layout: WeightLayout = WeightLayout.Shuffled
    fast_accum: bool = True
    logits_dtype: torch.dtype | None = None
    bias_dtype: torch.dtype | None = None
    do_finalize: bool = True
    scale_input: bool = False
    has_replay: bool = False
    enable_pdl: bool = True
    tune_max_num_tokens: int = 8192

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
