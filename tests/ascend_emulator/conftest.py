"""Compiles the C++ programs of these tests once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from moe_jit.jit.toolchain import find_host_compiler

KERNELS = Path(__file__).parent / "kernels"
INCLUDE = Path(__file__).parents[2] / "include"

Compile = Callable[..., Path]


@pytest.fixture(scope="session")
def compile_program(tmp_path_factory: pytest.TempPathFactory) -> Compile:
    """Compiles C++ sources of ``kernels`` to a program and returns its path."""

    def compile_sources(*sources: str) -> Path:
        program = tmp_path_factory.mktemp("emulator") / "program"
        command = [*find_host_compiler().command, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]
        command += ["-ffp-contract=off", f"-I{INCLUDE / 'moe_jit/ascend_emulator'}", f"-I{INCLUDE}"]
        command += [*(str(KERNELS / source) for source in sources), "-o", str(program)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return program

    return compile_sources


@pytest.fixture(scope="session")
def case_runner(compile_program: Compile) -> Path:
    return compile_program(
        "main.cpp",
        "memory_cases.cpp",
        "hazard_cases.cpp",
        "queue_cases.cpp",
        "core_cases.cpp",
        "argument_cases.cpp",
    )
