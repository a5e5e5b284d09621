"""Names of cache entries. A name follows from contents alone: no path of the cache, no modification time."""

from __future__ import annotations

import hashlib
import json
from pathlib import PurePosixPath

from .flags import link_flags, unit_flags
from .spec import ModuleSpec, SourceTree, Unit
from .toolchain import Toolchain, tvm_ffi_abi

_FORMAT = 1  # raise it when the meaning of an entry changes


def _digest(value: object, length: int) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]


def _unit_inputs(unit: Unit, target: str, tree: SourceTree) -> list[object]:
    return [_FORMAT, target, tree.unit_digest(unit, target), unit_flags(unit, target)]


def object_name(unit: Unit, target: str, tree: SourceTree, toolchain: Toolchain) -> str:
    key = _digest([_unit_inputs(unit, target, tree), toolchain.identity], 32)
    return f"{PurePosixPath(unit.source).stem}-{key}"


def portable_name(spec: ModuleSpec, tree: SourceTree) -> str:
    """Sources, flags, target and ABI, but no compiler: what a machine without one can compute."""
    units = [_unit_inputs(unit, spec.target, tree) for unit in spec.units]
    return f"{spec.name}-{_digest([units, link_flags(spec.target), tvm_ffi_abi()], 32)}"


def module_name(spec: ModuleSpec, tree: SourceTree, toolchain: Toolchain) -> str:
    return f"{portable_name(spec, tree)}-{_digest(toolchain.identity, 16)}"
