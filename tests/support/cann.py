"""A stand-in for the CANN toolkit: its ``bisheng`` writes down what it was asked to compile, and produces a
library that writes down how it was launched. It compiles no kernel."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

STREAM = 0x5EED
VERSION = "bisheng stand-in 1.2.3"
_COMPILER = """#!/bin/bash
[ "$1" = --version ] && {{ echo {version}; exit; }}
printf '%s\\n' "$(printf '%q ' "$@")" >> {commands}
while [ $# -gt 0 ]; do [ "$1" = -o ] && output=$2; shift; done
exec {compiler} -shared -fPIC -I {include} -DLAUNCHES='"{launches}"' {recorder} -o "$output"
"""
# One line of JSON for each launch: the integers that it got.
_RECORDER = """
#include <cstdio>
#include <cstdint>
#include <tvm/ffi/c_api.h>
extern "C" __attribute__((visibility("default"))) int __tvm_ffi_launch(
        void*, const TVMFFIAny* arguments, int32_t count, TVMFFIAny* result) {
    std::FILE* file = std::fopen(LAUNCHES, "a");
    std::fprintf(file, "[");
    for (int i = 0; i < count; ++i) {
        std::fprintf(file, "%s%lld", i ? "," : "", static_cast<long long>(arguments[i].v_int64));
    }
    std::fprintf(file, "]\\n");
    std::fclose(file);
    result->type_index = kTVMFFINone;
    return 0;
}
"""


class FakeTorchNpu(SimpleNamespace):
    """What of torch_npu a launch uses."""

    def __init__(self, **properties: Any) -> None:
        stream = SimpleNamespace(npu_stream=STREAM)
        super().__init__(
            npu=SimpleNamespace(
                current_stream=lambda: stream,
                get_device_properties=lambda device: SimpleNamespace(**properties),
            ),
            get_npu_format=lambda tensor: 2,
        )


@dataclass
class Cann:
    """What the stand-in has recorded."""

    root: Path
    bisheng: Path

    @property
    def commands(self) -> list[list[str]]:
        log = self.root / "commands"
        return [shlex.split(line) for line in log.read_text().splitlines()] if log.exists() else []

    @property
    def launches(self) -> list[list[int]]:
        log = self.root / "launches"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def install(root: Path, monkeypatch: pytest.MonkeyPatch) -> Cann:
    """Put the stand-in where ASCEND_HOME_PATH points."""
    from tvm_ffi import libinfo

    bisheng = root / "toolkit" / "compiler" / "ccec_compiler" / "bin" / "bisheng"
    bisheng.parent.mkdir(parents=True)
    recorder = root / "recorder.cpp"
    recorder.write_text(_RECORDER)
    bisheng.write_text(
        _COMPILER.format(
            version=VERSION,
            commands=root / "commands",
            launches=root / "launches",
            compiler=shutil.which("g++"),
            include=" -I ".join(libinfo.include_paths()),
            recorder=recorder,
        )
    )
    bisheng.chmod(0o755)
    monkeypatch.setenv("ASCEND_HOME_PATH", str(root / "toolkit"))
    return Cann(root, bisheng)
