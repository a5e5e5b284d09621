"""One cache directory under a full disk, and between versions of the package and between users."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.users import as_another_user, shared_directory

from moe_jit import jit
from moe_jit.jit import SourceTree, loader, store


def published(cache_dir: Path) -> list[Path]:
    return [path for kind in ("modules", "objects") for path in (cache_dir / kind).glob("*/*")]


@pytest.mark.parametrize("full_at", [1, 2])
def test_full_disk_leaves_nothing_half_published(
    project: Any, cache_dir: Path, monkeypatch: pytest.MonkeyPatch, full_at: int
) -> None:
    """The disk fills up while the object (1) or the module (2) is published."""
    write, writes = Path.write_text, []

    def write_until_full(path: Path, text: str, *args: Any, **options: Any) -> int:
        if path.name == "manifest.json":
            writes.append(path)
            if len(writes) == full_at:
                write(path, text[: len(text) // 2], *args, **options)
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write(path, text, *args, **options)

    monkeypatch.setattr(Path, "write_text", write_until_full)
    with pytest.raises(OSError, match="No space left on device"):
        project.value()
    assert not list((cache_dir / "modules").glob("*"))
    assert not list((cache_dir / "tmp").iterdir())
    assert len(published(cache_dir)) == 2 * (full_at - 1)
    assert project.value() == 7  # there is room again
    assert project.compilations == (2 if full_at == 1 else 1)  # an object that was published is kept


def test_two_versions_of_the_package_share_a_cache(project: Any, tmp_path: Path) -> None:
    """Each finds its own modules, and neither removes or recompiles the other's."""
    newer = tmp_path / "newer"
    shutil.copytree(project.root, newer)
    (newer / "include" / "moe_jit" / "value.h").write_text("#pragma once\nconstexpr int kValue = 9;\n")

    def value(root: Path) -> int:
        loader._modules.clear()
        return int(jit.load(project.spec, SourceTree(root))["value"]())

    for _ in range(2):
        assert value(project.root) == 7
        assert value(newer) == 9
    assert project.compilations == 2


def test_same_version_at_another_path_compiles_nothing(project: Any, tmp_path: Path) -> None:
    assert project.value() == 7
    moved = tmp_path / "moved"
    project.root.rename(moved)
    loader._modules.clear()
    assert jit.load(project.spec, SourceTree(moved))["value"]() == 7
    assert project.compilations == 1


def test_cache_of_another_user_is_read_and_not_written() -> None:
    with shared_directory() as directory:
        cache = store.Store(directory / "cache")
        with cache.stage() as stage, cache.lock("name"):
            (stage / "unit.o").write_bytes(b"compiled")
            cache.publish(stage, "objects", "name", {})

        def check() -> None:
            assert not cache.is_writable()
            entry = cache.find("objects", "name")
            assert entry is not None
            assert entry.payload.read_bytes() == b"compiled"
            with cache.lock("name"):  # no wait, no error
                assert cache.find("objects", "another") is None
            with pytest.raises(PermissionError), cache.stage():
                pass

        as_another_user(directory, check)
        assert sorted(path.name for path in (directory / "cache").iterdir()) == ["locks", "objects", "tmp"]


def test_private_modules_beside_a_cache_of_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    with shared_directory() as directory:
        cache = store.Store(directory / "cache")
        with cache.stage():
            pass
        monkeypatch.setenv("MOE_JIT_CACHE_DIR", str(cache.root))

        def check() -> None:
            loader._private_store.cache_clear()
            chosen = loader._store_to_write("a module")
            assert chosen.root != cache.root
            assert chosen.is_writable()

        as_another_user(directory, check)
