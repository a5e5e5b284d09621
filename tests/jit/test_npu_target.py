"""Compiling for an NPU: bisheng's command line, keys, loading; bisheng is a stand-in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import cann as stand_in
from support.cann import Cann

from moe_jit import cli, jit
from moe_jit.jit import ModuleSpec, ToolchainError, Unit, flags, loader, spec, toolchain

_UNIT = Unit("kernel.cpp", (("ENTRY", "k"), ("ARGUMENTS(at)", "at(0), at(1)")), wrapper="launch.cpp")
_SPEC = ModuleSpec("kernel_npu", (_UNIT,), spec.NPU)


@pytest.fixture
def cann(tmp_path: Path, project: Any, monkeypatch: pytest.MonkeyPatch) -> Cann:
    project.add_source("kernel.cpp", "kernel\n")
    project.add_source("launch.cpp", "wrapper\n")
    return stand_in.install(tmp_path / "cann", monkeypatch)


def load(project: Any) -> Any:
    """As a new process would."""
    loader._modules.clear()
    return loader.load(_SPEC, project.tree)


def test_one_command_compiles_and_links(project: Any, cann: Cann) -> None:
    load(project)
    (command,) = cann.commands
    includes = [f"-I{project.tree.include}", f"-I{project.tree.csrc}"]
    system = [word for path in toolchain.tvm_ffi_includes() for word in ("-isystem", path)]
    assert command == [
        *("-std=c++17", "-O3", "-DNDEBUG", "-DENTRY=k", "-DARGUMENTS(at)=at(0), at(1)"),
        '-DMOE_JIT_SOURCE="kernel.cpp"',
        *("-shared", "-fPIC", "--npu-arch=dav-2201", "-x", "asc"),
        *includes,
        *system,
        *(str(project.tree.csrc / "launch.cpp"), "-o", "module.so"),
    ]
    assert project.calls == []  # the host compiler is not needed
    assert set(jit.stats()[-1].compile_seconds) == {str(_UNIT)}


def test_the_function_gets_what_it_is_called_with(project: Any, cann: Cann) -> None:
    load(project)["launch"](24, 77, 4096, 8192)
    assert cann.launches == [[24, 77, 4096, 8192]]


def test_second_process_compiles_nothing(project: Any, cann: Cann) -> None:
    load(project)
    load(project)
    assert len(cann.commands) == 1
    assert jit.stats()[-1].origin == "cache"
    assert jit.describe(_SPEC, project.tree).origin == "cache"


@pytest.mark.parametrize("changed", ["kernel.cpp", "launch.cpp", "header", "version", "toolkit", "path"])
def test_key_changes_with(
    project: Any, cann: Cann, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(project)
    if changed.endswith(".cpp"):
        project.add_source(changed, "other\n")
    elif changed == "header":
        project.set_value(8)
    elif changed == "version":
        cann.bisheng.write_text(cann.bisheng.read_text().replace(stand_in.VERSION, "bisheng 2"))
    elif changed == "toolkit":
        note = cann.root / "toolkit" / "x86_64-linux" / "ascend_toolkit_install.info"
        note.parent.mkdir()
        note.write_text("version=9.9\n")
    else:
        (tmp_path / "moved").mkdir()
        cann.bisheng.rename(moved := tmp_path / "moved" / "bisheng")
        monkeypatch.setenv("PATH", str(moved.parent), prepend=":")
    toolchain._compiler.cache_clear()  # as in a new process
    load(project)
    assert len(cann.commands) == 2


def test_missing_toolkit_names_what_to_set(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    project.add_source("kernel.cpp", "")
    project.add_source("launch.cpp", "")
    monkeypatch.delenv("ASCEND_HOME_PATH", raising=False)
    with pytest.raises(ToolchainError) as caught:
        load(project)
    for word in ("ASCEND_HOME_PATH is not set", "bisheng", "set_env.sh", "torch_npu", "ascend-emulator"):
        assert word in str(caught.value)
    monkeypatch.setenv("ASCEND_HOME_PATH", "/no/such/toolkit")
    monkeypatch.setenv("PATH", "/no/such/folder")
    with pytest.raises(ToolchainError, match="ASCEND_HOME_PATH is '/no/such/toolkit', which has no bisheng"):
        load(project)
    assert jit.describe(_SPEC, project.tree).origin == "impossible"


def test_compiler_error_can_be_reproduced(project: Any, cann: Cann) -> None:
    cann.bisheng.write_text(
        "#!/bin/bash\n[ $1 = --version ] && exit\necho 'kernel.cpp:1: error: no'; exit 1\n"
    )
    with pytest.raises(jit.CompileError, match=r"kernel\.cpp[\s\S]*error: no[\s\S]*--npu-arch=dav-2201"):
        load(project)


def test_a_module_is_one_kernel() -> None:
    with pytest.raises(ValueError, match="units: given 2, expected one"):
        ModuleSpec("two", (_UNIT, Unit("other.cpp")), spec.NPU)


def test_flags_hold_no_path_and_the_emulator_comes_first(project: Any) -> None:
    every = flags.unit_flags(_UNIT, spec.NPU) + flags.unit_flags(_UNIT, spec.EMULATOR)
    assert not [flag for flag in every if "/" in flag]
    compiler = toolchain.Compiler(("g++",), Path("g++"), "1.0")
    command = flags.compile_command(
        _UNIT, spec.EMULATOR, project.tree, toolchain.Toolchain(compiler), "unit.o"
    )
    includes = [word for word in command if word.startswith("-I")]
    include = project.tree.include
    assert includes == [f"-I{include}/moe_jit/ascend_emulator", f"-I{include}", f"-I{project.tree.csrc}"]
    assert "-ffp-contract=off" in command


def test_doctor_reports_the_toolkit(cann: Cann, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli._bisheng() == f"1.2.3 ({cann.bisheng})"
    monkeypatch.delenv("ASCEND_HOME_PATH")
    assert cli._bisheng() == "ASCEND_HOME_PATH is not set: no modules for NPUs"
