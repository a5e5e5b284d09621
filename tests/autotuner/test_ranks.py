"""Two processes with a gloo group choose the same tactics, whatever each of them measures."""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from fake_device import FakeDevice, Times, prefers
from shapes import problem

import moe_jit
from moe_jit.autotuner import choose, state
from moe_jit.autotuner.buckets import buckets
from moe_jit.autotuner.key import key_of
from moe_jit.autotuner.profile import Profiler, Settings
from moe_jit.autotuner.progress import Progress
from moe_jit.autotuner.ranks import Ranks
from moe_jit.autotuner.table import Measurement
from moe_jit.plan import candidates

WORLD = 2
DEFAULT, OTHER = (tactic.tile_tokens for tactic in candidates(problem())[:2])


def _times(default: float, other: float) -> Times:
    return lambda num_tokens, tactic: {DEFAULT: default, OTHER: other}.get(tactic.tile_tokens, 1000.0)


def _chosen(times: Times, **changes: Any) -> tuple[int, int]:
    """The tile for 16 tokens, and the number of buckets measured."""
    device = FakeDevice(times)
    call = problem(tune_max_num_tokens=16, **changes)
    with moe_jit.autotune(group=dist.group.WORLD):
        tile = choose(call, lambda skew: device).tactic.tile_tokens
    return tile, len({bucket for bucket, _ in device.measured})


def slowest_rank_decides(rank: int) -> Any:
    return _chosen(_times(100, 80) if rank == 0 else _times(100, 120))


def a_gain_of_the_slowest_rank_counts(rank: int) -> Any:
    return _chosen(_times(100, 120) if rank == 0 else _times(200, 150))


def a_failure_anywhere_disqualifies(rank: int) -> Any:
    return _chosen(_times(100, math.inf if rank == 1 else 50))


def a_failing_default_anywhere_leaves_nothing(rank: int) -> Any:
    return (*_chosen(_times(math.inf if rank == 0 else 100, 50)), bool(state.STATE.table))


def _know(*known: int, tile: int = OTHER) -> None:
    default = {"tile_tokens": DEFAULT}
    layer = {bucket: Measurement({"tile_tokens": tile}, default, 1, 2, 0) for bucket in known}
    state.STATE.loaded.update(key_of(problem()), layer)


def a_file_that_one_rank_lacks(rank: int) -> Any:
    if rank == 0:
        _know(*buckets(16))
    return _chosen(prefers(DEFAULT))


def files_that_differ_in_one_bucket(rank: int) -> Any:
    _know(*buckets(16))
    if rank == 0:
        _know(16, tile=DEFAULT)
    return _chosen(prefers(OTHER))


def files_that_agree(rank: int) -> Any:
    _know(*buckets(16))
    return _chosen(prefers(DEFAULT))


def different_layers(rank: int) -> Any:
    """Uneven shards: each tunes its own, and none waits for the other."""
    return _chosen(prefers(OTHER), num_local_experts=64 + rank)


def both_stop_together(rank: int) -> Any:
    device = FakeDevice(lambda num_tokens, tactic: 10.0)
    device.calls_per_measurement = 1000 if rank == 0 else 10_000
    profiler = Profiler(Settings(max_seconds=4.0), device, Ranks(dist.group.WORLD), device.clock)
    with Progress("test") as progress:
        at_bucket = lambda bucket: candidates(problem(num_tokens=bucket))  # noqa: E731
        return list(dict(profiler.profile(at_bucket, buckets(8192), progress)))


def numbers(rank: int) -> Any:
    ranks = Ranks(dist.group.WORLD)
    return (
        ranks.maximum([rank, -rank, 0.5, math.inf if rank else 0]),
        ranks.differ(["same", f"rank {rank}", "", "x" * (rank + 1)]),
    )


SCENARIOS: dict[Callable[[int], Any], tuple[Any, Any]] = {
    slowest_rank_decides: ((DEFAULT, 5),) * 2,
    a_gain_of_the_slowest_rank_counts: ((OTHER, 5),) * 2,
    a_failure_anywhere_disqualifies: ((DEFAULT, 5),) * 2,
    a_failing_default_anywhere_leaves_nothing: ((DEFAULT, 5, False),) * 2,
    a_file_that_one_rank_lacks: ((DEFAULT, 5),) * 2,
    files_that_differ_in_one_bucket: ((OTHER, 1),) * 2,
    files_that_agree: ((OTHER, 0),) * 2,
    different_layers: ((OTHER, 5),) * 2,
    numbers: (([1, 0, 0.5, math.inf], [False, True, False, True]),) * 2,
}


def _main(rank: int, directory: Path, results: Queue[Any]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.cuda.is_current_stream_capturing = lambda: False
    dist.init_process_group("gloo", f"file://{directory}/rendezvous", rank=rank, world_size=WORLD)
    for scenario in (*SCENARIOS, both_stop_together):
        state.STATE = state.State()
        results.put((scenario.__name__, rank, scenario(rank)))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Any]:
    directory = tmp_path_factory.mktemp("ranks")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    processes = [context.Process(target=_main, args=(rank, directory, queue)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    found = {}
    try:
        for _ in range(WORLD * (len(SCENARIOS) + 1)):
            name, rank, value = queue.get(timeout=120)
            found[name, rank] = value
        for process in processes:
            process.join(60)
            assert process.exitcode == 0
    finally:
        for process in processes:
            process.kill()
    return found


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_ranks_agree(results: dict[tuple[str, int], Any], scenario: Callable[[int], Any]) -> None:
    for rank in range(WORLD):
        assert results[scenario.__name__, rank] == SCENARIOS[scenario][rank], f"rank {rank}"


def test_the_budget_of_the_slowest_rank_ends_it_for_all(results: dict[tuple[str, int], Any]) -> None:
    first, second = (results["both_stop_together", rank] for rank in range(WORLD))
    assert first == second
    assert 0 < len(first) < len(buckets(8192))


def test_a_process_alone_needs_no_group() -> None:
    alone = Ranks(None)
    assert alone.maximum([1.0, math.inf]) == [1.0, math.inf]
    assert alone.differ(["a", "b"]) == [False, False]
