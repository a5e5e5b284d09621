"""use_backend: what it accepts, where it applies, and what it refuses."""

from __future__ import annotations

import threading

import pytest
import torch
from support.ascend_calls import BASES
from support.setup import Setup

import moe_jit
from moe_jit import backends, use_backend

EMULATOR = "ascend-emulator"


@pytest.fixture(autouse=True)
def unchanged():
    yield
    assert backends.chosen() == backends.Choice()


def test_context_manager_nests_and_restores() -> None:
    with use_backend(EMULATOR):
        assert backends.chosen().name == EMULATOR
        with use_backend("auto"):
            assert backends.chosen().name == "auto"
        with pytest.raises(RuntimeError, match="inside"), use_backend("auto"):
            raise RuntimeError("inside")
        assert backends.chosen().name == EMULATOR


def test_setting_applies_at_once() -> None:
    use_backend(EMULATOR)
    assert backends.chosen().name == EMULATOR
    use_backend("auto")


def test_other_threads_keep_theirs() -> None:
    seen = []
    with use_backend(EMULATOR):
        thread = threading.Thread(target=lambda: seen.append(backends.chosen().name))
        thread.start()
        thread.join()
    assert seen == ["auto"]


@pytest.mark.parametrize("name", ["cuda", "npu", "", None])
def test_unknown_names_raise(name: object) -> None:
    with pytest.raises(ValueError, match="name must be 'auto' or 'ascend-emulator', got"):
        use_backend(name)  # type: ignore[arg-type]


def test_the_emulated_chip_can_be_chosen() -> None:
    with use_backend(EMULATOR, cores=20, seed=3):
        assert backends.chosen() == (EMULATOR, 20, 3)
    for wrong, error in ((0, ValueError), (65, ValueError), ("24", TypeError)):
        with pytest.raises(error, match="cores must be"):
            use_backend(EMULATOR, cores=wrong)  # type: ignore[arg-type]


def test_operators_without_a_kernel_raise() -> None:
    setup = Setup("cpu")
    layer, routing = setup.layer(), setup.routing(3)
    hidden = setup.hidden(3, layer)
    setup.check(layer, routing, hidden)  # metadata that passed before must not hide the choice
    with use_backend(EMULATOR):
        with pytest.raises(ValueError, match="use_backend: 'ascend-emulator' does not run trtllm_fp8"):
            setup.check(layer, routing, hidden)
        with pytest.raises(ValueError, match="'ascend-emulator' does not run npu_dynamic_quant"):
            moe_jit.npu_dynamic_quant(**BASES["dynamic"])


def test_tensors_of_other_devices_are_refused() -> None:
    with use_backend(EMULATOR), pytest.raises(ValueError, match="x must be on the CPU with the backend"):
        backends.kind_of(torch.device("cuda", 0), "x")
    assert backends.kind_of(torch.device("cuda", 0), "x") == "cuda"
