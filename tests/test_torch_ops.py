"""Tracing: torch.compile, torch.export, fake tensors and the operator contract of torch.library."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.calls import call, call_routed
from support.setup import DEVICES, Setup
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import moe_jit
from moe_jit import FusedMoE
from moe_jit.ops import is_traced

TOKENS = (7, 3, 40, 9, 17, 2, 33)
OPERATORS = torch.ops.moe_jit


@pytest.fixture(params=DEVICES)
def setup(request: pytest.FixtureRequest) -> Setup:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return Setup(request.param)


def compiled_graphs() -> int:
    """Graphs that torch.compile has made since the test began."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


class Block(torch.nn.Module):
    """A router, the layer, and the residual around them."""

    def __init__(self, setup: Setup, num_experts: int = 8, hidden_size: int = 64) -> None:
        super().__init__()

        def random(*shape: int) -> torch.Tensor:
            value = torch.randn(*shape, generator=setup.gen, device=setup.device)
            return (value / shape[-1] ** 0.5).bfloat16()

        self.router = torch.nn.Parameter(random(num_experts, hidden_size), requires_grad=False)
        self.moe = FusedMoE(
            random(num_experts, 64, hidden_size), random(num_experts, hidden_size, 32), top_k=2
        )
        self.samples = random(max(TOKENS), hidden_size)
        self.moe.calibrate(self.samples, self.logits(self.samples))

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(x, self.router).float()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.moe(x, self.logits(x))


def test_layer_compiles_once_for_every_number_of_tokens(setup: Setup) -> None:
    block = Block(setup)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True, dynamic=True)
    for tokens in TOKENS:
        x = block.samples[:tokens]
        assert torch.equal(compiled(x), block(x)), tokens
    assert compiled_graphs() == 1
    for tokens in (1, 0, 1, 0, 12):  # torch itself specialises sizes 0 and 1
        x = block.samples[:tokens]
        assert torch.equal(compiled(x), block(x)), tokens
    assert compiled_graphs() <= 3


def test_function_compiles_once_with_dynamic_sizes(setup: Setup) -> None:
    layer = setup.layer()

    @torch.compile(backend="aot_eager", fullgraph=True, dynamic=True)
    def compiled(routing: Any, hidden: torch.Tensor, do_finalize: bool) -> Any:
        return call(layer, hidden, routing, do_finalize=do_finalize, poison=False)

    for do_finalize in (True, False):
        for tokens in TOKENS:
            hidden, routing = setup.hidden(tokens, layer), setup.routing(tokens)
            actual = compiled(routing, hidden, do_finalize)
            expected = call(layer, hidden, routing, do_finalize=do_finalize, poison=False)
            actual, expected = ([v] if do_finalize else v for v in (actual, expected))
            assert len(actual) == len(expected)
            assert all(map(torch.equal, actual, expected)), (tokens, do_finalize)
    assert compiled_graphs() == 2


def test_pre_routed_function_compiles(setup: Setup) -> None:
    layer = setup.layer()
    compiled = torch.compile(call_routed, backend="aot_eager", fullgraph=True, dynamic=True)
    for tokens in TOKENS:
        hidden = setup.hidden(tokens, layer)
        ids = torch.rand(tokens, 8, generator=setup.gen, device=setup.device).argsort()[:, :2]
        weights = torch.rand(tokens, 2, generator=setup.gen, device=setup.device)
        arguments = (layer, hidden, ids, weights)
        options = {"num_experts": 8, "poison": False}
        assert torch.equal(compiled(*arguments, **options), call_routed(*arguments, **options))
    assert compiled_graphs() == 1


def test_compiled_call_writes_output_and_replay(setup: Setup) -> None:
    layer, tokens = setup.layer(), 11
    hidden, routing = setup.hidden(tokens, layer), setup.routing(tokens)

    def buffers() -> dict[str, torch.Tensor]:
        output = torch.full((tokens, layer.hidden_size), torch.nan, device=setup.device)
        replay = torch.full((tokens + 2, 2), -9, dtype=torch.int16, device=setup.device)
        return {"output": output.bfloat16(), "routing_replay_out": replay}

    def twice(**written: torch.Tensor) -> torch.Tensor:
        result = call(layer, hidden, routing, poison=False, **written)
        return result + written["output"] + written["routing_replay_out"].sum()

    expected, actual = buffers(), buffers()
    total = twice(**expected)
    compiled = torch.compile(twice, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(**actual), total)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)
    assert (actual["routing_replay_out"][tokens:] == -9).all()


def test_inductor_runs_the_graph(setup: Setup) -> None:
    layer = setup.layer()

    @torch.compile(fullgraph=True, dynamic=True)
    def compiled(routing: Any, hidden: torch.Tensor) -> torch.Tensor:
        return call(layer, hidden, routing, poison=False) * 2

    for tokens in TOKENS[:3]:
        hidden, routing = setup.hidden(tokens, layer), setup.routing(tokens)
        assert torch.equal(compiled(routing, hidden), call(layer, hidden, routing) * 2)


def test_validation_errors_pass_through_compiled_code(setup: Setup) -> None:
    layer = setup.layer()
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
    hidden = setup.hidden(4, layer)
    with pytest.raises(ValueError, match=r"gemm1_weights must be of shape .* got shape \(8, 192, 128\)"):
        compiled(setup.layer(hidden_size=128), hidden, setup.routing(4), poison=False)


@pytest.fixture
def comparable_fp8(monkeypatch: pytest.MonkeyPatch) -> None:
    """opcheck finds mutated inputs with torch.allclose, which float8 tensors do not have."""
    allclose = torch.allclose

    def compare(a: torch.Tensor, b: torch.Tensor, **options: Any) -> bool:
        if a.dtype == torch.float8_e4m3fn:
            return torch.equal(a.view(torch.uint8), b.view(torch.uint8))
        return allclose(a, b, **options)

    monkeypatch.setattr(torch, "allclose", compare)


@pytest.mark.usefixtures("comparable_fp8")
@pytest.mark.parametrize("bias", [None, torch.float32])
@pytest.mark.parametrize("operator", ["fp8_per_tensor_scale_moe", "fp8_per_tensor_scale_moe_rows"])
def test_operator_contract(setup: Setup, operator: str, bias: torch.dtype | None) -> None:
    target = getattr(OPERATORS, operator).default
    values = operator_arguments(setup, bias)
    arguments = tuple(values[argument.name] for argument in target._schema.arguments)
    checks = torch.library.opcheck(target, arguments)
    assert len(checks) == 4
    assert set(checks.values()) == {"SUCCESS"}


def operator_arguments(setup: Setup, bias: torch.dtype | None) -> dict[str, Any]:
    layer, tokens = setup.layer(), 5
    routing = setup.routing(tokens, method=2, bias_dtype=bias)
    return {
        "routing_logits": routing.logits,
        "routing_bias": routing.bias,
        "topk_ids": None,
        "topk_weights": None,
        "hidden_states": setup.hidden(tokens, layer),
        "gemm1_weights": layer.gemm1,
        "output1_scales_scalar": layer.sc,
        "output1_scales_gate_scalar": layer.sg,
        "gemm2_weights": layer.gemm2,
        "output2_scales_scalar": layer.s2,
        "routing_replay_out": torch.zeros(tokens + 1, 2, dtype=torch.int16, device=setup.device),
        "output": torch.empty(tokens, layer.hidden_size, dtype=torch.bfloat16, device=setup.device),
        "num_experts": 8,
        "top_k": 2,
        "n_group": 4,
        "topk_group": 2,
        "intermediate_size": layer.intermediate_size,
        "local_expert_offset": 0,
        "local_num_experts": 8,
        "routed_scaling_factor": 2.5,
        "use_routing_scales_on_input": False,
        "routing_method_type": 2,
        "enable_pdl": None,
        "tune_max_num_tokens": 8192,
        "activation_type": 3,
        "norm_topk_prob": True,
        "weight_layout": "shuffled",
        "fast_accum": True,
        "pre_routed": False,
    }


def test_exported_program_takes_any_number_of_tokens(setup: Setup) -> None:
    block = Block(setup).eval()
    program = torch.export.export(
        block, (block.samples[:8],), dynamic_shapes=({0: torch.export.Dim("tokens", min=2, max=4096)},)
    )
    for tokens in TOKENS:
        x = block.samples[:tokens]
        assert torch.equal(program.module()(x), block(x))


def test_traces_with_make_fx(setup: Setup) -> None:
    layer, routing = setup.layer(), setup.routing(6)
    hidden, other = setup.hidden(6, layer), setup.hidden(6, layer)

    def function(x: torch.Tensor) -> Any:
        return call(layer, x, routing, do_finalize=False, poison=False)

    graph = make_fx(function)(hidden)
    assert all(map(torch.equal, graph(other), function(other)))


def test_fake_tensors_have_the_shapes_of_real_ones(setup: Setup) -> None:
    layer = setup.layer()
    hidden, routing = setup.hidden(6, layer), setup.routing(6)
    for do_finalize in (True, False):
        real = call(layer, hidden, routing, do_finalize=do_finalize, poison=False)
        with FakeTensorMode(allow_non_fake_inputs=True):
            fake = call(layer, hidden, routing, do_finalize=do_finalize, poison=False)
        for actual, expected in zip(*([v] if do_finalize else v for v in (fake, real)), strict=True):
            assert isinstance(actual, torch._subclasses.FakeTensor)
            assert (actual.shape, actual.dtype, actual.device, actual.stride()) == (
                (expected.shape, expected.dtype, expected.device, expected.stride())
            )


def test_plain_calls_bypass_the_dispatcher() -> None:
    assert not is_traced(torch.zeros(1))
    assert not is_traced(torch.nn.Parameter(torch.zeros(1)))
    assert not is_traced(None)
    with FakeTensorMode():
        assert is_traced(torch.zeros(1))


@pytest.mark.cuda
def test_reduce_overhead_replays_graphs() -> None:
    torch._dynamo.reset()
    block = Block(Setup("cuda"))
    compiled = torch.compile(block, mode="reduce-overhead", fullgraph=True)
    for tokens in (4, 16):
        for _ in range(4):
            x = torch.randn_like(block.samples[:tokens])
            expected = block(x)
            actual = compiled(x).clone()
            # inductor's own division by the input scale may round a few inputs to the other neighbour
            torch.testing.assert_close(actual.float(), expected.float(), atol=0.05, rtol=0.05)


def test_public_functions_and_operators_share_their_parameters() -> None:
    for name in ("fp8_per_tensor_scale_moe", "fp8_per_tensor_scale_moe_rows"):
        schema = getattr(OPERATORS, name).default._schema
        written = {a.name for a in schema.arguments if a.alias_info is not None and a.alias_info.is_write}
        assert written == {"routing_replay_out", "output"} & {a.name for a in schema.arguments}
        fields = set(moe_jit.validate.Arguments._fields)
        assert fields - {a.name for a in schema.arguments} <= {"do_finalize", "output"}
