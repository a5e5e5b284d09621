"""What a module is made of: translation units, a target, and the sources that they are compiled from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

_HEADER_SUFFIXES = {".h", ".hpp", ".cuh", ".inl"}


@dataclass(frozen=True)
class Unit:
    """One translation unit.

    ``source`` is relative to ``csrc/``: a ``.cu`` file goes to nvcc, a ``.cpp`` file to the host compiler.
    ``defines`` become ``-DNAME=VALUE``.
    """

    source: str
    defines: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        if Path(self.source).suffix not in (".cu", ".cpp"):
            raise ValueError(f"source: given {self.source!r}, expected a .cu or .cpp file")

    @property
    def is_cuda(self) -> bool:
        return self.source.endswith(".cu")

    def __str__(self) -> str:
        defines = " ".join(f"{name}={value}" for name, value in self.defines)
        return f"{self.source} [{defines}]" if defines else self.source


@dataclass(frozen=True)
class ModuleSpec:
    """A shared library to compile: a readable ``name``, its ``units`` and a ``target`` (cpu or sm_90a)."""

    name: str
    units: tuple[Unit, ...]
    target: str

    def __post_init__(self) -> None:
        if self.target not in ("cpu", "sm_90a"):
            raise ValueError(f"target: given {self.target!r}, expected 'cpu' or 'sm_90a'")
        if not self.units:
            raise ValueError("units: given an empty tuple, expected at least one unit")

    @property
    def is_cuda(self) -> bool:
        return self.target != "cpu"


@dataclass(frozen=True)
class SourceTree:
    """A directory that holds ``include/`` and ``csrc/``."""

    root: Path

    @property
    def include(self) -> Path:
        return self.root / "include"

    @property
    def csrc(self) -> Path:
        return self.root / "csrc"

    @cached_property
    def headers_digest(self) -> str:
        """Digest of names and contents of every header; computed once per instance."""
        digest = hashlib.sha256()
        for directory in (self.include, self.csrc):
            for path in sorted(directory.rglob("*")):
                if path.suffix in _HEADER_SUFFIXES:
                    digest.update(f"{path.relative_to(self.root)}\0".encode())
                    digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()

    def unit_digest(self, unit: Unit) -> str:
        """Digest of the text of ``unit``'s source and of every header that it could include."""
        source = (self.csrc / unit.source).read_bytes()
        return hashlib.sha256(self.headers_digest.encode() + source).hexdigest()


@cache
def package_sources() -> SourceTree:
    """The sources that an installed wheel carries, or those of the checkout."""
    package = Path(__file__).resolve().parents[1]
    for root in (package / "_data", package.parents[1]):
        if (root / "include" / "moe_jit").is_dir():
            return SourceTree(root)
    raise FileNotFoundError(f"moe_jit's C++ sources: none beside {package}; reinstall the package")
