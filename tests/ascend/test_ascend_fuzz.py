"""Random calls of the grouped operators against the reference. MOE_JIT_FUZZ multiplies their number."""

from __future__ import annotations

import os

import pytest
import torch
from support.ascend import Inputs, backends, check_quantised, on_backend
from support.calls import poisoned_allocations
from support.matmul import BF16, F16, I8, INT4, ROWS, Problem

import moe_jit
from moe_jit.reference import ascend as reference

ROUNDS = 40 * int(os.environ.get("MOE_JIT_FUZZ", "1"))


def random_problem(inputs: Inputs) -> tuple[Problem, str]:
    pick = inputs.random
    row = ROWS[pick.choice([name for name in ROWS if not inputs.cores or name != "f32"])]
    scaled_int4 = row.w == INT4 and row.x in (I8, INT4)
    layouts = ["nd", "nz"] if scaled_int4 else ["nd", "transposed", "nz", "nz-transposed"]
    layout = pick.choice(layouts[: 3 if row.w == INT4 else 4])
    k_groups = 1
    if row.w != INT4:
        k, n = pick.randint(1, 300), pick.randint(1, 200)
    elif row.x == I8:
        k_groups = pick.choice([1, 2, 3])
        k, n = (256 * k_groups if k_groups > 1 else 64 * pick.randint(1, 5)), 64 * pick.randint(1, 3)
    else:
        k_groups = pick.choice([1, 2, 5])
        k, n = 16 * k_groups * pick.randint(1, 4), 64 * pick.randint(1, 3)
    bias = pick.random() < 0.6
    if layout.startswith("nz") and not bias:
        n = -(-n // 64) * 64  # no parameter tells n without padding
    groups, rows = pick.choice([1, 2, 5, 17, 60]), pick.randint(1, 70)
    act = pick.choice([0, 1, 2, 4, 5]) if row.x == row.w == I8 and row.y in (F16, BF16) else 0
    kind = "counts" if row.x == I8 and row.w == INT4 else pick.choice(["counts", "cumulative", "list"])
    problem = Problem(
        inputs,
        row,
        inputs.counts(groups, rows).tolist(),
        k,
        n,
        tail=0 if kind == "list" else pick.choice([0, 0, 1, 13]),
        layout=layout,
        stacked=scaled_int4 or pick.random() < 0.7,
        bias=bias,
        k_groups=k_groups,
        offset=row.w != row.x
        and (row.x in (F16, BF16) or (row.x == I8 and row.y == F16))
        and pick.random() < 0.5,
        act_type=act,
    )
    return problem, kind


@pytest.mark.parametrize("backend", backends("grouped_matmul"))
@pytest.mark.parametrize("part", range(2))
def test_grouped_matmul(backend: str, part: int):
    for _ in range(ROUNDS):
        with on_backend(backend) as inputs:
            problem, kind = random_problem(inputs)
            several = not problem.stacked and problem.tail == 0
            problem.check(torch.cat(problem.call(kind, split_item=0 if several else 2)))


@pytest.mark.parametrize("backend", backends("dequant_swiglu_quant"))
def test_dequant_swiglu_quant(backend: str):
    for _ in range(ROUNDS):
        with on_backend(backend) as inputs:
            check_random_swiglu(inputs)


def check_random_swiglu(inputs: Inputs) -> None:
    pick = inputs.random
    rows, half, groups = pick.randint(1, 60), pick.randint(1, 150), pick.choice([None, 1, 3, 40])
    integer = pick.random() < 0.7
    bias_dtype = pick.choice([None, torch.int32, torch.float32, F16, BF16]) if integer else None
    shape = (groups or 1, 2 * half)
    bias = None
    if bias_dtype == torch.int32:
        bias = inputs.integers(*shape, low=-20000, high=20000, dtype=bias_dtype)
    elif bias_dtype is not None:
        bias = inputs.normal(*shape, dtype=bias_dtype)
    arguments = {
        "weight_scale": inputs.positive(*shape, high=1e-4) if integer else None,
        "activation_scale": inputs.positive(rows) if integer and pick.random() < 0.6 else None,
        "bias": bias,
        "quant_scale": inputs.positive(shape[0], half, high=0.5) if pick.random() < 0.6 else None,
        "group_index": None if groups is None else inputs.counts(groups, pick.randint(1, rows)),
        "activate_left": pick.random() < 0.5,
        "quant_mode": pick.randint(0, 1),
        "swiglu_mode": pick.randint(0, 3),
        "clamp_limit": pick.uniform(0.5, 9.0),
        "glu_alpha": pick.uniform(0.5, 2.0),
        "glu_bias": pick.uniform(-1.0, 1.0),
    }
    if integer:
        x = inputs.integers(rows, 2 * half, low=-60000, high=60000, dtype=torch.int32)
    else:
        x = inputs.normal(rows, 2 * half, dtype=BF16, std=3.0)
    with poisoned_allocations():
        y, scale = moe_jit.npu_dequant_swiglu_quant(x, **arguments)
    on_cpu = {name: v.cpu() if isinstance(v, torch.Tensor) else v for name, v in arguments.items()}
    note = f"{inputs.note} {rows} x {half} groups {groups} {bias_dtype} mode {arguments['swiglu_mode']}"
    expected = reference.dequant_swiglu_quant(x.cpu(), **on_cpu)
    # A bias may cancel nearly all of a row of few columns: fp32 errors of values up to 100, over 127.
    check_quantised(y, scale, expected, note, scale_atol=1e-7)
