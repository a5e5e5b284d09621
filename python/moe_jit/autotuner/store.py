"""The file of measurements: readable JSON, replaced atomically and merged with what is there.

    {"format": "moe_jit autotune", "version": 1, "layers": [{"key": {...}, "buckets": {"16": {...}}}]}

One file may hold several GPUs and versions of the package: their keys differ. A file that cannot be used is
reported and ignored. Only a file that is recognisably one of ours is ever replaced.
"""

from __future__ import annotations

import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .key import Key
from .table import Layer, Measurement, Table

logger = logging.getLogger("moe_jit.autotuner")

FORMAT = "moe_jit autotune"
VERSION = 1
_LOCK_TIMEOUT_S = 10.0


class UnusableFileError(Exception):
    """A file that is not read; ``replaceable`` if it is a damaged or outdated one of ours."""

    def __init__(self, reason: str, replaceable: bool) -> None:
        super().__init__(reason)
        self.replaceable = replaceable


def load(path: Path) -> Table:
    """The table in ``path``; empty if there is no file, or (with a warning) none that can be used."""
    try:
        return _read(path)
    except FileNotFoundError:
        logger.info("%s: no autotune file yet", path)
    except (OSError, UnusableFileError) as error:
        logger.warning("ignoring the autotune file %s: %s", path, error)
    return Table()


def save(path: Path, table: Table) -> bool:
    """Merge ``table`` into the file; false (with a warning) if it could not be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            merged = _readable(path)
            before = Table(merged.layers)
            merged.merge(table)
            if merged != before or not path.exists():
                _replace(path, _format(merged))
    except (OSError, UnusableFileError) as error:
        logger.warning("the autotune file %s was not written: %s", path, error)
        return False
    return True


def _readable(path: Path) -> Table:
    """The table to merge into. Raises UnusableFileError for a file that must not be replaced."""
    try:
        return _read(path)
    except FileNotFoundError:
        return Table()
    except UnusableFileError as error:
        if not error.replaceable:
            raise
        logger.warning("replacing the autotune file %s: %s", path, error)
        return Table()


def _read(path: Path) -> Table:
    data = path.read_bytes()
    ours = not data.strip() or FORMAT.encode() in data[:100]
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UnusableFileError(f"it is not JSON ({error})", ours) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UnusableFileError(f"it does not say {FORMAT!r} under 'format'", False)
    version = content.get("version")
    if version != VERSION:
        older = isinstance(version, int) and version < VERSION
        raise UnusableFileError(f"its version is {version!r}, expected {VERSION}", older)
    try:
        layers = [(Key.of(_plain(layer["key"])), _layer(layer["buckets"])) for layer in content["layers"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnusableFileError(f"a record is damaged ({error!r})", True) from error
    return Table(dict(layers))


def _layer(buckets: Any) -> Layer:
    return {_bucket(bucket): _measurement(record) for bucket, record in buckets.items()}


def _bucket(text: str) -> int:
    bucket = int(text)
    if bucket < 1:
        raise ValueError(f"bucket {text}")
    return bucket


def _measurement(record: Any) -> Measurement:
    numbers = {name: float(record[name]) for name in ("microseconds", "default_microseconds", "skew")}
    if not all(map(math.isfinite, numbers.values())):
        raise ValueError(f"numbers {numbers}")
    return Measurement(_plain(record["tactic"]), _plain(record["default"]), **numbers)


def _plain(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or any(isinstance(item, (dict, list)) for item in value.values()):
        raise TypeError(f"expected names with plain values, got {value!r}")
    return value


def _format(table: Table) -> str:
    """JSON with a line for each bucket."""
    layers = []
    for key in sorted(table.layers, key=lambda key: key.text):
        records = (f'   "{b}": {json.dumps(asdict(m))}' for b, m in sorted(table.layer(key).items()))
        layers.append(f' {{"key": {key.text},\n  "buckets": {{\n' + ",\n".join(records) + "\n  }}")
    return f'{{"format": "{FORMAT}", "version": {VERSION}, "layers": [\n' + ",\n".join(layers) + "\n]}\n"


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Writers take turns; where locks do not work the last one wins."""
    lock = FileLock(path.with_name(f"{path.name}.lock"), timeout=_LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except (OSError, NotImplementedError, Timeout) as error:
        logger.warning("writing the autotune file %s without a lock: %s", path, error)
    try:
        yield
    finally:
        lock.release()
