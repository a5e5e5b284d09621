"""Just-in-time compilation: specs of modules, a content-addressed cache, and the loader."""

from .build import CompileError
from .loader import (
    LoadRecord,
    ModuleState,
    build_all,
    cache_directory,
    describe,
    load,
    prebuilt_stores,
    stats,
    user_store,
)
from .spec import ModuleSpec, SourceTree, Unit
from .store import Entry, Store
from .target import cuda_target
from .toolchain import ToolchainError

__all__ = [
    "CompileError",
    "Entry",
    "LoadRecord",
    "ModuleSpec",
    "ModuleState",
    "SourceTree",
    "Store",
    "ToolchainError",
    "Unit",
    "build_all",
    "cache_directory",
    "cuda_target",
    "describe",
    "load",
    "prebuilt_stores",
    "stats",
    "user_store",
]
