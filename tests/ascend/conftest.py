"""Which tests of the operators the Ascend C kernels cannot run: everything else runs on the emulator too."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from support import cann as stand_in

from moe_jit.ascend import launch, npu
from moe_jit.backends import EMULATOR
from moe_jit.jit import loader

_DEPTH = "no Ascend C kernel splits the reduction dimension"
_DYNAMIC = "npu_dynamic_quant has no Ascend C kernel"
# Test functions, or parameters and their values. test_emulator.py has the errors.
_NO_KERNEL = {
    "recipe=dynamic": _DYNAMIC,
    "test_blocks_packed_after_blocking": "int4 blocks of 4 bytes would have to be copied",
    "test_dynamic_quant": _DYNAMIC,
    "test_dynamic_quant_recipe_bit_by_bit": _DYNAMIC,
    "test_split_of_the_reduction_dimension": _DEPTH,
    "test_split_of_the_reduction_dimension_ends_with_the_slices": _DEPTH,
    "test_split_of_the_reduction_dimension_with_several_weights": _DEPTH,
}


@pytest.fixture
def cann(tmp_path: Path, cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "torch_npu", stand_in.FakeTorchNpu(cube_core_num=20))
    caches = (npu.num_cores, launch._function)
    for cached in caches:
        cached.cache_clear()
    yield stand_in.install(tmp_path / "cann", monkeypatch)
    loader._modules.clear()
    for cached in caches:
        cached.cache_clear()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        call = getattr(item, "callspec", None)
        if call is None or EMULATOR not in call.params.values():
            continue
        function = item.originalname if isinstance(item, pytest.Function) else ""
        for key in (function, *(f"{name}={value}" for name, value in call.params.items())):
            if reason := _NO_KERNEL.get(key):
                item.add_marker(pytest.mark.skip(reason=f"emulator: {reason}"))
