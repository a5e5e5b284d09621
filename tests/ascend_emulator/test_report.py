"""Launches: statistics, estimated times, count-only runs, identities of cores."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CLOCK = 1.8e9
HBM = 1.6e12
READ, WRITE_UB = 110, 64  # bytes of GM per cycle and core
TILE = 16384  # bytes; 64 repeats


@pytest.fixture(scope="module")
def program(compile_program: Callable[..., Path]) -> Path:
    return compile_program("report_main.cpp")


def run(program: Path, scenario: str) -> tuple[bool, str]:
    done = subprocess.run([str(program), scenario], capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), f"died with {done.returncode}: {done.stderr}"
    return done.returncode == 0, done.stdout


def report(program: Path, scenario: str) -> dict[str, Any]:
    passed, text = run(program, scenario)
    assert passed, text
    parsed: dict[str, Any] = json.loads(text.splitlines()[-1])
    return parsed


def test_statistics_of_a_stream(program: Path) -> None:
    result = report(program, "double")
    assert result["bytes"] == {"GM_UB": 4 * 16 * TILE, "UB_GM": 4 * 16 * TILE}
    assert result["vector_repeats"] == 4 * 16 * 64
    assert result["hbm_bytes"] == pytest.approx(2 * 4 * 16 * TILE, abs=4 * 128)  # buffers start inside a line
    assert result["cube_operations"] == {}
    assert [core["name"] for core in result["cores"]] == ["AIV 0", "AIV 1", "AIV 2", "AIV 3"]
    for core in result["cores"]:
        assert core["busy_seconds"]["V"] == pytest.approx(16 * 64 / CLOCK)
        assert core["busy_seconds"]["MTE2"] == pytest.approx(16 * TILE / READ / CLOCK)
        assert core["busy_seconds"]["MTE3"] == pytest.approx(16 * TILE / WRITE_UB / CLOCK)


def test_two_buffers_overlap_and_one_does_not(program: Path) -> None:
    load, compute, store = TILE / READ, 64, TILE / WRITE_UB
    overlapped = load + compute + 16 * store
    assert report(program, "double")["seconds"] == pytest.approx(overlapped / CLOCK)
    in_turns = load + 16 * (compute + store)
    assert report(program, "single")["seconds"] == pytest.approx(in_turns / CLOCK)


def test_more_blocks_than_cores_run_one_after_another(program: Path) -> None:
    wave = report(program, "double")["seconds"]  # of up to 48 blocks; here two vector cores run five
    result = report(program, "waves")
    expected = [wave, wave, 2 * wave, 2 * wave, 3 * wave]
    assert [core["seconds"] for core in result["cores"]] == pytest.approx(expected)


def test_counting_needs_no_data_and_counts_the_same(program: Path) -> None:
    counted, run_through = report(program, "counted"), report(program, "double")
    for key in ("bytes", "vector_repeats", "seconds", "cores"):
        assert counted[key] == run_through[key]


def test_large_counts(program: Path) -> None:
    result = report(program, "large")
    moved = 48 * 16384 * TILE
    assert result["bytes"] == {"GM_UB": moved, "UB_GM": moved}
    assert result["memory_seconds"] == pytest.approx(2 * moved / HBM)
    assert result["bound_seconds"] == result["memory_seconds"]
    assert 1 <= result["seconds"] / result["memory_seconds"] < 1.03  # 48 cores use the memory up
    assert all(core["busy_seconds"]["V"] < 0.1 * result["seconds"] for core in result["cores"])


def test_memory_serves_one_request_after_the_other(program: Path) -> None:
    """No request ends before all that came earlier have been served; an idle memory serves at once."""
    ends = [float(line) for line in run(program, "requests")[1].split()]
    *crowd, late = ends
    rate, size = 100, 4096  # of report_main
    assert crowd == pytest.approx([(i + 1) * size / rate for i in range(len(crowd))], abs=1)
    assert 1e6 <= late <= 1e6 + size / rate + 32


def test_time_passes_from_core_to_core(program: Path) -> None:
    result = report(program, "handover")
    assert result["bytes"] == {
        "GM_UB": 2 * 512,
        "GM_L1": 4 * (65536 + 32768 + 256),
        "L1_L0A": 512,
        "L1_L0B": 512,
        "L0C_GM": 1024,
    }
    assert result["cube_operations"] == {"f32": 2 * 16 * 16 * 8}
    assert result["cube_seconds"] == pytest.approx(2 / 24 / CLOCK)  # a fractal of floats takes two cycles
    assert result["store_seconds"] == pytest.approx(1024 / 86 / 24 / CLOCK)
    assert result["load_seconds"] == pytest.approx(result["bytes"]["GM_L1"] / READ / 24 / CLOCK)
    assert result["vector_seconds"] == 0
    assert result["own_bound_seconds"] == max(result["bound_seconds"], result["load_seconds"])
    assert result["hbm_bytes"] == pytest.approx(4 * 65536 + 1024, abs=2 * 128)
    cube, first, second = result["cores"]
    assert first["seconds"] == second["seconds"] == pytest.approx(cube["seconds"] + 512 / READ / CLOCK)


def test_barriers_can_be_left_to_the_compiler_and_events_cannot(program: Path) -> None:
    assert run(program, "no_barrier")[0]
    passed, text = run(program, "no_event")
    assert not passed
    assert "missing event MTE2_V" in text


def test_the_kernel_type_comes_first(program: Path) -> None:
    passed, text = run(program, "undeclared")
    assert not passed
    assert "KERNEL_TASK_TYPE_DEFAULT must be the first statement" in text


def test_a_launch_forgets_the_one_before(program: Path) -> None:
    passed, text = run(program, "twice")
    assert passed, text
    assert text.splitlines()[0] == "1 1"


def test_identities(program: Path) -> None:
    lines = [line.split() for line in run(program, "identities")[1].splitlines()]
    found = {(int(kind), core): [] for kind, core, *_ in lines}
    for kind, core, *values in lines:
        found[int(kind), core].append(tuple(map(int, values)))
    # block, blocks, sub block, sub blocks, ratio
    alone = [(block, 3, 0, 1, 1) for block in range(3)]
    pairs = [(core, 3, core % 2, 2, 2) for core in range(6)]
    assert found == {
        (0, "AIV"): alone,
        (1, "AIC"): alone,
        (2, "AIV"): alone,
        (3, "AIC"): alone,
        (4, "AIC"): alone,
        (4, "AIV"): alone,
        (5, "AIC"): alone,
        (5, "AIV"): pairs,
    }
