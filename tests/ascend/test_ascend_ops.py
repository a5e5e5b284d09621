"""The operators with torch_npu's signatures as torch.library operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.ascend import Inputs, devices
from support.ascend_calls import BASES, function_of
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses import FakeTensorMode

import moe_jit

OPERATORS = [
    base for base in BASES if base.startswith(("swiglu", "dynamic", "finalize")) or "x" in BASES[base]
]


def on_devices(bases: list[str]) -> list[Any]:
    """Every base with every device that its operator has a module for."""
    cases = []
    for base in bases:
        for device in devices(function_of(base).__name__.removeprefix("npu_")):
            value, marks = (device, ()) if isinstance(device, str) else (device.values[0], device.marks)
            cases.append(pytest.param(base, value, marks=marks, id=f"{base}-{value}"))
    return cases


def tree(value: Any, function) -> Any:
    if isinstance(value, dict):
        return {name: tree(item, function) for name, item in value.items()}
    if isinstance(value, list):
        return [tree(item, function) for item in value]
    return function(value) if isinstance(value, torch.Tensor) else value


def as_tuple(result: Any) -> tuple[torch.Tensor, ...]:
    return (result,) if isinstance(result, torch.Tensor) else tuple(result)


@pytest.mark.parametrize(("base", "device"), on_devices(OPERATORS))
def test_fake_outputs_have_the_real_metadata(base: str, device: str):
    arguments = tree(BASES[base], lambda t: t.to(device))
    real = as_tuple(function_of(base)(**arguments))
    with FakeTensorMode() as mode:
        fake = as_tuple(function_of(base)(**tree(arguments, mode.from_tensor)))
    described = [[(t.shape, t.dtype, t.stride(), t.device) for t in result] for result in (real, fake)]
    assert described[0] == described[1]


@pytest.mark.parametrize(
    ("base", "device"),
    on_devices(["token", "int8int4", "ends", "separate", "finalize4", "swiglu", "dynamic"]),
)
@pytest.mark.filterwarnings("ignore")
def test_compiled_without_graph_breaks(base: str, device: str):
    torch._dynamo.reset()
    function = function_of(base)
    arguments = tree(BASES[base], lambda t: t.to(device))
    compiled = torch.compile(lambda arguments: function(**arguments), backend="eager", fullgraph=True)
    expected, actual = as_tuple(function(**arguments)), as_tuple(compiled(arguments))
    assert all(torch.equal(a, b) for a, b in zip(expected, actual, strict=True))


def dynamic_layer(x: torch.Tensor, w13: torch.Tensor, w2: torch.Tensor, expert: torch.Tensor) -> torch.Tensor:
    """Routed to one expert; the number of rows is symbolic while traced."""
    experts, hidden = w2.shape[0], w2.shape[2]
    order = expert.argsort(stable=True)
    counts = (expert[None] == torch.arange(experts)[:, None]).sum(1)
    q, scale = moe_jit.npu_dynamic_quant(x)
    (h,) = moe_jit.npu_grouped_matmul(
        [q[order]],
        [w13],
        group_type=0,
        group_list=counts,
        group_list_type=1,
        split_item=3,
        output_dtype=torch.int32,
    )
    ones = torch.full((experts, w13.shape[2]), 1e-3)
    y, y_scale = moe_jit.npu_dequant_swiglu_quant(
        h, weight_scale=ones, activation_scale=scale[order], group_index=counts, quant_mode=1
    )
    return moe_jit.npu_grouped_matmul_finalize_routing(
        y,
        w2,
        counts,
        scale=torch.ones(experts, hidden),
        pertoken_scale=y_scale,
        row_index=order,
        output_bs=x.shape[0],
    )


@pytest.mark.filterwarnings("ignore")
def test_one_compilation_serves_every_number_of_tokens():
    torch._dynamo.reset()
    inputs = Inputs()
    w13, w2 = inputs.integers(4, 64, 64), inputs.integers(4, 32, 256)
    backend = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(dynamic_layer, backend=backend, dynamic=True, fullgraph=True)
    graphs = []
    for tokens in (5, 9, 30):
        arguments = (
            inputs.normal(tokens, 64),
            w13,
            w2,
            inputs.integers(tokens, low=0, high=3, dtype=torch.int64),
        )
        assert torch.equal(compiled(*arguments), dynamic_layer(*arguments))
        graphs.append(backend.frame_count)
    assert graphs[0] == graphs[-1]


@pytest.mark.parametrize(("base", "device"), on_devices(["token", "int4", "finalize", "swiglu", "dynamic"]))
def test_opcheck(base: str, device: str):
    name = function_of(base).__name__
    arguments = tree(BASES[base], lambda t: t.to(device))
    if name == "npu_grouped_matmul":
        positional = (arguments.pop("x"), arguments.pop("weight"))
    elif name.endswith("routing"):
        positional = (arguments.pop("x"), arguments.pop("w"), arguments.pop("group_list"))
    else:
        positional = (arguments.pop("input", None) if base == "dynamic" else arguments.pop("x"),)
    operator = getattr(torch.ops.moe_jit, name).default
    torch.library.opcheck(operator, positional, arguments, test_utils=("test_schema", "test_faketensor"))


def test_invalid_calls_fail_while_tracing():
    compiled = torch.compile(moe_jit.npu_dynamic_quant, backend="eager", fullgraph=True)
    with pytest.raises(Exception, match="input must be of at least 2 dimensions"):
        compiled(torch.ones(4))
