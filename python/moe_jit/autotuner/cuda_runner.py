"""Times tactics on a GPU: calls captured in a CUDA graph, each with a cold L2 cache."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from .. import backends, jit
from ..plan import Tactic
from ..problem import MoEProblem
from ..validate import Arguments
from .inputs import synthesize

logger = logging.getLogger("moe_jit.autotuner")

Bind = Callable[[Arguments, Tactic], Callable[[], object]]

_MEASURE_US = 4000.0
_MAX_REPLAYS = 32


def calls_per_graph(num_tokens: int) -> int:
    return 16 if num_tokens <= 64 else 8 if num_tokens <= 512 else 4 if num_tokens <= 2048 else 2


class CudaRunner:
    """``bind(args, tactic)`` returns a function that enqueues one call on the current stream."""

    def __init__(self, problem: MoEProblem, args: Arguments, bind: Bind, skew: float) -> None:
        self._problem, self._args, self._bind, self._skew = problem, args, bind, skew
        self._device = args.hidden_states.device
        self._failed: set[jit.ModuleSpec] = set()

    def compile(self, choices: Mapping[int, Sequence[Tactic]]) -> None:
        jit.build_all(
            list(dict.fromkeys(self._spec(n, tactic) for n, tactics in choices.items() for tactic in tactics))
        )

    def _spec(self, num_tokens: int, tactic: Tactic) -> jit.ModuleSpec:
        return backends.module_spec(replace(self._problem, num_tokens=num_tokens), tactic)

    @contextmanager
    def at(self, num_tokens: int) -> Iterator[Callable[[Tactic], float]]:
        with torch.cuda.device(self._device):
            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                problem = replace(self._problem, num_tokens=num_tokens)
                calls = synthesize(problem, self._args, calls_per_graph(num_tokens), self._skew)
                bench = _Bench(self._device)
                timed: dict[Tactic, Callable[[], float]] = {}

                def measure(tactic: Tactic) -> float:
                    if tactic not in timed:
                        self._load(self._spec(num_tokens, tactic))
                        timed[tactic] = bench.prepare([self._bind(call, tactic) for call in calls])
                    return timed[tactic]()

                try:
                    yield measure
                finally:
                    stream.synchronize()

    def _load(self, spec: jit.ModuleSpec) -> None:
        """Load a module; one that failed before fails again at once."""
        if spec in self._failed:
            raise RuntimeError("its module is not available")
        try:
            backends.load(spec)
        except Exception:
            self._failed.add(spec)
            raise


class _Bench:
    """Times functions on the current stream. The time of the flushes is measured and subtracted."""

    def __init__(self, device: torch.device) -> None:
        properties = torch.cuda.get_device_properties(device)
        size = 2 * getattr(properties, "L2_cache_size", 64 << 20)
        self._evicting = torch.zeros(size // 4, dtype=torch.float32, device=device)
        self._sum = torch.zeros((), dtype=torch.float32, device=device)
        self._pool = torch.cuda.graph_pool_handle()
        self._flush_us: dict[int, float] = {}

    def prepare(self, calls: Sequence[Callable[[], object]]) -> Callable[[], float]:
        """Capture ``calls``; the result measures the time of one of them in microseconds."""
        count = len(calls)
        for call in calls[:2]:  # what happens only once must not happen during capture
            call()
        graph = self._capture(calls)
        if count not in self._flush_us:
            empty = self._capture([_nothing] * count)
            self._flush_us[count] = sorted(_replay_us(empty) for _ in range(5))[2]
        return lambda: (_replay_us(graph) - self._flush_us[count]) / count

    def _flush(self) -> None:
        """Reading more than the cache holds leaves nothing of it, and nothing to be written back."""
        torch.sum(self._evicting, dim=0, out=self._sum)

    def _capture(self, calls: Sequence[Callable[[], object]]) -> torch.cuda.CUDAGraph:
        self._flush()
        torch.cuda.current_stream().synchronize()
        graph = torch.cuda.CUDAGraph()
        graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
        try:
            for call in calls:
                self._flush()
                call()
        finally:
            graph.capture_end()
        graph.replay()
        return graph


def _nothing() -> None:
    pass


def _replay_us(graph: torch.cuda.CUDAGraph) -> float:
    """Mean time of one replay. The first one hides the launches of the others."""
    replays = 1
    while True:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        graph.replay()
        start.record()
        for _ in range(replays):
            graph.replay()
        end.record()
        end.synchronize()
        total = 1e3 * float(start.elapsed_time(end))
        enough = min(_MAX_REPLAYS, round(_MEASURE_US * replays / max(total, 1.0)))
        if replays >= enough / 2:
            return total / replays
        replays = enough
