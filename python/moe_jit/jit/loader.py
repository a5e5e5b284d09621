"""Finds or builds the module of a spec, and loads it."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import platformdirs
import tvm_ffi

from .build import Builder
from .keys import module_name, object_name, portable_name
from .progress import Progress
from .spec import ModuleSpec, SourceTree, package_sources
from .store import Entry, Store
from .toolchain import Toolchain, ToolchainError, find_toolchain

logger = logging.getLogger("moe_jit.jit")


@dataclass(frozen=True)
class LoadRecord:
    """How one module came into this process."""

    name: str
    target: str
    origin: str  # "prebuilt", "cache" or "built"
    path: Path
    seconds: float  # search, compilation, waiting and dlopen together
    compile_seconds: dict[str, float] = field(default_factory=dict)  # of each unit compiled here


@dataclass(frozen=True)
class ModuleState:
    """What ``load`` would do for a spec now."""

    spec: ModuleSpec
    origin: str  # "prebuilt", "cache", "to build" or "impossible"
    path: Path | None = None
    missing_units: tuple[str, ...] = ()
    problem: str = ""


_modules: dict[tuple[ModuleSpec, Path], tvm_ffi.Module] = {}
_module_locks: dict[tuple[ModuleSpec, Path], threading.Lock] = {}
_guard = threading.Lock()  # of _module_locks
_records: list[LoadRecord] = []


def stats() -> list[LoadRecord]:
    """One record for each module that this process has loaded, in order."""
    return list(_records)


def cache_directory() -> Path:
    """MOE_JIT_CACHE_DIR, or ``moe_jit`` in the user's cache directory."""
    return (
        Path(os.environ.get("MOE_JIT_CACHE_DIR") or platformdirs.user_cache_dir("moe_jit"))
        .expanduser()
        .absolute()
    )


def user_store() -> Store:
    return Store(cache_directory())


def prebuilt_stores() -> list[Store]:
    """The directories of MOE_JIT_PREBUILT_DIR (separated like PATH), each laid out like the cache."""
    parts = os.environ.get("MOE_JIT_PREBUILT_DIR", "").split(os.pathsep)
    return [Store(Path(part).expanduser().absolute()) for part in parts if part]


@cache
def _private_store() -> Store:
    root = tempfile.mkdtemp(prefix="moe_jit-")
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    return Store(Path(root))


def load(spec: ModuleSpec, tree: SourceTree | None = None) -> tvm_ffi.Module:
    """The compiled module of ``spec`` as a ``tvm_ffi.Module``, loaded once per process.

    Searched in MOE_JIT_PREBUILT_DIR, then in the user's cache, else compiled from ``tree`` (default: the
    package's own sources) and published in the cache. Raises CompileError or ToolchainError.
    """
    tree = tree or package_sources()
    key = (spec, tree.root)
    if key not in _modules:
        with _guard:
            lock = _module_locks.setdefault(key, threading.Lock())
        with lock:
            if key not in _modules:
                _modules[key] = _load(spec, tree)
    return _modules[key]


def _load(spec: ModuleSpec, tree: SourceTree) -> tvm_ffi.Module:
    start = time.monotonic()
    compile_seconds: dict[str, float] = {}

    def opened(entry: Entry, origin: str) -> tvm_ffi.Module:
        module = tvm_ffi.load_module(str(entry.payload))
        seconds = time.monotonic() - start
        _records.append(LoadRecord(spec.name, spec.target, origin, entry.payload, seconds, compile_seconds))
        logger.info("%s: %s in %.3f s (%s)", spec.name, origin, seconds, entry.payload)
        return module

    if prebuilt := _find_prebuilt(spec, tree):
        try:
            return opened(prebuilt, "prebuilt")
        except Exception as error:
            logger.warning("the prebuilt module %s does not load here: %s", prebuilt.payload, error)
    if cached := _find_cached(spec, tree):
        return opened(cached, "cache")
    toolchain = find_toolchain(spec.target)
    with Progress(spec.name) as progress:
        entry, origin = _build_once(spec, tree, toolchain, progress, compile_seconds)
    return opened(entry, origin)


def _find_prebuilt(spec: ModuleSpec, tree: SourceTree) -> Entry | None:
    stores = prebuilt_stores()
    prefix = portable_name(spec, tree) if stores else ""
    return next((entry for store in stores if (entry := store.find_any("modules", prefix))), None)


def _find_cached(spec: ModuleSpec, tree: SourceTree) -> Entry | None:
    """The module in the user's cache. Without a compiler any compiler's will do; raises if there is none."""
    try:
        toolchain = find_toolchain(spec.target)
    except ToolchainError as error:
        if cached := user_store().find_any("modules", portable_name(spec, tree)):
            return cached
        if not (searched := [str(store.root) for store in prebuilt_stores()]):
            raise
        raise ToolchainError(
            f"{error}\nMOE_JIT_PREBUILT_DIR ({os.pathsep.join(searched)}) has no {spec.name} that fits: "
            "it was made by another version of this package, or for other calls. "
            "`moe-jit warmup` makes it anew."
        ) from error
    return user_store().find("modules", module_name(spec, tree, toolchain))


def _store_to_write(what: str) -> Store:
    store = user_store()
    if store.is_writable():
        return store
    private = _private_store()
    logger.warning(
        "the cache %s is not writable: compiling %s into %s, for this process only. "
        "Set MOE_JIT_CACHE_DIR to a directory that keeps it.",
        store.root,
        what,
        private.root,
    )
    return private


def _build_once(
    spec: ModuleSpec,
    tree: SourceTree,
    toolchain: Toolchain,
    progress: Progress,
    compile_seconds: dict[str, float],
) -> tuple[Entry, str]:
    """Build under the module's lock, unless another process has published it meanwhile; entry and origin."""
    store = _store_to_write(spec.name)
    name = module_name(spec, tree, toolchain)
    with store.lock(name):
        if published := store.find("modules", name):
            return published, "cache"
        builder = Builder([spec], tree, toolchain, store, user_store())
        (entry,) = builder.build(progress)
        compile_seconds.update(builder.compile_seconds)
        return entry, "built"


def build_all(specs: Sequence[ModuleSpec], tree: SourceTree | None = None) -> list[Entry]:
    """The compiled modules of ``specs``, in their order; loads none of them.

    Those that are neither prebuilt nor in the user's cache are compiled together, with one bound on the
    number of compilers. Raises CompileError or ToolchainError.
    """
    tree = tree or package_sources()
    found = {spec: _find_prebuilt(spec, tree) or _find_cached(spec, tree) for spec in specs}
    missing = [spec for spec, entry in found.items() if not entry]
    for target in dict.fromkeys(spec.target for spec in missing):
        group = [spec for spec in missing if spec.target == target]
        what = f"{len(group)} modules for {target}"
        store = _store_to_write(what)
        with Progress(what) as progress:
            builder = Builder(group, tree, find_toolchain(target), store, user_store())
            found.update(zip(group, builder.build(progress), strict=True))
    return [entry for spec in specs if (entry := found[spec])]


def describe(spec: ModuleSpec, tree: SourceTree | None = None) -> ModuleState:
    """What ``load(spec)`` would do now; compiles and loads nothing."""
    tree = tree or package_sources()
    if prebuilt := _find_prebuilt(spec, tree):
        return ModuleState(spec, "prebuilt", prebuilt.payload)
    try:
        if cached := _find_cached(spec, tree):
            return ModuleState(spec, "cache", cached.payload)
        toolchain = find_toolchain(spec.target)
    except ToolchainError as error:
        return ModuleState(spec, "impossible", problem=str(error))
    store = user_store()
    missing = (
        str(unit)
        for unit in spec.units
        if not store.find("objects", object_name(unit, spec.target, tree, toolchain))
    )
    return ModuleState(spec, "to build", missing_units=tuple(missing))
