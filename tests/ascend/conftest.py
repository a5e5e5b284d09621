"""Which tests of the operators the Ascend C kernels cannot run: everything else runs on the emulator too."""

from __future__ import annotations

import pytest

from moe_jit.backends import EMULATOR

_FLOATS = "Ascend C kernels multiply float16 and bfloat16"
_DEPTH = "no Ascend C kernel splits the reduction dimension"
# Test functions, or the values of their parameter `name`, see test_emulator.py for the errors.
_NO_KERNEL = {
    "f32": _FLOATS,
    "test_outputs_of_different_widths": _FLOATS,
    "test_split_of_the_reduction_dimension": _DEPTH,
    "test_split_of_the_reduction_dimension_with_several_weights": _DEPTH,
    "test_blocks_packed_after_blocking": "int4 blocks of 4 bytes would have to be copied",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        call = getattr(item, "callspec", None)
        if call is None or EMULATOR not in call.params.values():
            continue
        function = item.originalname if isinstance(item, pytest.Function) else ""
        for key in (function, call.params.get("name", "")):
            if reason := _NO_KERNEL.get(key):
                item.add_marker(pytest.mark.skip(reason=f"emulator: {reason}"))
