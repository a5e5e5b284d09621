"""Random inputs of the operators with torch_npu's signatures, and the comparison of quantised results."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from moe_jit import use_backend
from moe_jit.ascend.backends import CUDA_OPERATORS
from moe_jit.ascend.kernel_calls import FUNCTIONS
from moe_jit.backends import EMULATOR
from moe_jit.reference.ascend import Quantised
from support.problems import fresh_seed, generator

HALF_WINDOW = 127 * 2.0**-20  # how near to a tie a value may be rounded to the other side


def devices(*operators: str) -> list[Any]:
    """Devices of torch that all of ``operators`` have modules for."""
    on_cuda = all(operator in CUDA_OPERATORS for operator in operators)
    return ["cpu", *([pytest.param("cuda", marks=pytest.mark.cuda)] if on_cuda else [])]


def backends(*operators: str) -> list[Any]:
    """``devices``, and the emulator: all of ``operators`` have Ascend C kernels."""
    assert set(operators) <= FUNCTIONS.keys()
    return [*devices(*operators), pytest.param(EMULATOR, marks=pytest.mark.ascend_emulator)]


def inputs_on(device: str) -> Iterator[Inputs]:
    """For a fixture: calls inside the test go to one of ``backends``; the emulated chip has a random size."""
    if device != EMULATOR:
        yield Inputs(device)
        return
    inputs = Inputs()
    inputs.cores = inputs.random.choice((1, 2, 5, 20, 24))
    with use_backend(EMULATOR, cores=inputs.cores, seed=inputs.random.randrange(1000)):
        yield inputs


on_backend = contextmanager(inputs_on)


def on_device(arguments: dict[str, Any], device: str) -> dict[str, Any]:
    """Tensors, and those in lists, with their strides."""

    def move(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(device)
        return [move(v) for v in value] if isinstance(value, list) else value

    return {name: move(value) for name, value in arguments.items()}


class Inputs:
    """Random tensors of one device. ``note`` identifies the run in a failure message."""

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.seed = fresh_seed()
        self.gen = generator(self.seed, device)
        self.random = random.Random(self.seed)
        self.cores = 0

    @property
    def note(self) -> str:
        return f"seed {self.seed}" + (f", {self.cores} emulated cores" if self.cores else "")

    def integers(self, *shape: int, low: int = -128, high: int = 127, dtype=torch.int8) -> torch.Tensor:
        return torch.randint(low, high + 1, shape, generator=self.gen, device=self.device).to(dtype)

    def normal(self, *shape: int, dtype=torch.float32, std: float = 1.0) -> torch.Tensor:
        return (torch.randn(shape, generator=self.gen, device=self.device) * std).to(dtype)

    def positive(self, *shape: int, dtype=torch.float32, high: float = 1.0) -> torch.Tensor:
        """Uniform in [high / 2, high]."""
        return ((0.5 + torch.rand(shape, generator=self.gen, device=self.device) / 2) * high).to(dtype)

    def counts(self, groups: int, rows: int, *, empty: bool = True) -> torch.Tensor:
        """int64 [groups] of sum ``rows``, some of them zero if ``empty``."""
        weights = torch.rand(groups, generator=self.gen, device=self.device)
        if empty and groups > 2:
            weights[torch.rand(groups, generator=self.gen, device=self.device) < 0.3] = 0
            weights[self.random.randrange(groups)] = 1
        owners = torch.multinomial(weights, rows, replacement=True, generator=self.gen)
        return torch.bincount(owners, minlength=groups)


def check_quantised(
    y: torch.Tensor,
    scale: torch.Tensor,
    expected: Quantised,
    note: str,
    *,
    low: int = -128,
    high: int = 127,
    scale_atol: float = 0.0,
) -> None:
    """``y`` is the rounding of the exact values, except next to a tie; scales agree to a few fp32 units."""
    exact = expected.exact.clamp(low, high)
    distance = (y.cpu().double() - exact).abs()
    worst = distance.max().item() if distance.numel() else 0.0
    assert worst <= 0.5 + HALF_WINDOW, f"{note}: off by {worst}"
    torch.testing.assert_close(scale.cpu().double(), expected.scale, rtol=1e-6, atol=scale_atol, msg=note)
