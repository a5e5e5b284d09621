"""The file: readable, merged, atomic; what cannot be used is reported and never does harm."""

from __future__ import annotations

import errno
import json
import logging
import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapes import problem
from support.users import as_another_user, shared_directory

from moe_jit.autotuner import store
from moe_jit.autotuner.key import Key, key_of
from moe_jit.autotuner.store import load, save
from moe_jit.autotuner.table import Measurement, Table

HEADER = '{"format": "moe_jit autotune", "version": 1, "layers": ['


def layer(*buckets: int, tile: int = 16) -> dict[int, Measurement]:
    return {b: Measurement({"tile_tokens": tile}, {"tile_tokens": 8}, 10.5, 12.25, 0.0) for b in buckets}


def table(name: str = "a", *buckets: int, tile: int = 16) -> Table:
    return Table({Key.of({"name": name}): layer(*(buckets or (1, 8)), tile=tile)})


PLAIN = st.none() | st.booleans() | st.integers() | st.text()
NAMED = st.dictionaries(st.text(), PLAIN, max_size=3)
TIMES = st.floats(0, 1e9)
MEASUREMENTS = st.builds(Measurement, NAMED, NAMED, TIMES, TIMES, TIMES)
TABLES = st.dictionaries(
    NAMED.map(Key.of), st.dictionaries(st.integers(1, 10**6), MEASUREMENTS, min_size=1), max_size=3
).map(Table)


@given(TABLES)
def test_what_is_saved_is_loaded(tmp_path_factory: pytest.TempPathFactory, known: Table) -> None:
    path = tmp_path_factory.mktemp("store") / "tactics.json"
    assert save(path, known)
    assert load(path) == known


def test_the_file_is_readable(tmp_path: Path) -> None:
    path = tmp_path / "new" / "tactics.json"
    save(path, Table({key_of(problem()): layer(1, 8, 256)}))
    content = json.loads(path.read_text())
    assert (content["format"], content["version"]) == ("moe_jit autotune", 1)
    (entry,) = content["layers"]
    assert entry["key"]["hidden_size"] == 2048
    assert entry["key"]["gpu"] == "NVIDIA H200"
    assert list(entry["buckets"]) == ["1", "8", "256"]
    assert entry["buckets"]["8"]["tactic"] == {"tile_tokens": 16}
    assert len(path.read_text().splitlines()) < 12, "a line for each bucket"


def test_saving_merges_with_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "tactics.json"
    save(path, table("a", 1, 8))
    save(path, table("b", 2))
    save(path, table("a", 8, 16, tile=64))
    expected = table("a", 1)
    expected.merge(table("a", 8, 16, tile=64))
    expected.merge(table("b", 2))
    assert load(path) == expected


def test_nothing_new_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "tactics.json"
    save(path, table())
    before = path.stat()
    assert save(path, table())
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def _save_many(path: Path, writer: int) -> None:
    for number in range(10):
        save(path, table(f"{writer} {number}"))


def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tactics.json"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_save_many, args=(path, writer)) for writer in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert len(load(path).layers) == 30


def test_a_missing_file_is_no_news(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert not load(tmp_path / "none.json")
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


DAMAGED = {
    "truncated": HEADER + '{"key": {"a": 1}, "buck',
    "empty": "",
    "no layers": '{"format": "moe_jit autotune", "version": 1}',
    "layers not a list": '{"format": "moe_jit autotune", "version": 1, "layers": 3}',
    "no buckets": HEADER + '{"key": {"a": 1}}]}',
    "nested key": HEADER + '{"key": {"a": {"b": 1}}, "buckets": {}}]}',
    "bucket zero": HEADER
    + '{"key": {}, "buckets": {"0": {"tactic": {}, "default": {}, "microseconds": 1,'
    + ' "default_microseconds": 1, "skew": 0}}}]}',
    "not a time": HEADER
    + '{"key": {}, "buckets": {"1": {"tactic": {}, "default": {}, "microseconds": NaN,'
    + ' "default_microseconds": 1, "skew": 0}}}]}',
    "older": '{"format": "moe_jit autotune", "version": 0, "layers": []}',
}
FOREIGN = {
    "another program's": '{"_metadata": {"flashinfer_version": "0.6.18"}}',
    "a list": "[1, 2]",
    "a number": "3",
    "text": "This is my diary.\n",
    "binary": b"\x80\x04\x95pickle".decode("latin-1"),
    "newer": '{"format": "moe_jit autotune", "version": 2, "tables": {}}',
    "version of another type": '{"format": "moe_jit autotune", "version": "1"}',
}


@pytest.mark.parametrize("text", [*DAMAGED.values(), *FOREIGN.values()], ids=[*DAMAGED, *FOREIGN])
def test_an_unusable_file_is_reported_and_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tmp_path / "tactics.json"
    path.write_text(text, encoding="latin-1")
    assert not load(path)
    assert f"ignoring the autotune file {path}" in caplog.text
    assert path.read_text(encoding="latin-1") == text


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_or_older_file_of_ours_is_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "tactics.json"
    path.write_text(text)
    assert save(path, table())
    assert load(path) == table()


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN)
def test_a_foreign_or_newer_file_is_never_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tmp_path / "tactics.json"
    path.write_text(text, encoding="latin-1")
    assert not save(path, table())
    assert "was not written" in caplog.text
    assert path.read_text(encoding="latin-1") == text


def test_every_truncation_of_a_file_is_survived(tmp_path: Path) -> None:
    path = tmp_path / "tactics.json"
    save(path, table("a", 1, 2))
    data = path.read_bytes()
    for length in range(0, len(data) - 1, 7):
        path.write_bytes(data[:length])
        assert load(path) == Table()
    path.write_bytes(data[: len(data) // 2])
    assert save(path, table("b"))
    assert load(path) == table("b")


@pytest.mark.parametrize("name", ["fsync", "fdopen"])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "tactics.json"
    save(path, table("a"))
    monkeypatch.setattr(store.os, name, full)
    assert not save(path, table("b"))
    assert "No space left on device" in caplog.text
    assert load(path) == table("a")
    assert {p.name for p in tmp_path.iterdir()} <= {"tactics.json", "tactics.json.lock"}


def test_a_directory_of_another_user(caplog: pytest.LogCaptureFixture) -> None:
    with shared_directory() as directory:
        path = directory / "tactics.json"
        assert save(path, table("a"))

        def check() -> None:
            assert not save(path, table("b"))
            assert "was not written" in caplog.text
            assert load(path) == table("a")

        as_another_user(directory, check)
        assert load(path) == table("a")


def test_a_path_that_cannot_be_a_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert not save(tmp_path / "file" / "tactics.json", table())
    assert not save(tmp_path, table())
    assert not load(tmp_path)
    assert caplog.text.count("was not written") == 2


def test_where_locks_do_not_work_it_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unsupported(self: object) -> None:
        raise NotImplementedError("no locks here")

    monkeypatch.setattr(store.FileLock, "acquire", unsupported)
    assert save(tmp_path / "tactics.json", table())
    assert "without a lock" in caplog.text
    assert load(tmp_path / "tactics.json") == table()
