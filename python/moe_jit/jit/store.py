"""A directory of content-addressed, verified, atomically published build results.

Layout: ``objects/<name>/unit.o`` and ``modules/<name>/module.so``, each beside a ``manifest.json`` with its
size and sha256; ``locks/`` and ``tmp/`` hold nothing that must be kept.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

logger = logging.getLogger("moe_jit.jit")

PAYLOADS = {"objects": "unit.o", "modules": "module.so"}
_STAGE_LIFETIME_S = 24 * 3600


@dataclass(frozen=True)
class Entry:
    """A published result whose payload matched its manifest when it was found."""

    directory: Path
    kind: str
    manifest: dict[str, Any]

    @property
    def payload(self) -> Path:
        return self.directory / PAYLOADS[self.kind]


class DamagedEntryError(Exception):
    """An entry exists, but is incomplete or not what its manifest says."""


def _read_entry(directory: Path, kind: str) -> Entry:
    """The entry in ``directory``, verified. Raises FileNotFoundError when there is none."""
    if not directory.is_dir():
        raise FileNotFoundError(directory)
    try:
        manifest = json.loads((directory / "manifest.json").read_text())
        data = (directory / PAYLOADS[kind]).read_bytes()
        if hashlib.sha256(data).hexdigest() != manifest["sha256"]:
            raise DamagedEntryError(
                f"its {len(data)} bytes are not the {manifest['size']} that were published"
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedEntryError(repr(error)) from error
    return Entry(directory, kind, manifest)


def _lock_timeout() -> float:
    text = os.environ.get("MOE_JIT_LOCK_TIMEOUT", "").strip() or "900"
    with suppress(ValueError):
        if (seconds := float(text)) >= 0:
            return seconds
    raise ValueError(f"MOE_JIT_LOCK_TIMEOUT: given {text!r}, expected seconds, at least 0")


@cache
def _warn_damaged(directory: Path, reason: str) -> None:
    logger.warning("ignoring the damaged cache entry %s: %s", directory, reason)


class Store:
    """One cache directory. Reading never writes; nothing is created before the first publication."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, kind: str, name: str) -> Entry | None:
        """The entry ``name``, or None when it is missing or (with a warning) damaged."""
        directory = self.root / kind / name
        try:
            return _read_entry(directory, kind)
        except FileNotFoundError:
            return None
        except DamagedEntryError as error:
            _warn_damaged(directory, str(error))
            return None

    def find_any(self, kind: str, prefix: str) -> Entry | None:
        """The first intact entry whose name starts with ``prefix``."""
        for directory in sorted((self.root / kind).glob(f"{prefix}*")):
            if entry := self.find(kind, directory.name):
                return entry
        return None

    def entries(self, kind: str) -> Iterator[Entry]:
        for directory in sorted((self.root / kind).glob("*")):
            if entry := self.find(kind, directory.name):
                yield entry

    def size(self) -> int:
        """Bytes of all files below the root; other processes may come and go meanwhile."""
        total = 0
        for directory, _, names in os.walk(self.root):
            for name in names:
                with suppress(FileNotFoundError):
                    total += Path(directory, name).stat().st_size
        return total

    def clear(self) -> None:
        for name in (*PAYLOADS, "tmp", "locks"):
            shutil.rmtree(self.root / name, ignore_errors=True)

    def is_writable(self) -> bool:
        """Whether a file can be created below the root, found out by creating one."""
        probe = self.root / "tmp" / f"probe-{uuid.uuid4().hex}"
        try:
            probe.parent.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError:
            return False
        return True

    @contextmanager
    def stage(self) -> Iterator[Path]:
        """A private directory to build in; gone afterwards unless it was published."""
        temporary = self.root / "tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        for leftover in temporary.iterdir():
            with suppress(FileNotFoundError):
                if time.time() - leftover.stat().st_mtime > _STAGE_LIFETIME_S:
                    shutil.rmtree(leftover, ignore_errors=True)
        directory = temporary / uuid.uuid4().hex
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def publish(self, stage: Path, kind: str, name: str, facts: dict[str, Any]) -> Entry:
        """Make the payload in ``stage`` visible as ``name`` in one rename; ``facts`` go into the manifest."""
        data = (stage / PAYLOADS[kind]).read_bytes()
        facts = {
            "size": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "created": time.time(),
            **facts,
        }
        (stage / "manifest.json").write_text(json.dumps(facts, indent=1))
        target = self.root / kind / name
        target.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(10):
            try:
                stage.rename(target)
                return Entry(target, kind, facts)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                    raise
            try:
                return _read_entry(target, kind)  # another process was faster
            except (FileNotFoundError, DamagedEntryError):
                self._move_away(target)
        raise OSError(f"{target}: could not be replaced")

    def adopt(self, entry: Entry) -> Entry:
        """Publish a copy of another store's entry under the same name, unless it is here."""
        kind, name = entry.kind, entry.directory.name
        if found := self.find(kind, name):
            return found
        with self.stage() as stage:
            shutil.copyfile(entry.payload, stage / PAYLOADS[kind])
            return self.publish(stage, kind, name, entry.manifest)

    def _move_away(self, target: Path) -> None:
        trash = self.root / "tmp" / f"trash-{uuid.uuid4().hex}"
        with suppress(FileNotFoundError):
            target.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold ``name`` against other processes and threads.

        The kernel frees the lock of a dead process, so a left-over lock file blocks nobody. Where locks do
        not work or one is held for longer than MOE_JIT_LOCK_TIMEOUT seconds (900), work goes on without:
        publication is atomic, so at worst two processes build the same thing.
        """
        path = self.root / "locks" / f"{name}.lock"
        timeout = _lock_timeout()
        lock = FileLock(path, timeout=timeout, thread_local=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(poll_interval=0.05)
        except Timeout:
            logger.warning("%s was held for more than %g s; building without it", path, timeout)
        except (OSError, NotImplementedError) as error:
            logger.warning("%s cannot be locked (%s); building without a lock", path, error)
        try:
            yield
        finally:
            lock.release()
