"""Agreement of the processes of a torch.distributed group, so that all of them choose the same tactics.

Only plain numbers travel. Every method is a collective: all ranks call it in the same order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
import torch.distributed as dist


class Ranks:
    """The ranks of ``group``; None is this process alone."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self._group = group
        self._device = torch.device("cpu")
        if group is not None and "nccl" in dist.get_backend(group):
            self._device = torch.device("cuda", torch.cuda.current_device())

    def maximum(self, values: Sequence[float]) -> list[float]:
        """Elementwise over the ranks; the slowest rank determines the time of a step."""
        if self._group is None:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, self._group)
        return [float(value) for value in tensor.tolist()]

    def differ(self, texts: Sequence[str]) -> list[bool]:
        """Elementwise, whether any two ranks have different texts."""
        digests = [_digest(text) for text in texts]
        highest = self.maximum([*digests, *(-digest for digest in digests)])
        return [high != -low for high, low in zip(highest[: len(texts)], highest[len(texts) :], strict=True)]


def _digest(text: str) -> int:
    """48 bits, which float64 holds exactly."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")
