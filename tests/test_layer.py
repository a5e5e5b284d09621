"""The layer against models that know nothing of FP8: plain float weights, or exactly dequantised ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from moe_jit import ActivationType, FusedMoE, RoutingMethodType
from moe_jit import reference as oracle

E, H, I, K, T = 6, 128, 96, 2, 40  # noqa: E741
E4M3 = torch.float8_e4m3fn
GATED = (ActivationType.Swiglu, ActivationType.Geglu)
ACTIVATIONS = {
    ActivationType.Swiglu: torch.nn.functional.silu,
    ActivationType.Geglu: torch.nn.functional.gelu,
    ActivationType.Gelu: torch.nn.functional.gelu,
    ActivationType.Relu2: lambda z: torch.relu(z) ** 2,
    ActivationType.Identity: lambda z: z,
}
# Four independent e4m3 roundings (x, w13, intermediate, w2), each of relative rms 2.6 %; the first two meet
# in each half of a gated activation.
FP8_ERROR = 0.075
# Only the intermediate is rounded to e4m3; the rows and weights to bfloat16.
INTERMEDIATE_ERROR = 0.035


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(1234)


def dense_model(
    x: torch.Tensor,
    gate: torch.Tensor | None,
    up: torch.Tensor,
    down: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    kind: ActivationType = ActivationType.Swiglu,
) -> torch.Tensor:
    """Every expert for every token in float64, then the weighted choice."""
    x, up, down = x.double(), up.double(), down.double()
    linear = torch.einsum("th,eih->tei", x, up)
    act = ACTIVATIONS[kind]
    inner = act(linear) if gate is None else linear * act(torch.einsum("th,eih->tei", x, gate.double()))
    rows = torch.einsum("tei,ehi->teh", inner, down)
    chosen = torch.zeros(x.shape[0], up.shape[0], dtype=torch.float64).scatter(1, ids, weights.double())
    return torch.einsum("te,teh->th", chosen, rows)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return float((actual.double() - expected).norm() / expected.norm())


def inputs(tokens: int = T) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(tokens, H).bfloat16(), torch.randn(tokens, E)


def float_weights() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """gate, up, down of very different magnitudes, each expert another."""
    size = torch.linspace(0.5, 2, E)[:, None, None]
    gate = size * torch.randn(E, I, H) / H**0.5
    up = 5 * torch.randn(E, I, H) / H**0.5 / size
    down = 0.1 * torch.randn(E, H, I) / I**0.5
    return gate.bfloat16(), up.bfloat16(), down.bfloat16()


def renormalize(logits: torch.Tensor, top_k: int = K) -> tuple[torch.Tensor, torch.Tensor]:
    return oracle.route(logits, None, method=RoutingMethodType.Renormalize, top_k=top_k)


@pytest.mark.parametrize("kind", ACTIVATIONS, ids=lambda kind: kind.name)
def test_bfloat16_weights_are_quantised_and_calibrated(kind: ActivationType):
    gate, up, down = float_weights()
    x, logits = inputs()
    w13 = torch.cat([gate, up], dim=1) if kind in GATED else up
    layer = FusedMoE(w13, down, top_k=K, activation_type=kind)
    layer.calibrate(x, logits)
    expected = dense_model(x, gate if kind in GATED else None, up, down, *renormalize(logits), kind)
    assert relative_error(layer(x, logits), expected) < FP8_ERROR
    fresh_x, fresh_logits = inputs()
    expected = dense_model(
        fresh_x, gate if kind in GATED else None, up, down, *renormalize(fresh_logits), kind
    )
    assert relative_error(layer(fresh_x, fresh_logits), expected) < FP8_ERROR


def test_the_bound_notices_swapped_halves():
    gate, up, down = float_weights()
    x, logits = inputs()
    layer = FusedMoE(torch.cat([up, gate], dim=1), down, top_k=K, w13_order="w1_w3")
    layer.calibrate(x, logits)
    expected = dense_model(x, gate, up, down, *renormalize(logits))
    assert relative_error(layer(x, logits), expected) > 0.5


def test_order_of_the_halves_does_not_change_a_bit():
    gate, up, down = float_weights()
    x, logits = inputs()
    layers = [
        FusedMoE(torch.cat([gate, up], dim=1), down, top_k=K, w13_order="w1_w3"),
        FusedMoE(torch.cat([up, gate], dim=1), down, top_k=K, w13_order="w3_w1"),
        FusedMoE.from_gate_up(gate, up, down, top_k=K),
    ]
    for layer in layers:
        layer.calibrate(x, logits)
    first, *others = (layer(x, logits) for layer in layers)
    for other in others:
        assert torch.equal(first, other)


class Checkpoint:
    """FP8 weights with separate gate and up scales, and static scales; real = quantised * scale."""

    def __init__(self) -> None:
        self.gate, self.up = (torch.randn(E, I, H).mul(30).clamp(-448, 448).to(E4M3) for _ in range(2))
        self.down = torch.randn(E, H, I).mul(30).clamp(-448, 448).to(E4M3)
        self.gate_scale = torch.rand(E) * 0.002 + 0.001
        self.up_scale = 4 * torch.rand(E) * 0.002 + 0.004
        self.down_scale = torch.rand(E) * 0.002 + 0.001
        self.input_scale = 0.01
        self.intermediate_scale = torch.rand(E) * 0.05 + 0.03
        self.x8 = torch.randn(T, H).mul(100).clamp(-448, 448).to(E4M3)
        self.logits = torch.randn(T, E)

    @property
    def w13(self) -> torch.Tensor:
        return torch.cat([self.gate.float(), self.up.float()], dim=1).to(E4M3)

    def arguments(self, **changes: Any) -> dict[str, Any]:
        arguments = {
            "w13": self.w13,
            "w2": self.down,
            "top_k": K,
            "w13_scale": torch.stack([self.gate_scale, self.up_scale], dim=1),
            "w2_scale": self.down_scale,
            "input_scale": self.input_scale,
            "intermediate_scale": self.intermediate_scale,
        }
        return {**arguments, **changes}

    def expected(self) -> torch.Tensor:
        return dense_model(
            self.x8.double() * self.input_scale,
            self.gate.double() * self.gate_scale[:, None, None],
            self.up.double() * self.up_scale[:, None, None],
            self.down.double() * self.down_scale[:, None, None],
            *renormalize(self.logits),
        )


@pytest.fixture
def checkpoint(seed: None) -> Checkpoint:
    return Checkpoint()


def test_separate_gate_and_up_scales_are_used_exactly(checkpoint: Checkpoint):
    arguments = checkpoint.arguments()
    layer = FusedMoE(**arguments)
    assert layer.w13.data_ptr() == arguments["w13"].data_ptr()  # neither copied nor requantised
    assert layer.w2.data_ptr() == arguments["w2"].data_ptr()
    output = layer(checkpoint.x8, checkpoint.logits)
    assert relative_error(output, checkpoint.expected()) < INTERMEDIATE_ERROR
    ids, weights = renormalize(checkpoint.logits)
    reference = oracle.fp8_moe(
        checkpoint.x8,
        checkpoint.w13,
        checkpoint.up_scale * checkpoint.input_scale / checkpoint.intermediate_scale,
        checkpoint.gate_scale * checkpoint.input_scale,
        checkpoint.down,
        checkpoint.intermediate_scale * checkpoint.down_scale,
        ids,
        weights,
        activation=3,
        weight_layout="w1_w3",
        intermediate_size=I,
    )
    assert relative_error(output, reference.output) < 0.005


def test_scale_shapes(checkpoint: Checkpoint):
    """All the ways to write the same scales give the same bits."""
    common = {"w13_scale": torch.full((E, 2), 0.004), "w2_scale": torch.full((E,), 0.003)}
    static = {"input_scale": 0.01, "intermediate_scale": 0.05}
    expected = FusedMoE(**checkpoint.arguments(**common, **static))(checkpoint.x8, checkpoint.logits)
    spellings = [
        {"w13_scale": 0.004, "w2_scale": torch.tensor(0.003)},
        {"w13_scale": torch.full((E,), 0.004), "w2_scale": torch.full((E, 1), 0.003)},
        {"w13_scale": torch.full((E, 2, 1), 0.004), "w2_scale": torch.full((1,), 0.003)},
        {"input_scale": torch.full((E,), 0.01), "intermediate_scale": torch.full((E, 1), 0.05)},
        {"input_scale": torch.linspace(0.001, 0.01, 2 * E).view(E, 2)},  # the widest range is used
    ]
    for spelling in spellings:
        layer = FusedMoE(**checkpoint.arguments(**{**common, **static, **spelling}))
        assert torch.equal(layer(checkpoint.x8, checkpoint.logits), expected)


def test_inverse_scales(checkpoint: Checkpoint):
    """Powers of two have exact reciprocals. The widest input range has the smallest multiplier."""
    dequantize = {
        "w13_scale": 2.0**-8,
        "w2_scale": 2.0**-7,
        "input_scale": 2.0**-6,
        "intermediate_scale": 2.0**-4,
    }
    quantize = {name: 1 / scale for name, scale in dequantize.items()}
    quantize["input_scale"] = torch.tensor([64.0, 128.0] * E).view(E, 2)
    expected = FusedMoE(**checkpoint.arguments(**dequantize))
    inverse = FusedMoE(**checkpoint.arguments(**quantize, scale_convention="quantize"))
    arguments = (checkpoint.x8, checkpoint.logits)
    assert torch.equal(inverse(*arguments), expected(*arguments))
    wrong = FusedMoE(**checkpoint.arguments(**quantize))
    assert not torch.equal(wrong(*arguments), expected(*arguments))


def test_from_gate_up_of_quantised_weights(checkpoint: Checkpoint):
    whole = FusedMoE(**checkpoint.arguments())
    halves = FusedMoE.from_gate_up(
        checkpoint.gate,
        checkpoint.up,
        checkpoint.down,
        gate_scale=checkpoint.gate_scale,
        up_scale=checkpoint.up_scale,
        w2_scale=checkpoint.down_scale,
        input_scale=checkpoint.input_scale,
        intermediate_scale=checkpoint.intermediate_scale,
        top_k=K,
    )
    arguments = (checkpoint.x8, checkpoint.logits)
    assert torch.equal(whole(*arguments), halves(*arguments))


def test_calibration_keeps_given_scales(checkpoint: Checkpoint):
    layer = FusedMoE(**checkpoint.arguments(intermediate_scale=None))
    assert layer.intermediate_scale is None
    x = checkpoint.x8.float() * checkpoint.input_scale
    layer.calibrate(x.bfloat16() * 100, checkpoint.logits)
    assert float(layer.input_scale) == pytest.approx(checkpoint.input_scale)
    layer.calibrate(checkpoint.x8, checkpoint.logits)
    assert relative_error(layer(checkpoint.x8, checkpoint.logits), checkpoint.expected()) < INTERMEDIATE_ERROR
    inner = (layer.intermediate_scale * 448).unique()
    assert inner.numel() == 1
    ids, _ = renormalize(checkpoint.logits)
    gate = torch.einsum("th,eih->tei", x, checkpoint.gate.float() * checkpoint.gate_scale[:, None, None])
    up = torch.einsum("th,eih->tei", x, checkpoint.up.float() * checkpoint.up_scale[:, None, None])
    used = torch.zeros(T, E, dtype=torch.bool).scatter(1, ids, torch.ones_like(ids, dtype=torch.bool))
    largest = (torch.nn.functional.silu(gate) * up)[used].abs().max()
    assert float(inner) == pytest.approx(float(largest), rel=1e-4)


def test_input_quantisation_saturates(checkpoint: Checkpoint):
    layer = FusedMoE(**checkpoint.arguments())
    x = torch.full((1, H), 1e6).bfloat16()
    largest = torch.full((1, H), 448.0).to(E4M3)
    logits = checkpoint.logits[:1]
    assert torch.equal(layer(x, logits), layer(largest, logits))
    x[0, 3] = torch.nan
    assert layer(x, logits).isnan().all()


def test_shapes_output_and_replay(checkpoint: Checkpoint):
    layer = FusedMoE(**checkpoint.arguments())
    expected = layer(checkpoint.x8, checkpoint.logits)
    nested = layer(checkpoint.x8.view(2, T // 2, H), checkpoint.logits)
    assert nested.shape == (2, T // 2, H)
    assert torch.equal(nested.view(T, H), expected)
    output = torch.full((T, H), torch.nan, dtype=torch.bfloat16)
    replay = torch.full((T, K), -1, dtype=torch.int16)
    assert (
        layer(checkpoint.x8, checkpoint.logits, output=output, routing_replay_out=replay).data_ptr()
        == output.data_ptr()
    )
    assert torch.equal(output, expected)
    ids, weights = renormalize(checkpoint.logits)
    assert torch.equal(replay.long(), ids)
    assert torch.equal(layer.forward_routed(checkpoint.x8, ids.int(), weights.bfloat16()), expected)
    assert layer(checkpoint.x8[:0], checkpoint.logits[:0]).shape == (0, H)


def test_expert_parallel_shards_add_up(checkpoint: Checkpoint):
    whole = FusedMoE(**checkpoint.arguments())(checkpoint.x8, checkpoint.logits)
    total = torch.zeros(T, H)
    for first, last in ((0, 2), (2, 3), (3, E)):
        arguments = checkpoint.arguments()
        for name in ("w13", "w2", "w13_scale", "w2_scale", "intermediate_scale"):
            arguments[name] = arguments[name][first:last]
        shard = FusedMoE(**arguments, num_experts=E, local_expert_offset=first)
        total += shard(checkpoint.x8, checkpoint.logits).float()
    # one bfloat16 rounding of each shard and of the whole: 2**-9 of each at most
    assert relative_error(total, whole.double()) < 2**-8


def test_llama4_scales_the_input(checkpoint: Checkpoint):
    layer = FusedMoE(**checkpoint.arguments(top_k=1, routing_method_type=RoutingMethodType.Llama4))
    ids, weights = oracle.route(checkpoint.logits, None, method=RoutingMethodType.Llama4, top_k=1)
    expected = dense_model(
        checkpoint.x8.double() * checkpoint.input_scale * weights,
        checkpoint.gate.double() * checkpoint.gate_scale[:, None, None],
        checkpoint.up.double() * checkpoint.up_scale[:, None, None],
        checkpoint.down.double() * checkpoint.down_scale[:, None, None],
        ids,
        torch.ones_like(weights),
    )
    assert relative_error(layer(checkpoint.x8, checkpoint.logits), expected) < INTERMEDIATE_ERROR


def test_routing_options_reach_the_operation(checkpoint: Checkpoint):
    bias = torch.linspace(-2, 2, E)
    options = {"n_group": 2, "topk_group": 1, "routed_scaling_factor": 2.5}
    layer = FusedMoE(**checkpoint.arguments(routing_method_type=2, routing_bias=bias, **options))
    ids, weights = oracle.route(checkpoint.logits, bias, method=2, top_k=K, **options)
    expected = layer.forward_routed(checkpoint.x8, ids.int(), weights.bfloat16())
    assert torch.equal(layer(checkpoint.x8, checkpoint.logits), expected)
    assert len(ids.unique()) < E


def test_state_dict_restores_calibration(checkpoint: Checkpoint):
    layer = FusedMoE(**checkpoint.arguments())
    other = FusedMoE(**{**checkpoint.arguments(), "intermediate_scale": 1.0, "w2_scale": 1.0})
    other.load_state_dict(layer.state_dict())
    not_calibrated = FusedMoE(**checkpoint.arguments(input_scale=None, intermediate_scale=None))
    not_calibrated.load_state_dict(layer.state_dict())
    arguments = (checkpoint.x8, checkpoint.logits)
    assert torch.equal(other(*arguments), layer(*arguments))
    assert torch.equal(not_calibrated(*arguments), layer(*arguments))


def test_a_layer_can_be_built_without_memory(checkpoint: Checkpoint):
    layer = FusedMoE(**checkpoint.arguments())
    with torch.device("meta"):
        empty = {
            name: torch.empty_like(value, device="meta") if isinstance(value, torch.Tensor) else value
            for name, value in checkpoint.arguments().items()
        }
        other = FusedMoE(**empty)
    other.to_empty(device="cpu").load_state_dict(layer.state_dict())
    arguments = (checkpoint.x8, checkpoint.logits)
    assert torch.equal(other(*arguments), layer(*arguments))


@pytest.mark.parametrize("cast", [torch.nn.Module.half, torch.nn.Module.double, torch.nn.Module.bfloat16])
def test_casts_of_a_model_leave_the_layer(checkpoint: Checkpoint, cast: Callable[[torch.nn.Module], Any]):
    layer = FusedMoE(**checkpoint.arguments(routing_method_type=2, routing_bias=torch.randn(E)))
    expected = layer(checkpoint.x8, checkpoint.logits)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), layer)
    dtypes = {name: value.dtype for name, value in layer.state_dict().items()}
    cast(model)
    assert model[0].weight.dtype != torch.float32
    assert {name: value.dtype for name, value in layer.state_dict().items()} == dtypes
    assert torch.equal(layer(checkpoint.x8, checkpoint.logits), expected)
    assert model.to("meta")[1].w13.is_meta


BAD = [
    ({"scale_convention": "inverse"}, ValueError, "'dequantize' or 'quantize', got 'inverse'"),
    ({"w13_scale": None}, TypeError, "w13_scale must be a float or a torch.Tensor with float8"),
    ({"w2_scale": "1"}, TypeError, "w2_scale must be a float or a torch.Tensor, got str '1'"),
    ({"w2_scale": torch.ones(E + 1)}, ValueError, "w2_scale must be one value, [6] (one per"),
    ({"w13_scale": torch.ones(E, 3)}, ValueError, "w13_scale must be one value, [6] or [6, 2]"),
    ({"input_scale": -1.0}, ValueError, "input_scale must be positive and finite, got -1.0"),
    ({"intermediate_scale": torch.nan}, ValueError, "intermediate_scale must be finite in float32"),
    ({"activation_type": 6}, ValueError, "w13 must be of shape (6 (w2.shape[0]), 96 (w2.shape[2]"),
    ({"w13": None}, TypeError, "w13 must be a torch.Tensor, got None"),
    ({"w13": torch.zeros(E, 2 * I, H)}, ValueError, "w13 must be quantised exactly when w2"),
    ({"w2": torch.zeros(E, H)}, ValueError, "w2 must be 3-dimensional, got shape (6, 128)"),
    ({"routing_method_type": 9}, ValueError, "pass 10 for TopKSigmoid"),
    ({"w13_order": "shuffled"}, ValueError, "w13_order must be one of 'w3_w1', 'w1_w3'; got 'shuffled'"),
    (
        {"w2": torch.zeros(E, H, I + 8).to(torch.float8_e4m3fn)},
        ValueError,
        "w2.shape[2] must be a multiple of 16",
    ),
    ({"top_k": 0}, ValueError, "top_k must be in [1, 6]"),
    ({"top_k": 2.0}, TypeError, "top_k must be an int, got float"),
    ({"num_experts": E - 1}, ValueError, "local_num_experts must be in [1, 5]"),
    ({"local_expert_offset": 1}, ValueError, "local_expert_offset must be in [0, 0]"),
    ({"routed_scaling_factor": 10**400}, ValueError, "routed_scaling_factor must be finite"),
    ({"routing_bias": torch.zeros(E + 1)}, ValueError, "routing_bias must be of shape (6 (num_experts))"),
    ({"routing_bias": 1.0}, TypeError, "routing_bias must be a torch.Tensor or None"),
    ({"norm_topk_prob": 1}, TypeError, "norm_topk_prob must be a bool"),
    ({"input_scale": 10**400}, ValueError, "input_scale must be finite"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str, checkpoint: Checkpoint):
    with pytest.raises(error) as raised:
        FusedMoE(**checkpoint.arguments(**change))
    assert message in str(raised.value)


def test_scales_of_unquantised_weights_are_rejected():
    gate, up, down = float_weights()
    with pytest.raises(ValueError, match="w2_scale must be None with weights to quantise"):
        FusedMoE.from_gate_up(gate, up, down, top_k=K, w2_scale=1.0)


def test_missing_static_scales_are_reported(checkpoint: Checkpoint):
    x = checkpoint.x8.bfloat16()
    layer = FusedMoE(**checkpoint.arguments(input_scale=None))
    with pytest.raises(ValueError, match=r"input_scale must be given .* calibrate"):
        layer(x, checkpoint.logits)
    layer = FusedMoE(**checkpoint.arguments(intermediate_scale=None))
    with pytest.raises(ValueError, match=r"intermediate_scale must be given .* calibrate"):
        layer(x, checkpoint.logits)


@pytest.mark.parametrize(
    ("hidden_states", "error", "message"),
    [
        (torch.zeros(T // 2, 2 * H), ValueError, "of shape (..., 128 (w2.shape[1])), got shape (20, 256)"),
        (torch.zeros(H), ValueError, "of shape (..., 128 (w2.shape[1])), got shape (128,)"),
        (torch.zeros(T, H, dtype=torch.int32), ValueError, "a wider float, got torch.int32"),
        ([[0.0] * H], TypeError, "hidden_states must be a torch.Tensor, got list"),
    ],
)
def test_bad_inputs(hidden_states: Any, error: type[Exception], message: str, checkpoint: Checkpoint):
    layer = FusedMoE(**checkpoint.arguments())
    with pytest.raises(error) as raised:
        layer(hidden_states, checkpoint.logits)
    assert message in str(raised.value)


def test_a_calibration_that_fails_changes_nothing() -> None:
    layer = FusedMoE(torch.randn(E, 2 * I, H), torch.randn(E, H, I), top_k=K)
    x, logits = inputs()
    for _ in range(2):
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        with pytest.raises(ValueError, match="routing_logits must be of shape"):
            layer.calibrate(3 * x, logits[:-1])
        assert layer.state_dict().keys() == before.keys()
        assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
        layer.calibrate(x, logits)


def test_calibration_with_the_routing_done_chooses_the_same_scales() -> None:
    w13, w2 = torch.randn(E, 2 * I, H), torch.randn(E, H, I)
    x, logits = inputs()
    from_logits, routed = (FusedMoE(w13, w2, top_k=K) for _ in range(2))
    from_logits.calibrate(x, logits)
    ids, weights = oracle.route(logits, None, method=RoutingMethodType.Renormalize, top_k=K)
    routed.calibrate_routed(x, ids.int(), weights.bfloat16())
    assert routed.input_scale == from_logits.input_scale
    assert torch.equal(routed.intermediate_scale, from_logits.intermediate_scale)
    assert torch.equal(routed(x, logits), from_logits(x, logits))
