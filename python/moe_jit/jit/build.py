"""Compiles and links modules into a store."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from .flags import compile_command, link_command
from .keys import module_name, object_name
from .progress import Progress
from .resources import job_count
from .spec import NPU, ModuleSpec, SourceTree, Unit
from .store import PAYLOADS, Entry, Store
from .toolchain import Toolchain

_SHOWN_LINES = 60
_KILLED = re.compile(r"died due to signal|Killed signal|signal terminated program")


class CompileError(RuntimeError):
    """A compiler failed; the message holds its diagnostics and the command to run it again."""


class Builder:
    """One build of modules for one target, whose common units compile once; a failure stops everything."""

    def __init__(
        self,
        specs: Sequence[ModuleSpec],
        tree: SourceTree,
        toolchain: Toolchain,
        store: Store,
        known: Store,
    ) -> None:
        self._specs, self._tree, self._toolchain, self._store = specs, tree, toolchain, store
        self._target = specs[0].target
        self._known = known  # searched for objects too; may be read-only
        self._running: set[subprocess.Popen[str]] = set()
        self._guard = threading.Lock()
        self._stopped = False
        self.compile_seconds: dict[str, float] = {}

    def build(self, progress: Progress) -> list[Entry]:
        """The modules in the order of the specs."""
        every = dict.fromkeys(unit for spec in self._specs for unit in spec.units)
        units = {} if self._target == NPU else every  # bisheng compiles and links in one step
        names = {unit: object_name(unit, self._target, self._tree, self._toolchain) for unit in units}
        objects = {unit: self._find_object(name) for unit, name in names.items()}
        # nvcc takes longest, so its units start first.
        missing = sorted(
            (unit for unit, found in objects.items() if not found), key=lambda unit: not unit.is_cuda
        )
        jobs = job_count(missing or every)
        progress.compiling(len(missing), jobs, links=len(self._specs))
        start = time.monotonic()
        with ThreadPoolExecutor(jobs) as pool:
            compiled = {unit: pool.submit(self._compile, unit, names[unit], progress) for unit in missing}
            self._wait(pool, compiled.values())
            objects.update({unit: future.result() for unit, future in compiled.items()})
            payloads = {unit: entry.payload for unit, entry in objects.items() if entry}
            linked = [pool.submit(self._link, spec, payloads, start, progress) for spec in self._specs]
            self._wait(pool, linked)
        return [future.result() for future in linked]

    def _wait(self, pool: ThreadPoolExecutor, futures: Iterable[Future[Entry]]) -> None:
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            self._stop()
            pool.shutdown(cancel_futures=True)
            raise

    def _find_object(self, name: str) -> Entry | None:
        return self._store.find("objects", name) or self._known.find("objects", name)

    def _compile(self, unit: Unit, name: str, progress: Progress) -> Entry:
        with self._store.lock(name), self._store.stage() as stage:
            entry = self._store.find("objects", name)  # another module's build may have made it meanwhile
            if entry is None:
                output = PAYLOADS["objects"]
                command = compile_command(unit, self._target, self._tree, self._toolchain, output)
                seconds = self._run(command, stage, str(unit))
                self._check_unchanged(unit)
                self.compile_seconds[str(unit)] = seconds
                facts = self._facts(PurePosixPath(unit.source).stem, command, seconds, [unit])
                entry = self._store.publish(stage, "objects", name, facts)
        progress.advance()
        return entry

    def _check_unchanged(self, unit: Unit) -> None:
        """A result made from sources edited meanwhile must not be published under the old key."""
        trees = (self._tree, SourceTree(self._tree.root))
        before, now = (object_name(unit, self._target, tree, self._toolchain) for tree in trees)
        if before != now:
            raise CompileError(f"{unit}: its sources changed since this process read them; start it again")

    def _link(self, spec: ModuleSpec, objects: dict[Unit, Path], start: float, progress: Progress) -> Entry:
        with self._store.stage() as stage:
            command = self._module_command(spec, objects)
            one_step = not objects
            seconds = self._run(command, stage, str(spec.units[0]) if one_step else f"{spec.name} (link)")
            if one_step:
                self._check_unchanged(spec.units[0])
                self.compile_seconds[str(spec.units[0])] = seconds
            name = module_name(spec, self._tree, self._toolchain)
            facts = self._facts(spec.name, command, time.monotonic() - start, list(spec.units))
            entry = self._store.publish(stage, "modules", name, facts)
        progress.advance()
        return entry

    def _module_command(self, spec: ModuleSpec, objects: dict[Unit, Path]) -> list[str]:
        output = PAYLOADS["modules"]
        if not objects:
            return compile_command(spec.units[0], spec.target, self._tree, self._toolchain, output)
        return link_command(spec, [objects[unit] for unit in spec.units], self._toolchain, output)

    def _facts(self, name: str, command: list[str], seconds: float, units: list[Unit]) -> dict[str, Any]:
        return {
            "name": name,
            "target": self._target,
            "units": [str(unit) for unit in units],
            "command": shlex.join(command),
            "toolchain": self._toolchain.identity,
            "build_seconds": round(seconds, 3),
        }

    def _run(self, command: list[str], directory: Path, what: str) -> float:
        """Run ``command`` in ``directory``; its wall time in seconds."""
        start = time.monotonic()
        with self._guard:
            if self._stopped:
                raise CompileError(f"{what}: not compiled, because another unit failed")
            process = subprocess.Popen(
                command,
                cwd=directory,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._running.add(process)
        try:
            output, _ = process.communicate()
        except BaseException:
            _kill(process)
            raise
        finally:
            with self._guard:
                self._running.discard(process)
        if process.returncode != 0:
            raise CompileError(failure_text(what, command, process.returncode, output))
        return time.monotonic() - start

    def _stop(self) -> None:
        with self._guard:
            self._stopped = True
            for process in self._running:
                _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    """End a compiler driver together with the programs that it runs."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def failure_text(what: str, command: list[str], status: int, output: str) -> str:
    """Says what failed and why, from the first error line on, and how to see it again."""
    lines = output.strip().splitlines()
    first = next((index for index, line in enumerate(lines) if re.search(r"\b(fatal |)error\b", line)), 0)
    shown = lines[max(0, first - 2) :][:_SHOWN_LINES]
    if len(lines) > len(shown):
        shown.append(f"... {len(shown)} of {len(lines)} lines shown")
    how = f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
    text = [f"compiling {what} failed ({how})", *shown]
    if status < 0 or _KILLED.search(output):
        text.append(
            "The compiler was killed, probably for lack of memory: set MOE_JIT_MAX_JOBS=1 and try again."
        )
    return "\n".join([*text, "To reproduce:", f"  {shlex.join(command)}"])
