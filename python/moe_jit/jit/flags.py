"""Compiler and linker flags. Flags hold no path and so can be part of a key; commands add paths."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

from .spec import CPU, EMULATOR, NPU, ModuleSpec, SourceTree, Unit
from .toolchain import Toolchain, toolkit_directory, tvm_ffi_includes, tvm_ffi_library

# The instruction sets of x86-64-v3, as /proc/cpuinfo spells them.
_X86_64_V3 = {"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"}


@cache
def _cpu_flags() -> tuple[str, ...]:
    """Flags for the host's instruction set."""
    if platform.machine() != "x86_64":
        return ()
    try:
        with Path("/proc/cpuinfo").open() as lines:
            features = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    except OSError:
        return ()
    return ("-march=x86-64-v3",) if set(features) >= _X86_64_V3 else ()


def unit_flags(unit: Unit, target: str) -> list[str]:
    """Code-generation flags of one unit; independent of the machine's paths and compiler version."""
    optimised = "-O2" if target == EMULATOR else "-O3"  # compiling takes longer than running
    flags = ["-std=c++17", optimised, "-DNDEBUG", *(f"-D{name}={value}" for name, value in unit.defines)]
    if unit.wrapper:
        flags.append(f'-DMOE_JIT_SOURCE="{unit.source}"')
    if target == NPU:
        return [*flags, "-shared", "-fPIC", f"--npu-arch={NPU}", "-x", "asc"]
    if unit.is_cuda:
        arch = target.removeprefix("sm_")
        return [
            *flags,
            f"-gencode=arch=compute_{arch},code=sm_{arch}",
            "--expt-relaxed-constexpr",
            "-Xfatbin=-compress-all",
            "-Xcompiler=-fPIC,-fvisibility=hidden",
        ]
    # Contraction would make results differ from the portable reference arithmetic.
    flags += ["-fPIC", "-fvisibility=hidden", "-ffp-contract=off"]
    flags += ["-fopenmp"] if target == CPU else []
    return [*flags, *_cpu_flags()] if target in (CPU, EMULATOR) else flags


def link_flags(target: str) -> list[str]:
    """libtvm_ffi is found by its soname, already in the process; the CUDA runtime is linked statically."""
    if target == NPU:
        return []
    flags = ["-shared", "-Wl,-z,defs", "-Wl,--as-needed"]
    if target in (CPU, EMULATOR):
        return [*flags, *(["-fopenmp"] if target == CPU else []), "-ltvm_ffi"]
    return [*flags, "-ltvm_ffi", "-lcudart_static", "-ldl", "-lrt", "-lpthread"]


def _include_flags(unit: Unit, target: str, tree: SourceTree, toolchain: Toolchain) -> list[str]:
    # The emulator stands in for the headers of CANN, which bisheng brings along; its errors name files.
    folders = (tree.root, Path(unit.source).parent) if Path(unit.source).is_absolute() else (tree.root,)
    emulator = [f"-ffile-prefix-map={folder}/=" for folder in folders]
    emulator.append(f"-I{tree.include}/moe_jit/ascend_emulator")
    includes = [*(emulator if target == EMULATOR else ()), f"-I{tree.include}", f"-I{tree.csrc}"]
    system = tvm_ffi_includes()
    if unit.is_cuda and toolchain.cutlass:
        system.append(str(toolchain.cutlass.include))
    if toolchain.nvcc and not unit.is_cuda:
        system.append(str(toolkit_directory(toolchain.nvcc, "cuda_runtime_api.h")))
    for path in system:
        includes += ["-isystem", path]
    return includes


def compile_command(
    unit: Unit, target: str, tree: SourceTree, toolchain: Toolchain, output: str
) -> list[str]:
    """From a unit to an object file; for an NPU to the finished shared library."""
    if unit.is_cuda:
        if toolchain.nvcc is None:
            raise ValueError(f"target: given {target!r} with {unit.source}, expected a CUDA target")
        command = [*toolchain.nvcc.command, "-ccbin", toolchain.host.program]
        if toolchain.nvcc.version >= (12, 8):
            command.append("-static-global-template-stub=false")
    else:
        command = [*toolchain.host.command]
    command += unit_flags(unit, target) + _include_flags(unit, target, tree, toolchain)
    return [*command, *(() if target == NPU else ("-c",)), str(tree.csrc / unit.files[0]), "-o", output]


def link_command(spec: ModuleSpec, objects: list[Path], toolchain: Toolchain, output: str) -> list[str]:
    libraries = [f"-L{tvm_ffi_library().parent}"]
    if toolchain.nvcc:
        libraries.append(f"-L{toolkit_directory(toolchain.nvcc, 'libcudart_static.a')}")
    return [*toolchain.host.command, *map(str, objects), "-o", output, *libraries, *link_flags(spec.target)]
