"""Where compilers and headers are looked for, and what is said when they are missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from moe_jit.jit import ToolchainError, toolchain


def _fake_nvcc(root: Path, version: str) -> Path:
    path = root / "bin" / "nvcc"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, release 1.0, V{version}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No nvcc in CUDA_HOME, PATH or any wheel; returns a folder that is on sys.path."""
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr(toolchain, "_nvidia_wheel_roots", lambda: iter(()))
    return tmp_path


def test_missing_nvcc_names_all_three_places(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolchainError) as caught:
        toolchain.find_nvcc()
    for place in ("CUDA_HOME            is not set", "PATH", "nvidia-cuda-nvcc", "MOE_JIT_PREBUILT_DIR"):
        assert place in str(caught.value)
    monkeypatch.setenv("CUDA_HOME", "/no/such/toolkit")
    with pytest.raises(ToolchainError, match="is '/no/such/toolkit', which has no bin/nvcc"):
        toolchain.find_nvcc()


def test_nvcc_of_cuda_home_comes_before_path(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, other = _fake_nvcc(nowhere / "home", "13.0.88"), _fake_nvcc(nowhere / "other", "12.4.99")
    monkeypatch.setenv("PATH", f"{other.parent}:/bin:/usr/bin")
    assert toolchain.find_nvcc().path == other
    monkeypatch.setenv("CUDA_HOME", str(nowhere / "home"))
    assert toolchain.find_nvcc().path == home
    assert toolchain.find_nvcc().version == (13, 0, 88)


@pytest.mark.parametrize("folder", ["cu13", "cuda_nvcc"])
def test_nvcc_of_the_wheel_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    nvcc = _fake_nvcc(tmp_path / "nvidia" / folder, "13.0.1")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert toolchain.find_nvcc().path == nvcc


def test_toolkit_directory_follows_a_wrapper_script(tmp_path: Path) -> None:
    header = tmp_path / "toolkit" / "include" / "cuda_runtime_api.h"
    header.parent.mkdir(parents=True)
    header.touch()
    wrapper = _fake_nvcc(tmp_path / "local", "13.0.88")
    wrapper.write_text(f"#!/bin/sh\necho '#$ TOP={tmp_path}/toolkit/bin/..' >&2\n")
    (tmp_path / "toolkit" / "bin").mkdir()
    compiler = toolchain.Compiler((str(wrapper),), wrapper, "V13.0.88")
    assert toolchain.toolkit_directory(compiler, "cuda_runtime_api.h") == header.parent
    with pytest.raises(ToolchainError, match="libnothing"):
        toolchain.toolkit_directory(compiler, "libnothing.a")


def test_host_compiler_may_be_several_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "env g++ -pipe")
    found = toolchain.find_host_compiler()
    assert found.command == ("env", "g++", "-pipe")
    assert found.program == "g++"
    assert found.version >= (7,)
    monkeypatch.setenv("CXX", "g++")
    plain = toolchain.find_host_compiler()
    assert found.identity != plain.identity  # -pipe may be -O0
    monkeypatch.setenv("CXX", "env g++")
    assert toolchain.find_host_compiler().identity == plain.identity
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ToolchainError, match="CXX: given 'no-such-compiler'"):
        toolchain.find_host_compiler()


class TestCutlass:
    @staticmethod
    def _headers(include: Path, minor: int) -> None:
        version = include / "cutlass" / "version.h"
        version.parent.mkdir(parents=True)
        version.write_text(
            f"#define CUTLASS_MAJOR 5\n#define CUTLASS_MINOR {minor}\n#define CUTLASS_PATCH 0 \n"
        )

    @pytest.mark.parametrize("below", ["", "include"])
    def test_variable_names_a_checkout_or_its_headers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, below: str
    ) -> None:
        self._headers(tmp_path / below, 7)
        monkeypatch.setenv("MOE_JIT_CUTLASS_DIR", str(tmp_path))
        found = toolchain.find_cutlass()
        assert (found.version, found.include) == ("5.7.0", (tmp_path / below).resolve())

    def test_variable_without_headers_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MOE_JIT_CUTLASS_DIR", str(tmp_path))
        with pytest.raises(ToolchainError, match="MOE_JIT_CUTLASS_DIR: given"):
            toolchain.find_cutlass()

    def test_wheel_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MOE_JIT_CUTLASS_DIR", raising=False)
        assert (toolchain.find_cutlass().include / "cute" / "tensor.hpp").is_file()

    def test_missing_headers_name_all_three_places(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("MOE_JIT_CUTLASS_DIR", raising=False)
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(
            ToolchainError, match=r"MOE_JIT_CUTLASS_DIR[\s\S]*nvidia-cutlass[\s\S]*flashinfer-python"
        ):
            toolchain.find_cutlass()
