"""What a module is made of: translation units, a target, and the sources that they are compiled from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

CPU = "cpu"
EMULATOR = "ascend-emulator"
HOPPER = "sm_90a"
NPU = "dav-2201"  # Atlas A2 and A3, as bisheng calls their architecture
TARGETS = (CPU, EMULATOR, NPU, HOPPER)
_HEADER_SUFFIXES = {".h", ".hpp", ".cuh", ".inl"}


@dataclass(frozen=True)
class Unit:
    """One translation unit.

    ``source`` is relative to ``csrc/``: a ``.cu`` file goes to nvcc, a ``.cpp`` file to the host compiler.
    ``defines`` become ``-DNAME=VALUE``. ``wrapper`` is compiled in its place, if given, and includes it as
    MOE_JIT_SOURCE.
    """

    source: str
    defines: tuple[tuple[str, str], ...] = ()
    wrapper: str = ""

    def __post_init__(self) -> None:
        if Path(self.source).suffix not in (".cu", ".cpp"):
            raise ValueError(f"source: given {self.source!r}, expected a .cu or .cpp file")

    @property
    def is_cuda(self) -> bool:
        return self.source.endswith(".cu")

    @property
    def files(self) -> tuple[str, ...]:
        """What the compiler is given, and the source that it includes."""
        return (self.wrapper, self.source) if self.wrapper else (self.source,)

    def __str__(self) -> str:
        defines = " ".join(f"{name}={value}" for name, value in self.defines)
        return f"{self.source} [{defines}]" if defines else self.source


@dataclass(frozen=True)
class ModuleSpec:
    """A shared library to compile: a readable ``name``, its ``units`` and a ``target`` (one of TARGETS)."""

    name: str
    units: tuple[Unit, ...]
    target: str

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            raise ValueError(f"target: given {self.target!r}, expected {' or '.join(map(repr, TARGETS))}")
        if not self.units:
            raise ValueError("units: given an empty tuple, expected at least one unit")
        if self.target == NPU and len(self.units) > 1:
            raise ValueError(f"units: given {len(self.units)}, expected one for {NPU}")


def foreign_folders(target: str) -> tuple[str, ...]:
    """Folders of include/moe_jit that no code for ``target`` includes, directly or not."""
    others = {CPU: ("ascend", "ascend_emulator", "cuda"), EMULATOR: ("cpu", "cuda")}
    others[NPU] = (*others[EMULATOR], "ascend_emulator")
    return others.get(target, ("ascend", "ascend_emulator", "cpu"))


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
    def _headers(self) -> dict[str, bytes]:
        """Digests of all headers by name; computed once per instance."""
        headers = {}
        for directory in (self.include, self.csrc):
            for path in sorted(directory.rglob("*")):
                if path.suffix in _HEADER_SUFFIXES:
                    name = path.relative_to(self.root).as_posix()
                    headers[name] = hashlib.sha256(path.read_bytes()).digest()
        return headers

    def headers_digest(self, target: str) -> str:
        """Digest of names and contents of every header that code for ``target`` may include."""
        foreign = tuple(f"include/moe_jit/{folder}/" for folder in foreign_folders(target))
        digest = hashlib.sha256()
        for name, content in self._headers.items():
            if not name.startswith(foreign):
                digest.update(f"{name}\0".encode() + content)
        return digest.hexdigest()

    def unit_digest(self, unit: Unit, target: str) -> str:
        """Digest of the text of ``unit``'s source and of every header that it could include."""
        sources = b"".join((self.csrc / name).read_bytes() for name in unit.files)
        return hashlib.sha256(self.headers_digest(target).encode() + sources).hexdigest()


@cache
def package_sources() -> SourceTree:
    """The sources that an installed wheel carries, or those of the checkout."""
    package = Path(__file__).resolve().parents[1]
    for root in (package / "_data", package.parents[1]):
        if (root / "include" / "moe_jit").is_dir():
            return SourceTree(root)
    raise FileNotFoundError(f"moe_jit's C++ sources: none beside {package}; reinstall the package")
