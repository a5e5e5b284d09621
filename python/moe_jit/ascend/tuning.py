"""Measures the tilings of Ascend C kernels, for ``moe_jit.autotune``.

A launch is timed with rows of its own making, and the caller's weights: on an NPU by events of the current
stream, with a cold L2 cache; on the emulator by its estimate, for which nothing is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

import torch

from moe_jit import autotuner, backends
from moe_jit.autotuner.buckets import round_up as round_up_rows
from moe_jit.autotuner.subject import T
from moe_jit.jit.spec import EMULATOR, NPU

from . import launch, npu
from .emulator import emulator_report
from .group_list import SPARSE

TUNE_MAX_ROWS = 8192  # as the FP8 layer's tune_max_num_tokens by default; larger calls extend it
_SEED = 20
_MAX_CHOICES = 4096
_REPEATS = 8  # of one measurement on an NPU
_FLUSHED_BYTES = 2 * 192 << 20  # twice the L2 cache of an Atlas A2


@dataclass(frozen=True)
class Launches(Generic[T]):
    """A kernel and the sizes that do not depend on the rows.

    Attributes:
        kind, device: where it runs.
        facts: what besides the rows decides how fast a tactic is.
        candidates: tactics for a number of rows, the default first.
        prepare: for a number of rows and a skew of their groups, a function that launches with a tactic.
    """

    kind: str
    device: torch.device
    facts: Mapping[str, int | str | None]
    candidates: Callable[[int], Sequence[T]]
    prepare: Callable[[int, float], Callable[[T], None]]


_choices: dict[Hashable, autotuner.Choice[Any]] = {}


def tactic_for(rows: int, launches: Launches[T]) -> T:
    """What measurements recommend for ``rows``, else the default; measures in an ``autotune`` context."""
    cores = launch.num_cores(launches.kind, launches.device)
    signature = (launches.kind, str(launches.device), cores, rows, *launches.facts.items())
    known = _choices.get(signature)
    if known is not None and known.generation == autotuner.generation():
        tactic: T = known.tactic
        return tactic
    subject = autotuner.Subject(
        key=_key(launches, cores),
        num_tokens=rows,
        tune_max_num_tokens=max(TUNE_MAX_ROWS, round_up_rows(rows)),
        device=(launches.kind, str(launches.device)),
        candidates=launches.candidates,
        is_capturing=npu.is_capturing if launches.kind == npu.KIND else _never,
    )
    choice = autotuner.tuned(subject, lambda skew: LaunchRunner(launches, skew))
    if len(_choices) >= _MAX_CHOICES:
        _choices.clear()
    _choices[signature] = choice
    return choice.tactic


def _never() -> bool:
    return False


def _key(launches: Launches[T], cores: int) -> autotuner.Key:
    is_npu = launches.kind == npu.KIND
    device = {
        "gpu": npu.name(launches.device) if is_npu else backends.EMULATOR,
        "cores": cores,
        "kernels": autotuner.own_kernels(NPU if is_npu else EMULATOR, "ascend"),
    }
    return autotuner.Key.of(device | dict(launches.facts))


class LaunchRunner(Generic[T]):
    """A ``Runner`` of the tuner."""

    def __init__(self, launches: Launches[T], skew: float) -> None:
        self._launches, self._skew = launches, skew

    def compile(self, choices: Mapping[int, Sequence[T]]) -> None:
        """The tactics of one number of rows use all modules that there are."""
        rows = min(choices)
        with self.at(rows) as measure:
            for tactic in choices[rows]:
                measure(tactic)

    @contextmanager
    def at(self, num_tokens: int) -> Iterator[Callable[[T], float]]:
        run = self._launches.prepare(num_tokens, self._skew)
        if self._launches.kind == npu.KIND:
            timer = npu.Timer(torch.empty(_FLUSHED_BYTES, dtype=torch.uint8, device=self._launches.device))
            yield lambda tactic: timer.microseconds(lambda: run(tactic), _REPEATS)
        else:
            estimates: dict[T, float] = {}  # which do not vary

            def estimate(tactic: T) -> float:
                if tactic not in estimates:
                    with emulator_report(count_only=True) as report:
                        run(tactic)
                    estimates[tactic] = 1e6 * report.seconds
                return estimates[tactic]

            yield estimate


# ---- rows to measure with


def rows_like(tensor: torch.Tensor, rows: int, kind: str) -> torch.Tensor:
    """Random rows of the tensor's width and type (the emulator reads none); torch's global random state is
    neither used nor changed."""
    shape = (rows, *tensor.shape[1:])
    if kind != npu.KIND:
        return tensor.new_empty(shape)
    generator = torch.Generator(tensor.device).manual_seed(_SEED)
    if tensor.dtype.is_floating_point:
        return tensor.new_empty(shape).normal_(generator=generator)
    low = -(1 << (8 * tensor.element_size() - 1))
    return tensor.new_empty(shape).random_(low, -low, generator=generator)


def ones_like(tensor: torch.Tensor | None, rows: int) -> torch.Tensor | None:
    return None if tensor is None else tensor.new_ones((rows, *tensor.shape[1:]))


def counts(rows: int, groups: int, skew: float) -> list[int]:
    """Rows of each group: the r-th most popular one has its share in proportion to r ** -skew."""
    generator = torch.Generator().manual_seed(_SEED)
    order = (torch.randperm(groups, generator=generator) + 1).double()
    shares = order.pow(-skew)
    ends = (shares.cumsum(0) * (rows / float(shares.sum()))).round().long()
    ends[-1] = rows
    return [int(count) for count in ends.diff(prepend=ends.new_zeros(1))]


def group_list_like(
    group_list: torch.Tensor | None, kind: int, rows: int, skew: float
) -> torch.Tensor | None:
    """A list of ``kind`` (group_list_type) that divides all ``rows`` among as many groups."""
    if group_list is None:
        return None
    values = torch.tensor(counts(rows, group_list.shape[0], skew))
    if kind == 0:
        values = values.cumsum(0)
    elif kind == SPARSE:
        values = torch.stack([torch.arange(len(values)), values], dim=1)
    return values.to(group_list)
