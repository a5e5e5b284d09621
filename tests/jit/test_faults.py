"""Builds that race, die, or meet a broken cache."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from moe_jit import jit
from moe_jit.jit import keys, loader, store, toolchain

_fork = multiprocessing.get_context("fork")


def _module_name(project: Any) -> str:
    return keys.module_name(project.spec, project.tree, toolchain.find_toolchain("cpu"))


def _load_in_child(project: Any, barrier: Barrier | None, results: Any) -> None:
    if barrier:
        barrier.wait(30)
    results.put(project.value())


def test_eight_processes_compile_once(project: Any) -> None:
    barrier, results = _fork.Barrier(8), _fork.Queue()
    children = [_fork.Process(target=_load_in_child, args=(project, barrier, results)) for _ in range(8)]
    for child in children:
        child.start()
    assert [results.get(timeout=60) for _ in children] == [7] * 8
    for child in children:
        child.join(30)
        assert child.exitcode == 0
    assert len(project.calls) == 2


def test_eight_threads_compile_once(project: Any) -> None:
    loader._modules.clear()
    modules: list[Any] = []
    tree = project.tree
    threads = [
        threading.Thread(target=lambda: modules.append(jit.load(project.spec, tree))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(modules) == 8
    assert all(module is modules[0] for module in modules)
    assert len(project.calls) == 2


def test_killed_compiler_is_reported_and_leaves_nothing(project: Any, cache_dir: Path) -> None:
    (project.control / "die").touch()
    with pytest.raises(jit.CompileError, match="killed by SIGKILL") as caught:
        project.value()
    assert "MOE_JIT_MAX_JOBS" in str(caught.value)
    assert not list(cache_dir.glob("modules/*"))
    assert not list(cache_dir.glob("objects/*"))
    assert not list(cache_dir.glob("tmp/*"))
    (project.control / "die").unlink()
    assert project.value() == 7


def test_killed_builder_blocks_nobody(project: Any, cache_dir: Path, wait_until: Any) -> None:
    hold = project.control / "hold"
    hold.touch()
    child = _fork.Process(target=_load_in_child, args=(project, None, _fork.Queue()))
    child.start()
    wait_until(lambda: project.compilations == 1)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join(30)
    hold.unlink()
    assert list(cache_dir.glob("tmp/*")), "the killed process should leave its half-made directory"
    assert list(cache_dir.glob("locks/*"))
    assert project.value() == 7
    assert project.compilations == 2


def test_sources_edited_during_a_build_do_not_poison_the_cache(project: Any, wait_until: Any) -> None:
    hold = project.control / "hold"
    hold.touch()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(project.value)
        wait_until(lambda: project.compilations == 1)
        project.set_value(8)
        hold.unlink()
        with pytest.raises(jit.CompileError, match="sources changed"):
            future.result(30)
    project.set_value(7)
    assert project.value() == 7
    project.set_value(8)
    assert project.value() == 8


def _replace(path: Path, content: bytes) -> None:
    """Give ``path`` another content without touching the file that this process has mapped."""
    other = path.with_name("other")
    other.write_bytes(content)
    other.replace(path)


@pytest.mark.parametrize("file", ["module.so", "manifest.json"])
def test_truncated_module_is_rebuilt_with_a_warning(
    project: Any, cache_dir: Path, caplog: pytest.LogCaptureFixture, file: str
) -> None:
    assert project.value() == 7
    (path,) = cache_dir.glob(f"modules/*/{file}")
    whole = path.read_bytes()
    _replace(path, whole[: len(whole) // 2])
    assert project.value() == 7
    assert sum("damaged cache entry" in record.message for record in caplog.records) == 1
    (module,) = cache_dir.glob("modules/*/module.so")
    assert module.stat().st_size > len(whole) // 2
    assert jit.user_store().find("modules", module.parent.name)
    assert project.compilations == 1  # the object was intact


def test_flipped_bit_is_noticed(project: Any, cache_dir: Path) -> None:
    assert project.value() == 7
    (path,) = cache_dir.glob("modules/*/module.so")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    _replace(path, bytes(content))
    assert jit.user_store().find("modules", path.parent.name) is None
    assert project.value() == 7
    assert len(project.calls) == 3


def test_truncated_object_is_compiled_again(project: Any, cache_dir: Path) -> None:
    assert project.value() == 7
    (module,) = cache_dir.glob("modules/*/module.so")
    module.unlink()
    (unit,) = cache_dir.glob("objects/*/unit.o")
    _replace(unit, unit.read_bytes()[:100])
    assert project.value() == 7
    assert project.compilations == 2


def test_half_written_entry_and_leftovers_are_survived(project: Any, cache_dir: Path) -> None:
    half = cache_dir / "modules" / _module_name(project)
    half.mkdir(parents=True)
    (half / "module.so").write_bytes(b"\x7fELF")
    old, new = cache_dir / "tmp" / "old", cache_dir / "tmp" / "new"
    for leftover in (old, new):
        leftover.mkdir(parents=True)
        (leftover / "unit.o").write_bytes(b"")
    os.utime(old, (1_000_000_000, 1_000_000_000))
    assert project.value() == 7
    assert not old.exists()
    assert new.exists(), "it may belong to a build that still runs"


def test_stale_lock_file_blocks_nobody(project: Any, cache_dir: Path) -> None:
    lock = cache_dir / "locks" / f"{_module_name(project)}.lock"
    lock.parent.mkdir(parents=True)
    lock.write_text("999999\nanother-host\n")
    start = time.monotonic()
    assert project.value() == 7
    assert time.monotonic() - start < 10


def test_lock_that_is_never_released_is_passed_over(
    project: Any, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MOE_JIT_LOCK_TIMEOUT", "0.2")
    lock = cache_dir / "locks" / f"{_module_name(project)}.lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        assert project.value() == 7
    assert "building without it" in caplog.text


@pytest.mark.parametrize("text", ["soon", "-1", "nan"])
def test_wrong_lock_timeout(project: Any, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("MOE_JIT_LOCK_TIMEOUT", text)
    with pytest.raises(ValueError, match=f"MOE_JIT_LOCK_TIMEOUT: given '{text}'"):
        project.value()


def test_read_only_cache_compiles_privately_with_a_warning(
    project: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A path below a regular file cannot be written by anybody, root included."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("MOE_JIT_CACHE_DIR", str(tmp_path / "file" / "cache"))
    loader._private_store.cache_clear()
    assert project.value() == 7
    assert "is not writable" in caplog.text
    assert "MOE_JIT_CACHE_DIR" in caplog.text
    assert not jit.stats()[-1].path.is_relative_to(tmp_path)


def test_read_only_cache_is_read(
    project: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert project.value() == 7
    calls = project.calls
    monkeypatch.setattr(store.Store, "is_writable", lambda self: False)
    assert project.value() == 7
    assert project.calls == calls
    assert "not writable" not in caplog.text


def test_objects_of_a_read_only_cache_are_used(
    project: Any, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert project.value() == 7
    (module,) = cache_dir.glob("modules/*/module.so")
    module.unlink()
    real = store.Store.is_writable
    monkeypatch.setattr(store.Store, "is_writable", lambda self: self.root != cache_dir and real(self))
    loader._private_store.cache_clear()
    assert project.value() == 7
    assert project.compilations == 1


def test_losing_the_race_to_publish_keeps_the_winner(tmp_path: Path) -> None:
    cache = store.Store(tmp_path)
    for content in (b"first", b"second"):
        with cache.stage() as stage:
            (stage / "unit.o").write_bytes(content)
            entry = cache.publish(stage, "objects", "name", {})
    assert entry.payload.read_bytes() == b"first"
    assert not list((tmp_path / "tmp").iterdir())


def test_entries_appear_whole(tmp_path: Path, wait_until: Any) -> None:
    """A reader without a lock sees an entry either complete or not at all."""
    cache = store.Store(tmp_path)
    names = [str(number) for number in range(100)]

    def publish_all() -> None:
        for name in names:
            with cache.stage() as stage:
                (stage / "unit.o").write_bytes(os.urandom(1 << 18))
                cache.publish(stage, "objects", name, {})

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(publish_all)
        for name in names:
            wait_until((tmp_path / "objects" / name).exists)
            assert store._read_entry(tmp_path / "objects" / name, "objects")
        future.result(30)


def test_published_entries_follow_the_umask(project: Any, cache_dir: Path) -> None:
    """A cache that several users share must stay readable for all of them."""
    previous = os.umask(0o022)
    try:
        assert project.value() == 7
    finally:
        os.umask(previous)
    (module,) = cache_dir.glob("modules/*/module.so")
    assert module.parent.stat().st_mode & 0o777 == 0o755
    assert module.stat().st_mode & 0o444 == 0o444


def test_warnings_reach_a_program_without_logging_set_up() -> None:
    logger = logging.getLogger("moe_jit.jit")
    assert logger.isEnabledFor(logging.WARNING)
    assert logger.propagate
