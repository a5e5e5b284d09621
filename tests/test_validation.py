"""Every invalid call raises an error that names the argument, what was given and what is expected."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
import torch

import moe_jit
from moe_jit import fused_moe

T, E, K, H, I = 4, 8, 2, 64, 32  # noqa: E741
E4M3 = torch.float8_e4m3fn
BF16 = torch.bfloat16


def fp8(*shape: int) -> torch.Tensor:
    return torch.randn(shape).clamp(-4, 4).to(E4M3)


def experts(rows: int = 2 * I) -> dict[str, Any]:
    return {
        "hidden_states": fp8(T, H),
        "gemm1_weights": fp8(E, rows, H),
        "output1_scales_scalar": torch.full((E,), 0.02),
        "output1_scales_gate_scalar": torch.full((E,), 0.02),
        "gemm2_weights": fp8(E, H, I),
        "output2_scales_scalar": torch.full((E,), 0.02),
        "num_experts": E,
        "top_k": K,
        "intermediate_size": I,
        "local_expert_offset": 0,
        "local_num_experts": E,
        "use_routing_scales_on_input": False,
        "do_finalize": True,
        "enable_pdl": None,
        "tune_max_num_tokens": 8192,
        "activation_type": 3,
        "routing_replay_out": torch.zeros(T, K, dtype=torch.int16),
        "output": torch.zeros(T, H, dtype=BF16),
        "weight_layout": "shuffled",
    }


torch.manual_seed(0)
FROM_LOGITS = {
    "routing_logits": torch.randn(T, E),
    "routing_bias": torch.randn(E),
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "routing_method_type": 2,
    "norm_topk_prob": True,
    **experts(),
}
PRE_ROUTED = {
    "topk_ids": torch.arange(T * K, dtype=torch.int32).view(T, K) % E,
    "topk_weights": torch.rand(T, K).to(BF16),
    **experts(),
}
FUNCTIONS = {
    "logits": (moe_jit.trtllm_fp8_per_tensor_scale_moe, FROM_LOGITS),
    "routed": (moe_jit.trtllm_fp8_per_tensor_scale_routed_moe, PRE_ROUTED),
}

FLOATS = "torch.float32 or torch.bfloat16"
# name -> accepted dtypes, a wrong dtype, and the text of the expected shape
TENSORS = {
    "routing_logits": (
        "torch.float32 or torch.bfloat16",
        torch.float16,
        "(4 (hidden_states.shape[0]), 8 (num_experts))",
    ),
    "routing_bias": ("torch.float32 or torch.bfloat16", torch.float64, "(8 (num_experts))"),
    "topk_ids": ("torch.int32", torch.int64, "(4 (hidden_states.shape[0]), 2 (top_k))"),
    "topk_weights": ("torch.bfloat16", torch.float32, "(4 (hidden_states.shape[0]), 2 (top_k))"),
    "hidden_states": ("torch.float8_e4m3fn", BF16, None),
    "gemm1_weights": (
        "torch.float8_e4m3fn",
        torch.float8_e5m2,
        "(>= 8 (local_num_experts), 64 (2 * intermediate_size, activation_type 3 (Swiglu)), "
        "64 (hidden_states.shape[1]))",
    ),
    "output1_scales_scalar": ("torch.float32", BF16, "(8 (local_num_experts))"),
    "output1_scales_gate_scalar": ("torch.float32", torch.float64, "(8 (local_num_experts))"),
    "gemm2_weights": (
        "torch.float8_e4m3fn",
        torch.uint8,
        "(>= 8 (local_num_experts), 64 (hidden_states.shape[1]), 32 (intermediate_size))",
    ),
    "output2_scales_scalar": ("torch.float32", torch.float16, "(8 (local_num_experts))"),
    "routing_replay_out": ("torch.int16", torch.int32, "(>= 4 (hidden_states.shape[0]), 2 (top_k))"),
    "output": ("torch.bfloat16", torch.float16, "(4 (hidden_states.shape[0]), 64 (hidden_states.shape[1]))"),
}
OPTIONAL = ("routing_bias", "routing_replay_out", "output")


class Case(NamedTuple):
    function: str
    change: dict[str, Any]
    error: type[Exception]
    name: str
    given: str
    expected: str

    @property
    def label(self) -> str:
        return f"{self.function}-{self.name}-{self.given}"[:70]


def strided(value: torch.Tensor) -> torch.Tensor:
    """The same shape, not contiguous."""
    wide = torch.zeros(*value.shape[:-1], 2 * value.shape[-1], dtype=torch.uint8)
    return wide.to(value.dtype)[..., ::2]


def tensor_cases(function: str) -> list[Case]:
    base = FUNCTIONS[function][1]
    cases = []

    def add(name: str, value: object, error: type[Exception], given: str, expected: str) -> None:
        cases.append(Case(function, {name: value}, error, name, given, expected))

    for name, (dtypes, wrong_dtype, shape) in TENSORS.items():
        if name not in base:
            continue
        good = base[name]
        if name not in OPTIONAL:
            add(name, None, TypeError, "None", "a torch.Tensor")
        add(name, good.float().tolist(), TypeError, "list", "a torch.Tensor")
        add(name, good.to(wrong_dtype), ValueError, str(wrong_dtype), dtypes)
        add(name, good[None], ValueError, str((1, *good.shape)), f"{good.dim()}-dimensional")
        add(name, strided(good), ValueError, "strides", "contiguous")
        if name == "hidden_states":
            add(name, good.to("meta"), ValueError, "meta", "on the CPU or on a GPU of compute capability 9.0")
        else:
            add(name, good.to("meta"), ValueError, "meta", "on cpu, the device of hidden_states")
        if shape is not None:
            for dim in range(good.dim()):
                size = list(good.shape)
                size[dim] -= 1
                add(name, torch.zeros(size, dtype=good.dtype), ValueError, f"shape {tuple(size)}", shape)
        if shape is not None and not shape.startswith("(>="):
            longer = (good.shape[0] + 1, *good.shape[1:])
            add(name, torch.zeros(longer, dtype=good.dtype), ValueError, f"shape {longer}", shape)
    return cases


def scalar_cases(function: str) -> list[Case]:
    base = FUNCTIONS[function][1]
    cases = []

    def add(name: str, value: object, error: type[Exception], expected: str) -> None:
        if name in base:
            given = (
                f"{type(value).__name__} {value!r}"
                if error is TypeError and value is not None
                else str(value)
            )
            cases.append(Case(function, {name: value}, error, name, given, expected))

    for name in ("num_experts", "top_k", "intermediate_size", "local_expert_offset", "local_num_experts"):
        for value in (None, True, 2.0, "2", torch.tensor(2)):
            add(name, value, TypeError, "an int")
        add(name, -1, ValueError, "in [" if name != "intermediate_size" else "at least 1")
    for value in (None, 1.0, False, 0, 2**31):
        error = ValueError if value in (0, 2**31) and value is not False else TypeError
        add("tune_max_num_tokens", value, error, "in [1, 2147483647]" if error is ValueError else "an int")
    for name in ("use_routing_scales_on_input", "do_finalize", "norm_topk_prob", "fast_accum"):
        for value in (None, 0, 1, "yes", torch.tensor(True)):
            add(name, value, TypeError, "a bool")
    for value in (0, 1, "yes"):
        add("enable_pdl", value, TypeError, "a bool or None")
    for name in ("n_group", "topk_group"):
        for value in (True, 2.0, "2"):
            add(name, value, TypeError, "an int or None")
    for value in (True, "2.5", torch.tensor(2.5)):
        add("routed_scaling_factor", value, TypeError, "a float or None")
    for value in (math.inf, -math.inf, math.nan):
        add("routed_scaling_factor", value, ValueError, "finite")
    return cases


def rule(name: str, given: str, expected: str, **change: Any) -> Case:
    return Case("logits", change, ValueError, name, given, expected)


SHARED = torch.zeros(T * H * 2, dtype=torch.uint8)
SHARED_HIDDEN = SHARED[: T * H].view(E4M3).view(T, H)
SHARED_OUTPUT = SHARED.view(BF16).view(T, H)
SHARED_REPLAY = SHARED[-2 * T * K :].view(torch.int16).view(T, K)
ACTIVATIONS = "0 (Gelu), 3 (Swiglu), 4 (Geglu), 6 (Relu2), 7 (Identity) or 9"

RULES = [
    # counts
    rule("num_experts", "0", "in [1, 2048]", num_experts=0),
    rule("num_experts", "2049", "in [1, 2048]", num_experts=2049),
    rule("top_k", "0", "in [1, 8]", top_k=0),
    rule("top_k", "9", "in [1, 8] (num_experts 8", top_k=9),
    rule("top_k", "33", "in [1, 32]", num_experts=64, top_k=33),
    rule("local_num_experts", "0", "in [1, 8] (num_experts)", local_num_experts=0),
    rule("local_num_experts", "9", "in [1, 8] (num_experts)", local_num_experts=9),
    rule("local_expert_offset", "1", "num_experts 8 - local_num_experts 8", local_expert_offset=1),
    rule("local_expert_offset", "5", "in [0, 4]", local_expert_offset=5, local_num_experts=4),
    rule(
        "num_tokens * top_k",
        str(2**26 * 32),
        "below 2**31 with num_tokens 67108864 (hidden_states.shape[0]) and top_k 32",
        hidden_states=torch.empty(2**26, 16, dtype=E4M3),  # 1 GiB, never touched
        num_experts=32,
        top_k=32,
        routing_method_type=1,
        weight_layout="w3_w1",
    ),
    # expert tensors against the counts and sizes
    rule("output1_scales_scalar", "shape (8,)", "4 (local_num_experts)", local_num_experts=4),
    rule("routing_logits", "shape (4, 8)", "16 (num_experts)", num_experts=16),
    rule("routing_logits", "shape (4, 8)", "3 (hidden_states.shape[0])", hidden_states=fp8(3, H)),
    rule("gemm1_weights", "shape (8, 64, 64)", "96 (2 * intermediate_size", intermediate_size=48),
    rule("gemm1_weights", "shape (8, 64, 64)", "32 (intermediate_size, activation_type 6", activation_type=6),
    rule("gemm1_weights", "shape (8, 32, 64)", "64 (2 * intermediate_size", gemm1_weights=fp8(E, I, H)),
    rule("gemm1_weights", "shape (8, 64, 64)", "96 (hidden_states.shape[1])", hidden_states=fp8(T, 96)),
    rule("gemm2_weights", "shape (8, 32, 64)", "64 (hidden_states.shape[1]), 32", gemm2_weights=fp8(E, I, H)),
    # sizes
    rule("hidden_states", "shape (4, 0)", "hidden_size >= 16", hidden_states=fp8(T, 0)),
    rule("hidden_states.shape[1]", "48", "multiple of 32 (weight_layout", hidden_states=fp8(T, 48)),
    rule("hidden_states.shape[1]", "72", "multiple of 16", hidden_states=fp8(T, 72), weight_layout="w3_w1"),
    rule("intermediate_size", "0", "at least 1", intermediate_size=0),
    rule("intermediate_size", "40", "multiple of 16 (weight_layout 'shuffled'", intermediate_size=40),
    rule("intermediate_size", "48", "multiple of 32", intermediate_size=48, activation_type=0),
    rule("intermediate_size", "24", "multiple of 16", intermediate_size=24, weight_layout="w1_w3"),
    # routing
    rule("routing_method_type", "9 = Unspecified here", "pass 10 for TopKSigmoid", routing_method_type=9),
    rule("routing_method_type", "11", "10 (TopKSigmoid)", routing_method_type=11),
    rule("routing_method_type", "-1", "0 (Default)", routing_method_type=-1),
    rule("top_k", "2", "1 with routing_method_type 3 (Llama4)", routing_method_type=3),
    rule("n_group", "-1", "in [0, 4]", n_group=-1),
    rule("n_group", "3", "a divisor of num_experts 8", n_group=3),
    rule("n_group", "8", "at least two of num_experts 8 in a group", n_group=8),
    rule("topk_group", "None", "an int in [1, 4] (n_group)", topk_group=None),
    rule("topk_group", "0", "in [1, 4] (n_group)", topk_group=0),
    rule("topk_group", "5", "in [1, 4] (n_group)", topk_group=5),
    rule("top_k", "3", "at most 2 (topk_group 1 * num_experts 8 / n_group 4)", top_k=3, topk_group=1),
    # activation and layout
    *(rule("activation_type", str(n), ACTIVATIONS, activation_type=n) for n in (-1, 1, 2, 5, 8, 10, 11)),
    rule("weight_layout", "'w1w3'", "'shuffled', 'w3_w1', 'w1_w3'", weight_layout="w1w3"),
    # written tensors
    rule(
        "output",
        "overlaps hidden_states",
        "disjoint from hidden_states",
        output=SHARED_OUTPUT,
        hidden_states=SHARED_HIDDEN,
    ),
    rule(
        "output",
        "overlaps routing_replay_out",
        "disjoint from routing_replay_out",
        output=SHARED_OUTPUT,
        routing_replay_out=SHARED_REPLAY,
    ),
    rule(
        "routing_replay_out",
        "overlaps hidden_states",
        "disjoint from hidden_states",
        hidden_states=SHARED_HIDDEN,
        routing_replay_out=SHARED[: 2 * T * K].view(torch.int16).view(T, K),
    ),
]
TYPES = [
    Case("logits", {"routing_method_type": None}, TypeError, "routing_method_type", "NoneType", "an int"),
    Case("logits", {"routing_method_type": True}, TypeError, "routing_method_type", "bool", "an int"),
    Case("logits", {"routing_method_type": 2.0}, TypeError, "routing_method_type", "float", "an int"),
    Case("logits", {"activation_type": None}, TypeError, "activation_type", "NoneType", "an int"),
    Case("logits", {"activation_type": "swiglu"}, TypeError, "activation_type", "str", "an int"),
    Case("routed", {"activation_type": 3.0}, TypeError, "activation_type", "float", "an int"),
    Case("logits", {"weight_layout": None}, TypeError, "weight_layout", "NoneType", "a str"),
    Case("routed", {"weight_layout": 0}, TypeError, "weight_layout", "int", "a str"),
    Case("routed", {"weight_layout": ["shuffled"]}, TypeError, "weight_layout", "list", "a str"),
]
CASES = [
    *tensor_cases("logits"),
    *tensor_cases("routed"),
    *scalar_cases("logits"),
    *scalar_cases("routed"),
    *RULES,
    *TYPES,
]


def call(name: str, **change: Any) -> Any:
    function, base = FUNCTIONS[name]
    return function(**{**base, **change})


@pytest.fixture(scope="module")
def valid() -> dict[str, torch.Tensor]:
    """Results of the unchanged calls, which also puts their signatures into the cache."""
    return {name: call(name).clone() for name in FUNCTIONS}


def test_the_table_is_large():
    assert len(CASES) > 120
    assert {c.name for c in CASES} > set(FROM_LOGITS) | set(PRE_ROUTED)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.label)
def test_invalid_call(case: Case, valid: dict[str, torch.Tensor]):
    for _ in range(2):  # a rejected call must not be remembered as valid
        with pytest.raises((TypeError, ValueError)) as raised:
            call(case.function, **case.change)
        assert raised.type is case.error
        message = str(raised.value)
        assert message.startswith(case.name)
        assert case.given in message
        assert case.expected in message
    assert torch.equal(call(case.function), valid[case.function])


def test_ignored_arguments_are_not_restricted(valid: dict[str, torch.Tensor]):
    """Groups belong to method 2, and an output buffer to do_finalize=True."""
    call("logits", routing_method_type=1, n_group=-7, topk_group=1000)
    call("logits", n_group=1, topk_group=1000)
    call("logits", do_finalize=False, output=torch.zeros(1))


def test_limits_are_inclusive(valid: dict[str, torch.Tensor]):
    call("logits", top_k=4, routing_replay_out=None)  # topk_group * experts per group
    call("logits", routing_replay_out=torch.zeros(T + 3, K, dtype=torch.int16))
    call("logits", gemm1_weights=fp8(E + 1, 2 * I, H), gemm2_weights=fp8(E + 2, H, I))
    call(
        "logits",
        num_experts=2048,
        top_k=32,
        routing_logits=torch.randn(T, 2048),
        routing_bias=torch.randn(2048),
        n_group=1024,
        topk_group=16,
        local_expert_offset=2040,
        routing_replay_out=None,
    )
    call("logits", activation_type=9, gemm1_weights=fp8(E, I, H))


def test_equal_values_of_another_type_do_not_hit_the_cache(valid: dict[str, torch.Tensor]):
    call("logits", top_k=1, routing_replay_out=None)
    with pytest.raises(TypeError, match=r"top_k must be an int, got bool True"):
        call("logits", top_k=True, routing_replay_out=None)


def test_no_device_memory_is_read():
    """Validation of meta tensors gets as far as the device: there is no data to look at."""
    on_meta = {k: v.to("meta") for k, v in FROM_LOGITS.items() if isinstance(v, torch.Tensor)}
    with pytest.raises(ValueError, match="hidden_states must be on the CPU or on a GPU"):
        call("logits", **on_meta)


def test_signature_cache_is_bounded(monkeypatch: pytest.MonkeyPatch, valid: dict[str, torch.Tensor]):
    monkeypatch.setattr(fused_moe, "_MAX_SIGNATURES", 4)
    monkeypatch.setattr(fused_moe, "_launchers", {})
    for tokens in range(1, 12):
        call(
            "logits",
            routing_logits=torch.randn(tokens, E),
            hidden_states=fp8(tokens, H),
            routing_replay_out=None,
            output=None,
        )
        assert len(fused_moe._launchers) <= 4


@pytest.mark.parametrize("name", FUNCTIONS)
def test_no_tokens(name: str):
    """T = 0 returns empty results, writes nothing and needs no compiled module."""
    empty = {
        k: v[:0] for k, v in FUNCTIONS[name][1].items() if k in ("routing_logits", "topk_ids", "topk_weights")
    }
    empty["hidden_states"] = fp8(0, H)
    replay = torch.full((T, K), -5, dtype=torch.int16)
    output = torch.empty(0, H, dtype=BF16)
    assert call(name, **empty, routing_replay_out=replay, output=output) is output
    fresh = call(name, **empty, routing_replay_out=replay, output=None)
    assert fresh.shape == (0, H)
    assert fresh.dtype == BF16
    parts = call(name, **empty, routing_replay_out=replay, output=None, do_finalize=False)
    assert isinstance(parts, list)
    assert [(p.shape, p.dtype) for p in parts] == [((0, H), BF16), ((0, K), BF16), ((0,), torch.int32)]
    assert (replay == -5).all()
