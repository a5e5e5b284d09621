"""Tells the person who waits: nothing for two seconds, then a progress bar or log lines."""

from __future__ import annotations

import logging
import sys
import threading
import time
from types import TracebackType
from typing import Any

logger = logging.getLogger("moe_jit.jit")

QUIET_SECONDS = 2.0


class Progress:
    """Context manager around the wait for one module. Methods may be called from any thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._status = "waiting for another process that compiles it"
        self._done = self._total = 0
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._announced = self._closed = False
        self._bar: Any = None
        self._task: Any = None
        self._timer = threading.Timer(QUIET_SECONDS, self._announce)
        self._timer.daemon = True

    def __enter__(self) -> Progress:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            self._closed = True
            if self._bar is not None:
                self._bar.stop()
            if self._announced and error is None:
                logger.warning("%s is ready after %.1f s", self._name, time.monotonic() - self._start)

    def compiling(self, units: int, jobs: int, links: int = 1) -> None:
        """``units`` compilations and then ``links`` links are about to start."""
        with self._lock:
            self._status = (
                f"compiling {units} unit{'s' * (units != 1)}, {jobs} at a time (only the first time)"
            )
            self._total = units + links
            self._show()

    def advance(self) -> None:
        with self._lock:
            self._done += 1
            self._show()

    def _announce(self) -> None:
        with self._lock:
            if self._closed:  # while the timer fired
                return
            self._announced = True
            if sys.stderr.isatty():
                self._open_bar()
            else:
                logger.warning("%s: %s", self._name, self._status)

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self._name)
        self._bar.start()
        self._show()

    def _show(self) -> None:
        if self._bar is not None:
            description = f"{self._name}: {self._status}"
            self._bar.update(
                self._task, completed=self._done, total=self._total or None, description=description
            )
