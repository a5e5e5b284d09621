"""How many compilers may run at once: bounded by units, cores and memory, containers included."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import psutil

from .spec import Unit

GIB = 1 << 30
_NVCC_BYTES = 3 * GIB
_HOST_BYTES = 1 * GIB
_CGROUP = Path("/sys/fs/cgroup")


def _read_numbers(path: Path) -> list[int]:
    """The numbers in a control file; empty when there is none or it says ``max``."""
    try:
        return [int(word) for word in path.read_text().split()]
    except (OSError, ValueError):
        return []


def available_cores(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may use, by affinity and by the container's CPU quota."""
    cores = len(os.sched_getaffinity(0))
    quota = _read_numbers(cgroup / "cpu.max") or [
        number for name in ("quota", "period") for number in _read_numbers(cgroup / f"cpu/cpu.cfs_{name}_us")
    ]
    if len(quota) == 2 and quota[0] > 0:
        cores = min(cores, quota[0] // quota[1])
    return max(1, cores)


def available_memory(cgroup: Path = _CGROUP) -> int:
    """Bytes that can still be used, by the machine and by the container's limit."""
    free = int(psutil.virtual_memory().available)
    for limit_file, used_file in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        limit, used = _read_numbers(cgroup / limit_file), _read_numbers(cgroup / used_file)
        if limit and used:
            free = min(free, limit[0] - used[0])
    return max(0, free)


def job_count(units: Iterable[Unit]) -> int:
    """Compilers to run at once for ``units``; MOE_JIT_MAX_JOBS replaces the bounds by cores and memory."""
    units = list(units)
    chosen = os.environ.get("MOE_JIT_MAX_JOBS", "").strip()
    if chosen:
        if not chosen.isdigit() or int(chosen) < 1:
            raise ValueError(f"MOE_JIT_MAX_JOBS: given {chosen!r}, expected a positive integer")
        bound = int(chosen)
    else:
        per_job = _NVCC_BYTES if any(unit.is_cuda for unit in units) else _HOST_BYTES
        bound = min(available_cores(), available_memory() // per_job)
    return max(1, min(len(units), bound))
