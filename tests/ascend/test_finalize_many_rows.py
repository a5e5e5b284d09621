"""Finalize routing in the emulator with more rows than a core's list of rows holds."""

from __future__ import annotations

import pytest
import torch
from support.ascend import Inputs

import moe_jit
from moe_jit.backends import EMULATOR

LIST = 2048  # rows that the kernel looks through at a time

pytestmark = pytest.mark.ascend_emulator


@pytest.mark.parametrize("rows", [LIST, LIST + 1, 2 * LIST + 500])
def test_rows_of_several_lists_are_summed_in_order(rows: int) -> None:
    inputs = Inputs()
    k, n, outputs = 32, 256, 3
    arguments = {
        "x": inputs.integers(rows, k, low=-8, high=8, dtype=torch.int8),
        "w": inputs.integers(2, k, n, low=-8, high=8, dtype=torch.int8),
        "group_list": torch.tensor([rows // 3, rows - rows // 3]),
        "scale": inputs.positive(2, n),
        "pertoken_scale": inputs.positive(rows),
        "row_index": inputs.integers(rows, low=0, high=outputs, dtype=torch.int64),
        "output_bs": outputs + 1,
    }
    on_cpu = moe_jit.npu_grouped_matmul_finalize_routing(**arguments)
    for cores, seed in ((24, 0), (1, 0), (2, 5)):
        with moe_jit.use_backend(EMULATOR, cores=cores, seed=seed):
            assert torch.equal(moe_jit.npu_grouped_matmul_finalize_routing(**arguments), on_cpu), inputs.note
