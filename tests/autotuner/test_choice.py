"""What a call gets: look-up order, contexts, captures, threads. Profiling runs on a fake device."""

from __future__ import annotations

import dataclasses
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from fake_device import FakeDevice, prefers
from shapes import problem

import moe_jit
from moe_jit.autotuner import Choice, choose, generation, state, store
from moe_jit.autotuner.buckets import buckets
from moe_jit.autotuner.key import key_of
from moe_jit.autotuner.table import Measurement, Table
from moe_jit.plan import Tactic, candidates, default_tactic
from moe_jit.problem import Device, MoEProblem

DEFAULT, OTHER = (tactic.tile_tokens for tactic in candidates(problem())[:2])


class Layer:
    """Calls of one layer shape; ``devices`` are the fake devices that were measured on, with their skew."""

    def __init__(self, best: int = OTHER, **changes: Any) -> None:
        self._best, self._changes = best, changes
        self.devices: list[tuple[FakeDevice, float]] = []

    def problem(self, num_tokens: int = 16, **changes: Any) -> MoEProblem:
        return problem(num_tokens=num_tokens, **(self._changes | changes))

    def runner(self, skew: float) -> FakeDevice:
        self.devices.append((FakeDevice(prefers(self._best)), skew))
        return self.devices[-1][0]

    def tile(self, num_tokens: int = 16, **changes: Any) -> int:
        return choose(self.problem(num_tokens, **changes), self.runner).tactic.tile_tokens


@pytest.fixture(autouse=True)
def capturing(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    def set_capturing(value: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: value)

    set_capturing(False)
    return set_capturing


def test_without_a_context_the_default_is_used_and_nothing_measured() -> None:
    layer = Layer()
    for num_tokens in (1, 16, 1000, 100_000):
        call = layer.problem(num_tokens)
        assert layer.tile(num_tokens) == default_tactic(call).tile_tokens
    assert not layer.devices


def test_the_first_call_measures_every_bucket_once() -> None:
    layer = Layer()
    with moe_jit.autotune():
        assert layer.tile() == OTHER
        assert layer.tile(4000) == layer.tile(4096)
        layer.tile(do_finalize=False)
        layer.tile(has_replay=True)
    ((device, skew),) = layer.devices
    assert {bucket for bucket, _ in device.measured} == set(buckets(8192))
    assert skew == 0
    assert layer.tile() == OTHER, "and it holds outside the context"


def test_a_smaller_limit_needs_nothing_new_and_a_larger_one_the_difference() -> None:
    layer = Layer()
    with moe_jit.autotune():
        layer.tile(tune_max_num_tokens=1024)
        layer.tile(tune_max_num_tokens=64)
        assert len(layer.devices) == 1
        layer.tile(tune_max_num_tokens=2048)
    assert {bucket for bucket, _ in layer.devices[1][0].measured} == {1280, 1536, 1792, 2048}


def test_beyond_the_limit_the_default_is_used_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    layer = Layer()
    with moe_jit.autotune():
        layer.tile(tune_max_num_tokens=64)
    for num_tokens in (65, 5000, 100_000):
        assert layer.tile(num_tokens) == default_tactic(layer.problem(num_tokens)).tile_tokens
    assert caplog.text.count("is tuned, but not for 65 tokens") == 1
    assert caplog.text.count("but not for") == 1


def test_layers_do_not_share() -> None:
    first, second = Layer(OTHER), Layer(DEFAULT, intermediate_size=1024)
    with moe_jit.autotune():
        assert first.tile() == OTHER
        assert second.tile() == default_tactic(second.problem()).tile_tokens
        assert first.tile() == OTHER
    assert len(first.devices) == len(second.devices) == 1


def test_a_default_that_was_not_beaten_is_that_of_the_number_of_tokens() -> None:
    """The heuristic may take another tile inside a bucket than at its end."""
    layer = Layer(best=-1)
    with moe_jit.autotune():
        for num_tokens in range(1, 600, 7):
            assert layer.tile(num_tokens) == default_tactic(layer.problem(num_tokens)).tile_tokens


def test_a_tuned_tactic_is_always_a_candidate() -> None:
    """Also where the bucket's end has other candidates, of less exact accumulation for example."""
    for tile in {tactic.tile_tokens for n in buckets(8192) for tactic in candidates(problem(num_tokens=n))}:
        layer = Layer(best=tile, top_k=1 + tile % 5)
        with moe_jit.autotune():
            for num_tokens in (*range(1, 64), *range(64, 8192, 97)):
                chosen = Tactic(layer.tile(num_tokens))
                assert chosen in candidates(layer.problem(num_tokens))


def test_measurements_against_another_default_are_made_again() -> None:
    layer = Layer()
    key = key_of(layer.problem())
    old = Measurement({"tile_tokens": OTHER}, {"tile_tokens": 7}, 1.0, 2.0, 0.0)
    state.STATE.loaded.update(key, {16: old})
    assert layer.tile() == DEFAULT
    with moe_jit.autotune():
        assert layer.tile() == OTHER
    assert 16 in {bucket for bucket, _ in layer.devices[0][0].measured}


def test_measured_here_comes_before_loaded() -> None:
    layer = Layer()
    key, plain = key_of(layer.problem()), {"tile_tokens": DEFAULT}
    loaded = Measurement({"tile_tokens": OTHER}, plain, 1.0, 2.0, 0.0)
    measured = Measurement(plain, plain, 2.0, 2.0, 0.0)
    state.STATE.loaded.update(key, {16: loaded})
    assert layer.tile() == OTHER
    state.STATE.table.update(key, {16: measured})
    assert layer.tile() == DEFAULT


def test_generation_changes_when_choices_may() -> None:
    layer = Layer()
    before = choose(layer.problem(), layer.runner).generation
    assert before == generation() == generation()
    with moe_jit.autotune():
        inside = choose(layer.problem(), layer.runner).generation
        assert inside == generation() != before
        assert choose(layer.problem(32), layer.runner).generation == inside
    assert generation() == inside, "leaving changes nothing"


def test_the_cpu_has_nothing_to_tune_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    layer = Layer(device=Device("cpu"))
    layer.tile()
    assert not caplog.text
    with moe_jit.autotune():
        layer.tile()
        layer.tile(32)
    assert not layer.devices
    assert caplog.text.count("the CPU has one tactic, there is nothing to tune") == 1


class TestCapture:
    def test_a_miss_uses_the_default_says_so_once_and_is_made_good(
        self, capturing: Callable[[bool], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        layer = Layer()
        with moe_jit.autotune():
            capturing(True)
            choice = choose(layer.problem(), layer.runner)
            assert choice.tactic.tile_tokens == layer.tile(32) == DEFAULT
            assert choice.generation != generation(), "so that the next call asks again"
            assert not layer.devices
            assert caplog.text.count("cannot be inside a graph capture") == 1
            capturing(False)
            assert layer.tile() == OTHER

    def test_a_hit_is_used(self, capturing: Callable[[bool], None], caplog: pytest.LogCaptureFixture) -> None:
        layer = Layer()
        with moe_jit.autotune():
            layer.tile()
            capturing(True)
            choice = choose(layer.problem(), layer.runner)
        assert choice == Choice(Tactic(OTHER), generation())
        assert not caplog.text

    def test_without_tuning_it_is_no_news(
        self, capturing: Callable[[bool], None], caplog: pytest.LogCaptureFixture
    ) -> None:
        capturing(True)
        choice = choose(Layer().problem(), Layer().runner)
        assert choice == Choice(Tactic(DEFAULT), generation())
        assert not caplog.text


class TestFile:
    def test_a_new_process_needs_no_measurement(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "tactics.json"
        layer = Layer()
        with moe_jit.autotune(path):
            layer.tile()
        monkeypatch.setattr(state, "STATE", state.State())
        with moe_jit.autotune(path):
            assert layer.tile() == OTHER
        assert len(layer.devices) == 1

    def test_loading_without_tuning(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "tactics.json"
        layer = Layer()
        with moe_jit.autotune(path):
            layer.tile()
        monkeypatch.setattr(state, "STATE", state.State())
        new = Layer(intermediate_size=1024)
        with moe_jit.autotune(path, tune=False):
            assert layer.tile() == OTHER
            assert new.tile() == default_tactic(new.problem()).tile_tokens
        assert layer.tile() == OTHER
        assert not new.devices

    def test_the_environment_names_a_file_that_is_always_loaded(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "tactics.json"
        monkeypatch.setenv("MOE_JIT_AUTOTUNE_CACHE", str(path))
        layer = Layer()
        with moe_jit.autotune():
            layer.tile()
        assert path.exists()
        monkeypatch.setattr(state, "STATE", state.State())
        assert layer.tile() == OTHER

    def test_what_was_known_before_the_context_is_written_too(self, tmp_path: Path) -> None:
        layer = Layer()
        with moe_jit.autotune():
            layer.tile()
        with moe_jit.autotune(tmp_path / "tactics.json"):
            layer.tile()
        assert store.load(tmp_path / "tactics.json").layers == state.STATE.table.layers
        assert len(layer.devices) == 1

    def test_results_survive_an_exception_in_the_context(self, tmp_path: Path) -> None:
        path = tmp_path / "tactics.json"

        def serve() -> None:
            with moe_jit.autotune(path):
                Layer().tile()
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            serve()
        assert store.load(path)
        assert state.STATE.session() is None

    def test_a_corrupt_file_is_reported_and_tuning_goes_on(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "tactics.json"
        path.write_text('{"format": "moe_jit autotune", "vers')
        with moe_jit.autotune(path):
            assert Layer().tile() == OTHER
        assert "ignoring the autotune file" in caplog.text
        assert store.load(path)

    def test_other_kernels_and_gpus_keep_their_entries(self, tmp_path: Path) -> None:
        path = tmp_path / "tactics.json"
        other = Table({key_of(problem(), "older kernels"): {1: Measurement({"x": 1}, {"y": "z"}, 1, 1, 0)}})
        store.save(path, other)
        with moe_jit.autotune(path):
            assert Layer().tile() == OTHER
        saved = store.load(path)
        assert len(saved.layers) == 2
        assert saved.layer(key_of(problem(), "older kernels")) == other.layer(
            key_of(problem(), "older kernels")
        )


class TestContexts:
    def test_they_nest_and_the_inner_settings_win(self) -> None:
        a, b, c = (Layer(intermediate_size=size) for size in (512, 1024, 2048))
        with moe_jit.autotune(skew=1.0):
            a.tile()
            with moe_jit.autotune(skew=2.0):
                b.tile()
            c.tile()
        assert [skew for _, skew in (*a.devices, *b.devices, *c.devices)] == [1.0, 2.0, 1.0]

    def test_another_skew_is_another_measurement(self) -> None:
        layer = Layer()
        for skew in (0.0, 1.0, 1.0, 0.0):
            with moe_jit.autotune(skew=skew):
                layer.tile()
        assert [skew for _, skew in layer.devices] == [0.0, 1.0, 0.0]

    def test_it_is_a_decorator_too(self) -> None:
        layer = Layer()

        @moe_jit.autotune()
        def warm_up() -> int:
            return layer.tile()

        assert warm_up() == warm_up() == OTHER
        assert len(layer.devices) == 1

    def test_overlapping_threads_leave_no_context_open(self) -> None:
        inside, leave = threading.Event(), threading.Event()

        def first() -> None:
            with moe_jit.autotune(skew=1.0):
                inside.set()
                leave.wait(30)

        thread = threading.Thread(target=first)
        thread.start()
        inside.wait(30)
        layer = Layer()
        with moe_jit.autotune(skew=2.0):
            leave.set()
            thread.join()
            layer.tile()
        assert [skew for _, skew in layer.devices] == [2.0]
        assert state.STATE.session() is None

    def test_concurrent_first_calls_measure_once(self) -> None:
        layer = Layer()
        barrier = threading.Barrier(8)
        chosen = []

        def call() -> None:
            barrier.wait()
            chosen.append(layer.tile())

        with moe_jit.autotune():
            threads = [threading.Thread(target=call) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        assert chosen == [OTHER] * 8
        assert len(layer.devices) == 1

    def test_a_failing_tuner_leaves_the_default(self, caplog: pytest.LogCaptureFixture) -> None:
        def no_runner(skew: float) -> FakeDevice:
            raise RuntimeError("no device")

        with moe_jit.autotune():
            for _ in range(2):
                assert choose(problem(), no_runner).tactic == Tactic(DEFAULT)
        assert caplog.text.count("tuning") == caplog.text.count("failed, what it did not reach") == 1

    def test_the_budget_reaches_the_profiler(self) -> None:
        layer = Layer()
        with moe_jit.autotune(max_seconds=0):
            assert layer.tile() == layer.tile() == DEFAULT
        ((device, _),) = layer.devices
        assert not device.measured
        with moe_jit.autotune():
            assert layer.tile() == OTHER, "a later context tries again"

    @pytest.mark.parametrize("name", ["max_seconds", "skew", "min_gain"])
    @pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
    def test_settings_are_checked(self, name: str, value: float) -> None:
        with pytest.raises(ValueError, match=name), moe_jit.autotune(**{name: value}):
            pass
        with pytest.raises(TypeError, match=name), moe_jit.autotune(**{name: "1"}):
            pass


class TestFlashInfer:
    @pytest.fixture
    def tuner(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        """A stand-in for flashinfer.autotuner with the attributes that are read."""
        tuner = SimpleNamespace(is_tuning_mode=False)
        module = SimpleNamespace(AutoTuner=SimpleNamespace(get=lambda: tuner))
        monkeypatch.setitem(sys.modules, "flashinfer.autotuner", module)
        return tuner

    def test_its_context_tunes_ours(self, tuner: SimpleNamespace) -> None:
        layer = Layer()
        before = choose(layer.problem(), layer.runner).generation
        assert before == generation()
        tuner.is_tuning_mode = True
        assert generation() != before
        assert layer.tile() == OTHER
        tuner.is_tuning_mode = False
        other = Layer(intermediate_size=1024)
        generation()
        assert other.tile() == default_tactic(other.problem()).tile_tokens
        assert layer.tile() == OTHER
        assert not other.devices

    def test_ours_has_precedence(self, tuner: SimpleNamespace) -> None:
        tuner.is_tuning_mode = True
        generation()
        layer = Layer()
        with moe_jit.autotune(skew=3.0):
            layer.tile()
        assert [skew for _, skew in layer.devices] == [3.0]

    @pytest.mark.parametrize(
        "module", [SimpleNamespace(), SimpleNamespace(AutoTuner=SimpleNamespace(get=SimpleNamespace))]
    )
    def test_an_unknown_version_is_ignored(self, monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
        monkeypatch.setitem(sys.modules, "flashinfer.autotuner", module)
        assert generation() == generation()
        assert Layer().tile() == DEFAULT

    def test_it_is_never_imported(self) -> None:
        with moe_jit.autotune():
            Layer().tile()
        assert "flashinfer.autotuner" not in sys.modules


def test_another_device_index_of_the_same_gpu_shares(caplog: pytest.LogCaptureFixture) -> None:
    layer = Layer()
    with caplog.at_level(logging.INFO), moe_jit.autotune():
        layer.tile()
        layer.tile(device=dataclasses.replace(layer.problem().device, index=1))
    assert len(layer.devices) == 1
