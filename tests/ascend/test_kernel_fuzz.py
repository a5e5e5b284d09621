"""Random calls for every kernel variant of the int family on a GPU, against the float64 reference and, where
results are defined bit by bit, against the CPU. The configurations are random within what the modules of
KERNELS are compiled for; those for the CPU check the configurations themselves. MOE_JIT_FUZZ multiplies their
number.
"""

from __future__ import annotations

import os

import pytest
import torch
from support.ascend import Inputs, check_quantised, devices, on_device
from support.calls import poisoned_allocations
from support.matmul_kernels import KERNELS, Kernel, planned_for
from support.random_calls import check_same, describe, dynamic_quant_call, finalize_call, swiglu_call

import moe_jit
from moe_jit.reference import ascend as reference

ROUNDS = {"cpu": 2, "cuda": 10 * int(os.environ.get("MOE_JIT_FUZZ", "1"))}
MAX_ROWS = {"cpu": 60, "cuda": 500}
BITWISE = (torch.int8, torch.int32)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("device", devices("grouped_matmul"))
def test_grouped_matmul(device: str, kernel: Kernel):
    for _ in range(ROUNDS[device]):
        inputs = Inputs()
        problem = kernel.random_problem(inputs, MAX_ROWS[device])
        kernel.check_plan(problem)
        arguments = problem.arguments(inputs.random.choice(kernel.group_lists))
        given = on_device(arguments, device)
        with planned_for(kernel), poisoned_allocations():
            (y,) = moe_jit.npu_grouped_matmul(**given)
            (again,) = moe_jit.npu_grouped_matmul(**given)
        problem.check(y)
        assert torch.equal(y, again), f"{inputs.note}: results do not repeat"
        if y.dtype in BITWISE:
            assert torch.equal(y.cpu(), moe_jit.npu_grouped_matmul(**arguments)[0]), inputs.note


@pytest.mark.cuda
@pytest.mark.parametrize("kernel", KERNELS, ids=str)
def test_replay_follows_changed_inputs(kernel: Kernel):
    inputs = Inputs()
    counts, sizes = [kernel.tile or 20, 0, 25], kernel.steps(kernel.group + 200, 150)
    given = on_device(kernel.problem(inputs, counts, *sizes, tail=5).arguments(), "cuda")
    others = kernel.problem(inputs, counts, *sizes, tail=5).arguments()["x"]
    with planned_for(kernel):
        moe_jit.npu_grouped_matmul(**given)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            (y,) = moe_jit.npu_grouped_matmul(**given)
        for change in ("nothing", "x", "groups", "no rows"):
            if change == "x":
                given["x"][0].copy_(others[0])
            elif change == "groups":
                given["group_list"].copy_(torch.tensor([3, 9, 1]))
            elif change == "no rows":
                given["group_list"].zero_()
            y.fill_(99)
            graph.replay()
            (expected,) = moe_jit.npu_grouped_matmul(**given)
            assert torch.equal(y, expected), f"{inputs.note}: {change}"
            assert y.any() == (change != "no rows"), f"{inputs.note}: {change}"


@pytest.mark.cuda
@pytest.mark.parametrize("tile", [16, 64, 128])
def test_finalize_routing_has_the_bits_of_the_cpu(tile: int):
    """One module for each tile; up to 1024 rows are looked for, more are listed in an index."""
    kernel = Kernel("i8-f16-token", "nd", tile)
    for round_ in range(ROUNDS["cuda"]):
        inputs = Inputs()
        pick = inputs.random
        rows = pick.randint(1, 1024) if round_ % 2 else pick.randint(1025, 4000)
        given = finalize_call(
            inputs,
            rows,
            pick.choice([1, rows, pick.randint(1, rows)]),
            live=pick.randint(0, rows) or None,
            groups=pick.choice([1, 5, 60]),
            index_dtype=pick.choice([torch.int32, torch.int64]),
        )
        if pick.random() < 0.5:
            given["bias"] = inputs.normal(*given["scale"].shape, dtype=torch.bfloat16)
        if pick.random() < 0.5:
            given["shared_input"] = inputs.normal(pick.randint(1, given["output_bs"]), given["w"].shape[2])
        with planned_for(kernel):
            check_same(moe_jit.npu_grouped_matmul_finalize_routing, given, describe(given, inputs.note))


@pytest.mark.cuda
@pytest.mark.parametrize("swiglu_mode", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.int32, torch.bfloat16, torch.float16])
def test_dequant_swiglu_quant_has_the_bits_of_the_cpu(dtype: torch.dtype, swiglu_mode: int):
    for round_ in range(ROUNDS["cuda"]):
        inputs = Inputs()
        pick = inputs.random
        half = pick.randint(1, 150) if pick.random() < 0.4 else 8 * pick.randint(1, 260)
        rows = pick.choice([1, pick.randint(2, 60), pick.randint(60, 900)])
        settings = {"quant_mode": int(round_ % 4 != 0), "swiglu_mode": swiglu_mode}
        given = swiglu_call(inputs, rows, half, dtype, **settings)
        note = describe(given, inputs.note)
        check_same(moe_jit.npu_dequant_swiglu_quant, given, note)
        y, scale = moe_jit.npu_dequant_swiglu_quant(**given)
        # A bias may cancel nearly all of a row of few columns: fp32 errors of values up to 100, over 127.
        check_quantised(y, scale, reference.dequant_swiglu_quant(**given), note, scale_atol=1e-7)


@pytest.mark.cuda
@pytest.mark.parametrize("dst_type", [torch.int8, torch.quint4x2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_dynamic_quant_has_the_bits_of_the_cpu(dtype: torch.dtype, dst_type: torch.dtype):
    for _ in range(ROUNDS["cuda"]):
        inputs = Inputs()
        pick = inputs.random
        width = pick.randint(1, 500) if pick.random() < 0.5 else 16 * pick.randint(1, 512)
        width = -(-width // 8) * 8 if dst_type == torch.quint4x2 else width
        given = dynamic_quant_call(inputs, pick.randint(1, 600), width, dtype, dst_type)
        check_same(moe_jit.npu_dynamic_quant, given, describe(given, inputs.note))
