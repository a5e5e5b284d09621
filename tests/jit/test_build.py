"""Compiler runs: errors, parallelism, progress, and one real nvcc build."""

from __future__ import annotations

import io
import logging
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from moe_jit import jit
from moe_jit.jit import ModuleSpec, Unit, build, flags, progress, resources

_GIB = resources.GIB


def test_error_shows_the_diagnostics_and_a_command_that_reproduces_it(project: Any, tmp_path: Path) -> None:
    project.add_source("value.cpp", "\n\nint broken( { return undeclared_name; }\n")
    with pytest.raises(jit.CompileError) as caught:
        project.value()
    text = str(caught.value)
    assert "compiling value.cpp failed (exit status 1)" in text
    assert "value.cpp:3:" in text
    command = shlex.split(text.split("To reproduce:\n")[1])
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 1
    assert "value.cpp:3:" in again.stderr


def test_error_names_the_defines_of_the_unit(project: Any) -> None:
    project.add_source("value.cpp", "#error no such variant\n")
    spec = ModuleSpec("tiny", (Unit("value.cpp", (("VARIANT", "3"),)),), "cpu")
    with pytest.raises(jit.CompileError, match=r"value\.cpp \[VARIANT=3\]"):
        project.value(spec)


def test_undefined_symbol_fails_at_link_time(project: Any) -> None:
    source = project.root / "csrc" / "value.cpp"
    source.write_text(source.read_text().replace("kValue + OFFSET", "kValue + elsewhere()") + "\n")
    source.write_text("int elsewhere();\n" + source.read_text())
    with pytest.raises(jit.CompileError, match=r"tiny \(link\) failed[\s\S]*elsewhere"):
        project.value()


def test_long_output_starts_at_the_first_error() -> None:
    output = "\n".join(
        [*(f"note {i}" for i in range(500)), "a.cpp:1: error: first", *(f"more {i}" for i in range(500))]
    )
    text = build.failure_text("a.cpp", ["g++", "a.cpp"], 1, output)
    assert "error: first" in text
    assert "note 3\n" not in text
    assert len(text.splitlines()) < 70


@pytest.mark.parametrize(
    "output",
    [
        "g++: fatal error: Killed signal terminated program cc1plus",
        "nvcc error : 'cicc' died due to signal 9",
    ],
)
def test_killed_helper_of_the_compiler_is_recognised(output: str) -> None:
    assert "MOE_JIT_MAX_JOBS" in build.failure_text("a.cu", ["nvcc"], 1, output)


def test_a_failing_unit_stops_the_others(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_JIT_MAX_JOBS", "2")
    slow = project.control / "slow-g++"
    lines = ("#!/bin/bash", "[[ $* == *slow.cpp* ]] && sleep 60", 'exec g++ "$@"', "")
    slow.write_text("\n".join(lines))
    slow.chmod(0o755)
    monkeypatch.setenv("CXX", str(slow))
    project.add_source("slow.cpp", "")
    project.add_source("broken.cpp", "#error\n")
    start = time.monotonic()
    with pytest.raises(jit.CompileError, match="broken"):
        project.value(ModuleSpec("two", (Unit("slow.cpp"), Unit("broken.cpp")), "cpu"))
    assert time.monotonic() - start < 20


class TestJobCount:
    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MOE_JIT_MAX_JOBS", raising=False)
        monkeypatch.setattr(resources, "available_cores", lambda: 16)
        monkeypatch.setattr(resources, "available_memory", lambda: 10 * _GIB)

    @pytest.mark.parametrize(
        ("cuda", "host", "jobs"), [(8, 0, 3), (1, 7, 3), (2, 0, 2), (0, 20, 10), (0, 4, 4), (0, 0, 1)]
    )
    def test_is_bounded_by_units_and_memory(self, cuda: int, host: int, jobs: int) -> None:
        units = [Unit(f"{i}.cu") for i in range(cuda)] + [Unit(f"{i}.cpp") for i in range(host)]
        assert resources.job_count(units) == jobs

    def test_is_bounded_by_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resources, "available_cores", lambda: 2)
        assert resources.job_count([Unit(f"{i}.cpp") for i in range(5)]) == 2

    def test_one_job_remains_without_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resources, "available_memory", lambda: 0)
        assert resources.job_count([Unit("a.cu"), Unit("b.cu")]) == 1

    def test_variable_replaces_the_bounds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MOE_JIT_MAX_JOBS", "12")
        assert resources.job_count([Unit(f"{i}.cu") for i in range(30)]) == 12

    @pytest.mark.parametrize("text", ["0", "-1", "many"])
    def test_variable_must_be_a_positive_integer(self, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
        monkeypatch.setenv("MOE_JIT_MAX_JOBS", text)
        with pytest.raises(ValueError, match="MOE_JIT_MAX_JOBS"):
            resources.job_count([Unit("a.cpp")])


def test_container_limits_bound_cores_and_memory(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text(f"{3 << 20}\n")
    (tmp_path / "memory.current").write_text(f"{1 << 20}\n")
    assert resources.available_cores(tmp_path) == 1
    assert resources.available_memory(tmp_path) == 2 << 20
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert resources.available_cores(tmp_path) == resources.available_cores(tmp_path / "none")
    assert resources.available_memory(tmp_path) > 2 << 20


class TestProgress:
    @pytest.fixture(autouse=True)
    def hasty(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(progress, "QUIET_SECONDS", 0.1)

    def test_says_nothing_about_a_short_wait(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.DEBUG), progress.Progress("quick") as shown:
            shown.compiling(3, 2)
            shown.advance()
        time.sleep(0.2)
        shown._announce()  # a timer that fired just before the end
        assert not caplog.records

    def test_logs_a_long_wait_and_its_end(self, wait_until: Any, caplog: pytest.LogCaptureFixture) -> None:
        with progress.Progress("long") as shown:
            shown.compiling(3, 2)
            wait_until(lambda: len(caplog.records) == 1)
        first, last = (record.getMessage() for record in caplog.records)
        assert first.startswith("long: compiling 3 units, 2 at a time")
        assert last.startswith("long is ready after")

    def test_tells_that_it_waits_for_another_process(
        self, wait_until: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with progress.Progress("other"):
            wait_until(lambda: len(caplog.records) == 1)
        assert "waiting for another process" in caplog.text

    def test_draws_a_bar_on_a_terminal(
        self, wait_until: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        terminal = io.StringIO()
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "150")
        running = set(threading.enumerate())
        with progress.Progress("drawn") as shown:
            shown.compiling(3, 2)
            wait_until(lambda: "drawn: compiling 3 units" in terminal.getvalue())
            shown.advance()
            wait_until(lambda: "1/4" in terminal.getvalue())
        wait_until(lambda: set(threading.enumerate()) <= running)
        assert not [record for record in caplog.records if "compiling" in record.message]


class TestFlags:
    def test_device_code_is_for_one_explicit_architecture_without_fast_math(self) -> None:
        given = flags.unit_flags(Unit("a.cu", (("N", "4"),)), "sm_90a")
        assert [flag for flag in given if "arch" in flag] == ["-gencode=arch=compute_90a,code=sm_90a"]
        assert "-DN=4" in given
        assert not [flag for flag in given if "fast" in flag or "lineinfo" in flag]

    def test_host_arithmetic_is_not_contracted(self) -> None:
        assert "-ffp-contract=off" in flags.unit_flags(Unit("a.cpp"), "cpu")

    def test_flags_hold_no_path(self) -> None:
        every = flags.unit_flags(Unit("a.cpp"), "cpu") + flags.unit_flags(Unit("a.cu"), "sm_90a")
        every += flags.link_flags("cpu") + flags.link_flags("sm_90a")
        assert not [flag for flag in every if "/" in flag]


def test_specs_reject_what_cannot_be_compiled() -> None:
    with pytest.raises(ValueError, match=r"source: given 'a\.py'"):
        Unit("a.py")
    with pytest.raises(ValueError, match="target: given 'sm_80'"):
        ModuleSpec("name", (Unit("a.cu"),), "sm_80")
    with pytest.raises(ValueError, match="units"):
        ModuleSpec("name", (), "cpu")


_KERNEL = """
#include <cuda_runtime.h>
#include <moe_jit/value.h>
__global__ void store_value(int* out) { *out = kValue; }
int launch_store_value(int* out) {
    store_value<<<1, 1>>>(out);
    return static_cast<int>(cudaGetLastError());
}
"""

_BINDING = """
#include <cuda_runtime_api.h>
#include <tvm/ffi/c_api.h>
int launch_store_value(int* out);
extern "C" __attribute__((visibility("default"))) int __tvm_ffi_value(
        void*, const TVMFFIAny*, int32_t, TVMFFIAny* result) {
    void* out = nullptr;
    int status = static_cast<int>(cudaMalloc(&out, sizeof(int)));
    int value = -1;
    if (status == cudaSuccess) {
        launch_store_value(static_cast<int*>(out));
        status = static_cast<int>(cudaMemcpy(&value, out, sizeof(int), cudaMemcpyDeviceToHost));
    }
    result->type_index = kTVMFFIInt;
    result->v_int64 = status == cudaSuccess ? value : -status;
    return 0;
}
"""


@pytest.fixture
def cuda_spec(project: Any) -> ModuleSpec:
    if not shutil.which("nvcc"):
        pytest.skip("needs nvcc")
    project.add_source("kernel.cu", _KERNEL)
    project.add_source("binding.cpp", _BINDING)
    return ModuleSpec("tiny_cuda", (Unit("kernel.cu"), Unit("binding.cpp")), "sm_90a")


def test_cuda_module_builds_and_loads_without_a_gpu(project: Any, cuda_spec: ModuleSpec) -> None:
    project.value(cuda_spec)  # a CUDA error code where there is no device
    record = jit.stats()[-1]
    assert set(record.compile_seconds) == {"kernel.cu", "binding.cpp"}
    dynamic = subprocess.run(
        ["readelf", "-d", str(record.path)], capture_output=True, text=True, check=True
    ).stdout
    assert "libcudart" not in dynamic
    assert "RPATH" not in dynamic
    assert "RUNPATH" not in dynamic


@pytest.mark.cuda
def test_cuda_module_runs(project: Any, cuda_spec: ModuleSpec) -> None:
    assert project.value(cuda_spec) == 7
