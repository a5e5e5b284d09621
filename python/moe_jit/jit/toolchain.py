"""Finds the compilers and headers that a build needs, and says which versions they are."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import tvm_ffi
from tvm_ffi import libinfo

from .spec import CPU, EMULATOR, NPU


class ToolchainError(RuntimeError):
    """A compiler or header that a build needs was not found."""


@dataclass(frozen=True)
class Compiler:
    """A compiler: the command that runs it, its real path and what it answers to ``--version``."""

    command: tuple[str, ...]
    path: Path
    version_text: str

    @property
    def program(self) -> str:
        """The compiler proper: ``g++`` of ``ccache g++ -pipe``."""
        return _program(self.command)

    @property
    def identity(self) -> str:
        """Without wrappers such as ccache, which do not change the code."""
        options = [word for word in self.command if word.startswith("-")]
        return "\n".join([str(self.path), *options, self.version_text])

    @property
    def version(self) -> tuple[int, ...]:
        """Leading version numbers, e.g. (13, 0, 88) for nvcc."""
        found = re.search(r"\bV([\d.]+)", self.version_text) or re.search(r"(\d+(\.\d+)+)", self.version_text)
        return tuple(int(part) for part in found.group(1).split(".")) if found else ()


@dataclass(frozen=True)
class Cutlass:
    include: Path
    version: str


@dataclass(frozen=True)
class Toolchain:
    """Everything that turns the units of one target into a shared library. For an NPU, ``host`` is bisheng,
    which compiles for both sides."""

    host: Compiler
    nvcc: Compiler | None = None
    cutlass: Cutlass | None = None
    cann: str = ""

    @property
    def identity(self) -> dict[str, str]:
        """What of the toolchain can change the code that it generates."""
        parts = {"host": self.host.identity, "tvm_ffi": tvm_ffi_version()}
        if self.nvcc:
            parts["nvcc"] = self.nvcc.identity
        if self.cutlass:
            parts["cutlass"] = self.cutlass.version
        if self.cann:
            parts["cann"] = self.cann
        return parts


def find_toolchain(target: str) -> Toolchain:
    """Compilers and headers for ``target``; raises ToolchainError that says what is missing."""
    if target in (CPU, EMULATOR):
        return Toolchain(find_host_compiler())
    if target == NPU:
        return Toolchain(find_bisheng(), cann=cann_version())
    return Toolchain(find_host_compiler(), find_nvcc(), find_cutlass())


def _program(command: tuple[str, ...]) -> str:
    return [word for word in command if not word.startswith("-")][-1]


def output_of(command: list[str]) -> str:
    """What ``command`` prints; raises ToolchainError when it fails."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise ToolchainError(f"{shlex.join(command)} failed: {error}") from error
    return (result.stdout + result.stderr).strip()


@cache
def _compiler(command: tuple[str, ...]) -> Compiler:
    version_text = output_of([*command, "--version"])
    program = _program(command)
    return Compiler(command, Path(shutil.which(program) or program).resolve(), version_text)


def find_host_compiler() -> Compiler:
    """``$CXX`` (words allowed, e.g. ``ccache g++``), else g++, c++ or clang++ of PATH."""
    chosen = os.environ.get("CXX", "").strip()
    if chosen:
        command = shlex.split(chosen)
        if not shutil.which(command[0]):
            raise ToolchainError(f"CXX: given {chosen!r}, expected a C++17 compiler that can be run")
        return _compiler(tuple(command))
    for name in ("g++", "c++", "clang++"):
        if path := shutil.which(name):
            return _compiler((path,))
    raise ToolchainError(
        "no C++ compiler found: g++, c++ and clang++ are not in PATH and CXX is not set. "
        "Install g++ 11 or newer, or set CXX."
    )


def _nvidia_wheel_roots() -> Iterator[Path]:
    """Toolkit-like folders of the nvidia-* wheels: nvidia/cu13 and, for CUDA 12, nvidia/cuda_nvcc."""
    spec = importlib.util.find_spec("nvidia")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        yield from sorted(Path(location).glob("cu[0-9]*"), reverse=True)
        yield Path(location) / "cuda_nvcc"


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def find_nvcc() -> Compiler:
    """nvcc of CUDA_HOME, else of PATH, else of the nvidia-cuda-nvcc wheel."""
    home = os.environ.get("CUDA_HOME", "")
    if home and _is_program(nvcc := Path(home) / "bin" / "nvcc"):
        return _compiler((str(nvcc),))
    if in_path := shutil.which("nvcc"):
        return _compiler((in_path,))
    for root in _nvidia_wheel_roots():
        if _is_program(nvcc := root / "bin" / "nvcc"):
            return _compiler((str(nvcc),))
    given = f"is {home!r}, which has no bin/nvcc" if home else "is not set"
    raise ToolchainError(
        "nvcc not found. Looked in three places:\n"
        f"  CUDA_HOME            {given}\n"
        "  PATH                 has no nvcc\n"
        "  nvidia-cuda-nvcc     the wheel is not installed here, or has no bin/nvcc\n"
        "Install the CUDA toolkit and set CUDA_HOME or PATH, or `pip install nvidia-cuda-nvcc "
        "nvidia-cuda-cccl`, or set MOE_JIT_PREBUILT_DIR to a directory of compiled modules."
    )


_BISHENG_FOLDERS = (
    "bin",
    "compiler/ccec_compiler/bin",
    "tools/bisheng_compiler/bin",
    "*-linux/ccec_compiler/bin",
)


def _cann_root() -> Path | None:
    home = os.environ.get("ASCEND_HOME_PATH", "").strip()
    return Path(home) if home else None


def find_bisheng() -> Compiler:
    """bisheng of the CANN toolkit that ASCEND_HOME_PATH names, else of PATH."""
    root = _cann_root()
    if root:
        candidates = [path for folder in _BISHENG_FOLDERS for path in sorted(root.glob(f"{folder}/bisheng"))]
        for path in [*filter(_is_program, candidates), *filter(None, [shutil.which("bisheng")])]:
            return _compiler((str(path),))
    given = f"is {str(root)!r}, which has no bisheng, nor has PATH" if root else "is not set"
    raise ToolchainError(
        f"no compiler for an NPU: ASCEND_HOME_PATH {given}. Install the CANN toolkit, which brings bisheng, "
        "and `source <toolkit>/set_env.sh`, which sets it; tensors of the NPU come from torch_npu. "
        'Without an NPU, moe_jit.use_backend("ascend-emulator") runs the same kernels on CPU tensors.'
    )


def cann_version() -> str:
    """What the toolkit says about itself: its headers can change under the same compiler."""
    root = _cann_root()
    notes = sorted(root.glob("*-linux/ascend_toolkit_install.info")) if root else []
    return "\n".join([str(root.resolve() if root else ""), *(note.read_text() for note in notes)])


def toolkit_directory(nvcc: Compiler, file_name: str) -> Path:
    """The folder of nvcc's toolkit, or of the nvidia-* wheels, that holds ``file_name``."""
    roots = [nvcc.path.parents[1], *_toolkit_root_that_nvcc_names(nvcc), *_nvidia_wheel_roots()]
    roots += [root.parent / "cuda_runtime" for root in roots]
    folders = ("include", "targets/*/include", "lib64", "lib", "targets/*/lib")
    for root in roots:
        for folder in folders:
            for candidate in sorted(root.glob(folder)):
                if (candidate / file_name).is_file():
                    return candidate
    searched = "\n  ".join(dict.fromkeys(str(root) for root in roots))
    raise ToolchainError(f"{file_name} of the CUDA toolkit not found. Looked under\n  {searched}")


def _toolkit_root_that_nvcc_names(nvcc: Compiler) -> Iterator[Path]:
    """nvcc may be a wrapper script outside its toolkit; its dry run says where the toolkit is."""
    command = [*nvcc.command, "--dryrun", "-x", "cu", "-c", os.devnull]
    for line in output_of(command).splitlines():
        if line.startswith("#$ TOP="):
            yield Path(line.removeprefix("#$ TOP=").strip()).resolve()


def find_cutlass() -> Cutlass:
    """CUTLASS headers of MOE_JIT_CUTLASS_DIR, the nvidia-cutlass wheel or flashinfer-python."""
    chosen = os.environ.get("MOE_JIT_CUTLASS_DIR", "")
    if chosen:
        for include in (Path(chosen) / "include", Path(chosen)):
            if version := _cutlass_version(include):
                return Cutlass(include.resolve(), version)
        raise ToolchainError(f"MOE_JIT_CUTLASS_DIR: given {chosen!r}, expected a folder with include/cutlass")
    for package, below in (("cutlass_library", "source/include"), ("flashinfer", "data/cutlass/include")):
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            include = Path(location) / below
            if version := _cutlass_version(include):
                return Cutlass(include, version)
    raise ToolchainError(
        "CUTLASS headers not found. Looked in three places: MOE_JIT_CUTLASS_DIR is not set, and neither the "
        "nvidia-cutlass nor the flashinfer-python wheel with its headers is installed. "
        "`pip install nvidia-cutlass`, or set MOE_JIT_CUTLASS_DIR to a CUTLASS checkout."
    )


def _cutlass_version(include: Path) -> str | None:
    try:
        text = (include / "cutlass" / "version.h").read_text()
    except OSError:
        return None
    parts = [re.search(rf"#define CUTLASS_{name}\s+(\d+)", text) for name in ("MAJOR", "MINOR", "PATCH")]
    return ".".join(part.group(1) for part in parts if part)


def tvm_ffi_version() -> str:
    return str(tvm_ffi.__version__)


def tvm_ffi_abi() -> str:
    """The part of tvm-ffi's version within which a compiled module keeps working."""
    return ".".join(tvm_ffi_version().split(".")[:2])


def tvm_ffi_includes() -> list[str]:
    return list(libinfo.include_paths())


def tvm_ffi_library() -> Path:
    return Path(libinfo.find_libtvm_ffi())
