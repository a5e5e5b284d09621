"""The tuner chooses the tilings of Ascend C kernels: by the emulator's estimate, and by events on an NPU."""

from __future__ import annotations

import ctypes
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.cann import Cann

import moe_jit
from moe_jit import use_backend
from moe_jit.ascend import emulator_report, kernel_calls, kernel_matmul, tiling, tuning
from moe_jit.ascend.tiling import Tile
from moe_jit.autotuner import state
from moe_jit.autotuner.buckets import buckets
from moe_jit.backends import EMULATOR

K, N, GROUPS = 96, 192, 2
LIMIT = 64
I8 = torch.int8


@pytest.fixture(autouse=True)
def fresh_tuner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MOE_JIT_AUTOTUNE_CACHE", raising=False)
    monkeypatch.setattr(state, "STATE", state.State())
    monkeypatch.setattr(tuning, "_choices", {})
    monkeypatch.setattr(tuning, "TUNE_MAX_ROWS", LIMIT)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[Tile]:
    """The tiles of the calls' own launches."""
    tiles: list[Tile] = []
    chosen = kernel_matmul._tile

    def record(*args: Any) -> Tile:
        tiles.append(chosen(*args))
        return tiles[-1]

    monkeypatch.setattr(kernel_matmul, "_tile", record)
    return tiles


def multiply(rows: int = 20, **changes: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    x = torch.randint(-128, 128, (rows, K), dtype=I8, generator=generator)
    weight = torch.randint(-128, 128, (GROUPS, K, N), dtype=I8, generator=generator)
    counts = torch.tensor([rows // 2, rows - rows // 2])
    options = {"group_list": counts, "group_list_type": 1, "group_type": 0, "split_item": 3} | changes
    (y,) = moe_jit.npu_grouped_matmul([x], [weight], output_dtype=torch.int32, **options)
    return y


def tiles_for(rows: int, cores: int = 2) -> tuple[Tile, ...]:
    return tiling.tiles_to_measure("i8_i32", rows, K, N, GROUPS, cores)


def poor_default(monkeypatch: pytest.MonkeyPatch) -> Tile:
    """A default that others beat: its depth of 32 loads each operand in three steps."""
    poor = Tile(16, 64, 32, 32)
    plain = tiling.tiles_to_measure
    monkeypatch.setattr(tiling, "tiles_to_measure", lambda *a, **b: (poor, *plain(*a, **b)))
    return poor


def layers(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text())["layers"]
    return found


@pytest.mark.ascend_emulator
def test_the_first_call_measures_every_bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poor = poor_default(monkeypatch)
    on_cpu = multiply()
    path = tmp_path / "tactics.json"
    with use_backend(EMULATOR, cores=2), moe_jit.autotune(cache=path), emulator_report() as report:
        assert torch.equal(multiply(), on_cpu)
    assert len(report.launches) == 1, "measuring is nobody's report"
    (layer,) = layers(path)
    assert layer["key"]["operation"] == "npu_grouped_matmul"
    assert layer["key"]["cores"] == 2
    assert [int(bucket) for bucket in layer["buckets"]] == list(buckets(LIMIT))
    for found in layer["buckets"].values():
        assert found["default"] == asdict(poor)
        assert found["tactic"] != found["default"]
        assert found["microseconds"] < found["default_microseconds"]


@pytest.mark.ascend_emulator
def test_later_calls_use_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: list[Tile]
) -> None:
    poor = poor_default(monkeypatch)
    path = tmp_path / "tactics.json"
    with use_backend(EMULATOR, cores=2):
        multiply()
        with moe_jit.autotune(cache=path):
            multiply()
            multiply(33)
        multiply()
        monkeypatch.setattr(state, "STATE", state.State())
        multiply()
        with moe_jit.autotune(cache=path, tune=False):
            pass
        multiply()
        with use_backend(EMULATOR, cores=3):
            multiply()
    before, inside, other_rows, after, forgotten, loaded, other_chip = used
    assert before == forgotten == other_chip == poor
    assert inside == after == loaded != poor
    assert other_rows != poor


@pytest.mark.ascend_emulator
def test_results_are_those_of_the_cpu_and_not_slower(used: list[Tile]) -> None:
    for rows in (1, 17, LIMIT, 3 * LIMIT):
        on_cpu = multiply(rows)
        with use_backend(EMULATOR, cores=2):
            with emulator_report() as default:
                multiply(rows)
            with moe_jit.autotune(), emulator_report() as tuned:
                assert torch.equal(multiply(rows), on_cpu)
        assert tuned.seconds <= default.seconds
        assert used[-1] in tiles_for(rows)


@pytest.mark.ascend_emulator
def test_a_tile_that_fails_is_not_considered(
    monkeypatch: pytest.MonkeyPatch, used: list[Tile], caplog: pytest.LogCaptureFixture
) -> None:
    plain = tiling.tiles_to_measure
    impossible = Tile(128, 256, 4096, 128)

    def with_impossible(*args: Any, **kwargs: Any) -> tuple[Tile, ...]:
        default, *others = plain(*args, **kwargs)
        return default, impossible, *others

    monkeypatch.setattr(tiling, "tiles_to_measure", with_impossible)
    with use_backend(EMULATOR, cores=2), caplog.at_level(logging.WARNING), moe_jit.autotune():
        multiply()
    assert "is not considered, it failed" in caplog.text
    assert "bytes of L1" in caplog.text
    assert used[-1] in plain("i8_i32", 20, K, N, GROUPS, 2)


@pytest.mark.ascend_emulator
def test_other_operators_are_tuned_too(tmp_path: Path) -> None:
    path, rows = tmp_path / "tactics.json", 24
    x = torch.randint(-128, 128, (rows, K), dtype=I8)
    counts = torch.tensor([10, 14])
    scaled = torch.randn(rows, 2 * K, dtype=torch.bfloat16)

    columns = 256
    weight = torch.randint(-128, 128, (GROUPS, K, columns), dtype=I8)

    def calls() -> tuple[torch.Tensor, ...]:
        y = moe_jit.npu_grouped_matmul_finalize_routing(
            x,
            weight,
            counts,
            scale=torch.full((GROUPS, columns), 0.5),
            pertoken_scale=torch.full((rows,), 0.25),
            shared_input=torch.ones(4, columns, dtype=torch.bfloat16),
            logit=torch.full((rows,), 2.0),
            row_index=torch.arange(rows) % 8,
            output_bs=8,
        )
        return y, *moe_jit.npu_dequant_swiglu_quant(scaled, group_index=counts, quant_mode=1)

    on_cpu = calls()
    with use_backend(EMULATOR, cores=2), moe_jit.autotune(cache=path):
        for result, expected in zip(calls(), on_cpu, strict=True):
            assert torch.equal(result, expected)
    operations = {layer["key"]["operation"] for layer in layers(path)}
    assert operations == {"npu_grouped_matmul_finalize_routing", "npu_dequant_swiglu_quant"}
    for layer in layers(path):
        assert {int(bucket) for bucket in layer["buckets"]} == set(buckets(LIMIT))


@pytest.mark.ascend_emulator
def test_expected_rows_keep_their_meaning(tmp_path: Path, used: list[Tile]) -> None:
    """tuning_config says how high a tile is; only the width is left to measure."""
    path = tmp_path / "tactics.json"
    with use_backend(EMULATOR, cores=2), moe_jit.autotune(cache=path):
        multiply(LIMIT, tuning_config=[5])
        multiply(LIMIT)
    assert used[0].base_m == 16
    first, second = layers(path)
    heights = {bucket["tactic"]["base_m"] for bucket in first["buckets"].values()}
    hints = [layer["key"]["expected_rows"] for layer in (first, second)]
    assert set(hints) == {5, None}
    assert heights == {16} or hints[0] is None


# ---- candidates and rows to measure with


@pytest.mark.parametrize("rows", [1, 7, 100, 1000, 5000])
def test_what_a_bucket_measures_is_a_candidate_of_its_numbers(rows: int) -> None:
    from moe_jit.autotuner.buckets import round_up

    for cores in (2, 24):
        assert set(tiles_for(round_up(rows), cores)) <= set(tiles_for(rows, cores))
        at = [tiling.batches_to_measure(96, r, 2, cores) for r in (round_up(rows), rows)]
        assert set(at[0]) <= set(at[1])


@pytest.mark.parametrize(("rows", "groups"), [(1, 1), (7, 3), (100, 7), (3, 64)])
@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_group_lists_hold_all_rows(rows: int, groups: int, skew: float) -> None:
    counts = tuning.counts(rows, groups, skew)
    assert sum(counts) == rows
    assert min(counts) >= 0
    if not skew:
        assert max(counts) - min(counts) <= 1
    like = torch.zeros(groups, dtype=torch.int64)
    pairs = torch.zeros(groups, 2, dtype=torch.int64)
    ends = torch.tensor(counts).cumsum(0)
    assert torch.equal(tuning.group_list_like(like, 0, rows, skew), ends)
    assert torch.equal(tuning.group_list_like(like, 1, rows, skew), torch.tensor(counts))
    assert tuning.group_list_like(pairs, 2, rows, skew)[:, 1].tolist() == counts


def test_random_rows_leave_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    for dtype in (I8, torch.int32, torch.bfloat16):
        rows = tuning.rows_like(torch.empty(3, 8, dtype=dtype), 50, "npu")
        assert rows.shape == (50, 8)
        assert rows.float().std() > 0.5
    assert torch.equal(torch.random.get_rng_state(), before)


# ---- an NPU


class Events:
    """The events of a chip on which a launch takes ``times(width of its tile)`` milliseconds."""

    def __init__(self, cann: Cann, times: Callable[[int], float]) -> None:
        self._cann, self._times = cann, times

    def __call__(self, enable_timing: bool) -> Any:
        assert enable_timing
        return SimpleNamespace(
            record=lambda: None, synchronize=lambda: None, elapsed_time=lambda end: self._times(self._width())
        )

    def _width(self) -> int:
        address = self._cann.launches[-1][-1]
        return int((ctypes.c_int32 * 20).from_address(address)[5])


def launch_on_npu(rows: int) -> None:
    counts = torch.tensor([rows // 2, rows - rows // 2])
    y = torch.zeros(rows, N, dtype=torch.int32)
    tensors = ([torch.zeros(rows, K, dtype=I8)], [torch.zeros(GROUPS, K, N, dtype=I8)])
    settings = (1, 0, 1, 0, False)  # integers, groups of rows, counts, no activation, not transposed
    kernel_calls.FUNCTIONS["grouped_matmul"](
        "npu", *tensors, None, None, None, None, None, None, counts, [y], *settings
    )


@pytest.fixture
def npu_events(cann: Cann, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], float]], None]:
    monkeypatch.setattr(tuning, "_FLUSHED_BYTES", 64)
    monkeypatch.setattr(tuning, "_REPEATS", 1)

    def install(times: Callable[[int], float]) -> None:
        monkeypatch.setattr(sys.modules["torch_npu"].npu, "Event", Events(cann, times), raising=False)

    return install


def test_an_npu_measures_with_events(cann: Cann, npu_events: Any, used: list[Tile], tmp_path: Path) -> None:
    npu_events(lambda width: {256: 3.0, 128: 2.0, 64: 1.0}[width])
    path = tmp_path / "tactics.json"
    with moe_jit.autotune(cache=path):
        launch_on_npu(20)
    made = len(cann.launches)
    launch_on_npu(20)
    launch_on_npu(31)
    assert len(cann.launches) == made + 2, "outside the context nothing is measured"
    assert [tile.base_n for tile in used] == [64, 64, 64]
    (layer,) = layers(path)
    assert layer["buckets"]["32"]["microseconds"] == 1000
    assert layer["key"]["gpu"] == "npu"


def test_during_a_capture_nothing_is_measured(
    cann: Cann, npu_events: Any, used: list[Tile], monkeypatch: pytest.MonkeyPatch
) -> None:
    npu_events(lambda width: 1000.0 / width)
    fake = sys.modules["torch_npu"].npu
    monkeypatch.setattr(fake, "is_current_stream_capturing", lambda: True, raising=False)
    with moe_jit.autotune():
        launch_on_npu(20)
        assert len(cann.launches) == 1
        monkeypatch.setattr(fake, "is_current_stream_capturing", lambda: False)
        launch_on_npu(20)
    assert len(cann.launches) > 2
    assert used[-1].base_n == max(tile.base_n for tile in tiles_for(20, 20))
