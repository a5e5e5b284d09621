"""A tiny module to compile, and a compiler that records what it was asked to do."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from moe_jit.jit import ModuleSpec, SourceTree, Unit, loader

# tvm-ffi's C calling convention by hand: it compiles in a tenth of the time that its C++ header takes.
_SOURCE = """
#include <tvm/ffi/c_api.h>
#include <moe_jit/value.h>
#ifndef OFFSET
#define OFFSET 0
#endif
extern "C" __attribute__((visibility("default"))) int __tvm_ffi_value(
        void*, const TVMFFIAny*, int32_t, TVMFFIAny* result) {
    result->type_index = kTVMFFIInt;
    result->v_int64 = kValue + OFFSET;
    return 0;
}
"""

_COMPILER = """#!/bin/bash
[ "$1" = --version ] && exec {compiler} --version
echo "$*" >> {log}
while [ -e {control}/hold ]; do sleep 0.05; done
[ -e {control}/die ] && kill -9 $$
exec {compiler} "$@"
"""


@dataclass
class Project:
    """A source tree, the cache in use, and a recording compiler (``$CXX``)."""

    root: Path
    control: Path
    spec: ModuleSpec

    @property
    def tree(self) -> SourceTree:
        """A new instance each time, because an instance reads its headers once."""
        return SourceTree(self.root)

    @property
    def header(self) -> Path:
        return self.root / "include" / "moe_jit" / "value.h"

    def set_value(self, value: int) -> None:
        self.header.write_text(f"#pragma once\nconstexpr int kValue = {value};\n")

    def add_source(self, name: str, text: str) -> Path:
        path = self.root / "csrc" / name
        path.write_text(text)
        return path

    def value(self, spec: ModuleSpec | None = None) -> int:
        """Load as a new process would, and call the module."""
        loader._modules.clear()
        return int(loader.load(spec or self.spec, self.tree)["value"]())

    @property
    def calls(self) -> list[str]:
        """Arguments of every compiler run other than ``--version``."""
        log = self.control / "log"
        return log.read_text().splitlines() if log.exists() else []

    @property
    def compilations(self) -> int:
        return sum(" -c " in call for call in self.calls)


@pytest.fixture
def wait_until() -> Callable[[Callable[[], bool]], None]:
    """Poll a condition; a test that waits for longer than a busy machine needs has failed."""

    def wait(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "timed out"
            time.sleep(0.0002)

    return wait


@pytest.fixture
def project(tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    root, control = tmp_path / "tree", tmp_path / "control"
    for directory in (root / "include" / "moe_jit", root / "csrc", control):
        directory.mkdir(parents=True)
    compiler = tmp_path / "recording-g++"
    real = os.environ.get("CXX") or shutil.which("g++")
    compiler.write_text(_COMPILER.format(compiler=real, log=control / "log", control=control))
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.delenv("MOE_JIT_MAX_JOBS", raising=False)
    project = Project(root, control, ModuleSpec("tiny", (Unit("value.cpp"),), "cpu"))
    project.add_source("value.cpp", _SOURCE)
    project.set_value(7)
    return project
