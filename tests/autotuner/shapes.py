"""A layer shape on a GPU that need not be there."""

from __future__ import annotations

from typing import Any

import torch

from moe_jit.enums import RoutingMethodType
from moe_jit.problem import Device, MoEProblem

H200 = Device("cuda", 0, "sm_90a", 132, "NVIDIA H200")


def problem(**changes: Any) -> MoEProblem:
    """Qwen3-30B-A3B with ``changes``."""
    facts = {
        "device": H200,
        "num_tokens": 16,
        "hidden_size": 2048,
        "intermediate_size": 768,
        "num_experts": 128,
        "num_local_experts": 128,
        "top_k": 8,
        "routing_method": RoutingMethodType.Renormalize,
        "logits_dtype": torch.float32,
    }
    return MoEProblem(**(facts | changes))
