"""Runs a check as a user who does not own the files."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534


@contextmanager
def shared_directory() -> Iterator[Path]:
    """A directory that every user can enter, and only its owner may write."""
    directory = Path(tempfile.mkdtemp(prefix="moe-jit-shared-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        for path in (directory, *directory.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        shutil.rmtree(directory)


def as_another_user(directory: Path, check: Callable[[], None]) -> None:
    """Call ``check`` in a child process that may read ``directory`` and not write it.

    Root becomes nobody there; another user takes the right to write from everything below ``directory``.
    """
    if os.geteuid() != 0:
        for path in (directory, *directory.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if os.geteuid() == 0:
                os.seteuid(NOBODY)
            check()
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
