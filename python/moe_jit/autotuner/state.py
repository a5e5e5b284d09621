"""What this process knows about tactics, and the ``autotune`` contexts that are open."""

from __future__ import annotations

import itertools
import logging
import os
import threading
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import torch.distributed as dist

from . import flashinfer, store
from .buckets import buckets
from .key import Key
from .profile import Profiler, Runner, Settings
from .progress import Progress
from .ranks import Ranks
from .subject import Subject, T
from .table import Measurement, Table

logger = logging.getLogger("moe_jit.autotuner")

STALE = 0  # a generation that never is the current one
_generations = itertools.count(STALE + 1)

RunnerFactory = Callable[[float], Runner[T]]


def default_cache() -> Path | None:
    given = os.environ.get("MOE_JIT_AUTOTUNE_CACHE", "")
    return Path(given).expanduser() if given else None


def is_current(subject: Subject[T], bucket: int, measured: Measurement) -> bool:
    """Whether the measurement was made against the default tactic of today."""
    return measured.default == subject.default_values(bucket)


class Session:
    """One ``autotune`` context that measures."""

    def __init__(self, settings: Settings, cache: Path | None, group: dist.ProcessGroup | None) -> None:
        self.settings = settings
        self.ranks = Ranks(group)
        self.handled: dict[Key, int] = {}  # the largest tune_max_num_tokens
        self._cache = cache
        self._results = Table()

    def keep(self, key: Key, table: Table) -> None:
        """Write what is known of a layer shape to the cache file."""
        if self._cache and table.layer(key):
            self._results.update(key, table.layer(key))
            store.save(self._cache, self._results)


class State:
    """What this process knows, and the contexts that are open."""

    def __init__(self) -> None:
        self.generation = next(_generations)
        self.table = Table()  # measured here
        self.loaded = Table()
        self._sessions: list[Session] = []
        self._flashinfer: Session | None = None
        self._guard = threading.RLock()
        self._device_locks: dict[Hashable, threading.RLock] = {}
        self._reported: set[object] = set()
        self._default_file_loaded = False

    def changed(self) -> None:
        self.generation = next(_generations)

    def session(self) -> Session | None:
        sessions = self._sessions
        return sessions[-1] if sessions else self._flashinfer

    def open(self, session: Session) -> None:
        with self._guard:
            self._sessions = [*self._sessions, session]
            self.changed()

    def close(self, session: Session) -> None:
        with self._guard:
            self._sessions = [other for other in self._sessions if other is not session]

    def follow_flashinfer(self) -> None:
        """Open or close a session with the defaults as FlashInfer's context opens and closes."""
        if flashinfer.is_tuning() != (self._flashinfer is not None):
            with self._guard:
                tuning = flashinfer.is_tuning()
                self._flashinfer = Session(Settings(), default_cache(), None) if tuning else None
                self.changed()

    def load(self, path: Path) -> None:
        table = store.load(path)
        with self._guard:
            self.loaded.merge(table)
            self.changed()

    def load_default_file(self) -> None:
        with self._guard:
            path = None if self._default_file_loaded else default_cache()
            self._default_file_loaded = True
            if path:
                self.load(path)

    def known(self, key: Key) -> Table:
        """What is known of one layer shape."""
        table = Table()
        for source in (self.loaded, self.table):
            table.update(key, source.layer(key))
        return table

    def report_once(self, subject: object, message: str, *values: object) -> None:
        with self._guard:
            new = subject not in self._reported
            self._reported.add(subject)
        if new:
            logger.warning(message, *values)

    def tune(self, subject: Subject[T], session: Session, make_runner: RunnerFactory[T]) -> None:
        """Measure what is missing, one layer shape at a time on each device."""
        key = subject.key
        if session.handled.get(key, 0) >= subject.tune_max_num_tokens:
            return
        with self._guard:
            lock = self._device_locks.setdefault(subject.device, threading.RLock())
        with lock:
            if session.handled.get(key, 0) >= subject.tune_max_num_tokens:
                return
            try:
                self._measure(subject, session, make_runner)
            except Exception:
                logger.warning("tuning %s failed, what it did not reach stays default", key, exc_info=True)
            finally:
                session.handled[key] = subject.tune_max_num_tokens
                session.keep(key, self.known(key))

    def _measure(self, subject: Subject[T], session: Session, make_runner: RunnerFactory[T]) -> None:
        key, ranks = subject.key, session.ranks
        if ranks.differ([f"{key.text} {subject.tune_max_num_tokens}"])[0]:
            logger.warning("ranks differ in the layer that they tune, each tunes its own: %s", key)
            ranks = Ranks(None)
        wanted = self._wanted(subject, session.settings, ranks)
        if not wanted:
            return
        profiler = Profiler(session.settings, make_runner(session.settings.skew), ranks)
        with Progress(str(key)) as progress:
            for bucket, found in profiler.profile(subject.candidates, wanted, progress):
                with self._guard:
                    self.table.update(key, {bucket: found})
                    self.changed()

    def _wanted(self, subject: Subject[T], settings: Settings, ranks: Ranks) -> Sequence[int]:
        """Buckets without a measurement that all ranks share and that answers the question asked now."""
        every = buckets(subject.tune_max_num_tokens)
        known = self.known(subject.key)
        found = [known.find(subject.key, bucket) for bucket in every]
        differ = ranks.differ([repr(measured) for measured in found])
        return [
            bucket
            for bucket, measured, unlike in zip(every, found, differ, strict=True)
            if unlike
            or measured is None
            or measured[1].skew != settings.skew
            or not is_current(subject, *measured)
        ]


STATE = State()
