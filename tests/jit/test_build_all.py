"""Building many modules at once, and copying them into a directory to ship."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from moe_jit import jit
from moe_jit.jit import ModuleSpec, Store, Unit

HELPER = 'extern "C" int helper() { return 0; }\n'


@pytest.fixture
def specs(project: Any) -> list[ModuleSpec]:
    """Four modules that share one unit."""
    project.add_source("helper.cpp", HELPER)
    units = [Unit("value.cpp", (("OFFSET", str(offset)),)) for offset in range(4)]
    return [ModuleSpec("tiny", (unit, Unit("helper.cpp")), "cpu") for unit in units]


def test_common_units_compile_once(project: Any, specs: list[ModuleSpec]) -> None:
    entries = jit.build_all([*specs, specs[0]], project.tree)
    assert project.compilations == 5
    assert len(entries) == 5
    assert entries[0] == entries[4]
    assert [project.value(spec) for spec in specs] == [7, 8, 9, 10]
    assert project.compilations == 5


def test_only_missing_modules_are_built(project: Any, specs: list[ModuleSpec]) -> None:
    project.value(specs[1])
    before = len(project.calls)
    jit.build_all(specs, project.tree)
    assert project.compilations == 5
    assert len(project.calls) - before == 3 + 3  # three units and three links
    jit.build_all(specs, project.tree)
    assert len(project.calls) - before == 6


def test_nothing_to_build(project: Any) -> None:
    assert jit.build_all([], project.tree) == []


def test_parallel_units_are_bounded_together(
    project: Any, specs: list[ModuleSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_JIT_MAX_JOBS", "2")
    compiler = Path(project.control) / "counting-g++"
    running = project.control / "running"
    running.mkdir()
    script = f"""#!/bin/bash
[ "$1" = --version ] && exec g++ --version
touch {running}/$$; ls {running} | wc -l >> {project.control}/counts
sleep 0.2; g++ "$@"; status=$?; rm {running}/$$; exit $status
"""
    compiler.write_text(script)
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    jit.build_all(specs, project.tree)
    counts = [int(line) for line in (project.control / "counts").read_text().split()]
    assert len(counts) == 9
    assert max(counts) == 2


def test_a_failing_module_fails_the_whole_build(project: Any, specs: list[ModuleSpec]) -> None:
    project.add_source("broken.cpp", "#error no\n")
    broken = ModuleSpec("broken", (Unit("broken.cpp"),), "cpu")
    with pytest.raises(jit.CompileError, match=r"broken\.cpp"):
        jit.build_all([*specs, broken], project.tree)
    assert len(jit.build_all(specs, project.tree)) == 4


def test_copied_modules_serve_a_machine_without_a_compiler(
    project: Any, specs: list[ModuleSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = Store(tmp_path / "shipped")
    for entry in jit.build_all(specs, project.tree):
        copy = shipped.adopt(entry)
        assert copy.payload.read_bytes() == entry.payload.read_bytes()
        assert copy.manifest == entry.manifest
        assert shipped.adopt(entry) == copy
    assert sorted(path.name for path in shipped.root.iterdir() if any(path.iterdir())) == ["modules"]
    jit.user_store().clear()
    monkeypatch.setenv("MOE_JIT_PREBUILT_DIR", str(shipped.root))
    monkeypatch.setenv("CXX", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [project.value(spec) for spec in specs] == [7, 8, 9, 10]
    assert jit.build_all(specs, project.tree)[2].directory.parent.parent == shipped.root
    project.set_value(8)  # another version of the package
    with pytest.raises(jit.ToolchainError, match=rf"{shipped.root}\) has no tiny that fits: it was made by"):
        project.value(specs[0])


def test_read_only_cache_still_builds(
    project: Any,
    specs: list[ModuleSpec],
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Store, "is_writable", lambda store: store.root != cache_dir)
    with caplog.at_level(logging.WARNING):
        entries = jit.build_all(specs, project.tree)
    assert "4 modules for cpu" in caplog.text
    assert not cache_dir.exists()
    assert len({entry.payload for entry in entries}) == 4
