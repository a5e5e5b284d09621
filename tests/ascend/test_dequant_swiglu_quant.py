"""npu_dequant_swiglu_quant and npu_dynamic_quant against the reference."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
from support.ascend import Inputs, backends, check_quantised, inputs_on
from support.calls import poisoned_allocations

import moe_jit
from moe_jit.reference import ascend as reference

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(params=backends("dequant_swiglu_quant"))
def inputs(request) -> Iterator[Inputs]:
    yield from inputs_on(request.param)


def run(x: torch.Tensor, **arguments):
    with poisoned_allocations():
        return moe_jit.npu_dequant_swiglu_quant(x, **arguments)


def check(inputs: Inputs, x: torch.Tensor, **arguments) -> tuple[torch.Tensor, torch.Tensor]:
    y, scale = run(x, **arguments)
    assert y.dtype == torch.int8
    assert scale.dtype == torch.float32
    assert y.shape == (x.shape[0], x.shape[1] // 2)
    on_cpu = {name: v.cpu() if isinstance(v, torch.Tensor) else v for name, v in arguments.items()}
    expected = reference.dequant_swiglu_quant(x.cpu(), **on_cpu)
    check_quantised(y, scale, expected, f"{inputs.note} {tuple(x.shape)} {x.dtype} {sorted(arguments)}")
    return y, scale


def accumulators(inputs: Inputs, rows: int, width: int) -> torch.Tensor:
    return inputs.integers(rows, width, low=-60000, high=60000, dtype=torch.int32)


def bias_of(inputs: Inputs, dtype: torch.dtype | None, *shape: int) -> torch.Tensor | None:
    if dtype is None:
        return None
    if dtype == torch.int32:
        return inputs.integers(*shape, low=-30000, high=30000, dtype=dtype)
    return inputs.normal(*shape, dtype=dtype)


@pytest.mark.parametrize("activate_left", [False, True])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("bias", [None, torch.int32, *FLOATS])
@pytest.mark.parametrize("mode", ["dynamic", "smooth", "static", "static scalar", "static offset", "none"])
def test_int32(inputs: Inputs, mode: str, bias: torch.dtype | None, grouped: bool, activate_left: bool):
    groups, rows, width = (5, 37, 66) if grouped else (1, 13, 130)
    shape = (groups, width // 2) if mode != "static scalar" else (groups,)
    arguments = {
        "weight_scale": inputs.positive(groups, width, high=1e-4),
        "activation_scale": inputs.positive(rows, high=1.0) if inputs.random.random() < 0.7 else None,
        "bias": bias_of(inputs, bias, groups, width),
        "group_index": inputs.counts(groups, rows) if grouped else None,
        "activate_left": activate_left,
        "quant_mode": int(mode in ("dynamic", "smooth")),
    }
    if mode not in ("dynamic", "none"):
        arguments["quant_scale"] = inputs.positive(*shape, high=0.3 if mode != "smooth" else 2.0)
    if mode == "static offset":
        arguments["quant_offset"] = inputs.normal(*shape, std=3.0)
    _, scale = check(inputs, accumulators(inputs, rows, width), **arguments)
    assert arguments["quant_mode"] == 1 or not scale.any()


@pytest.mark.parametrize("swiglu_mode", [0, 1, 2, 3])
@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_float_inputs_and_glu_modes(inputs: Inputs, dtype: torch.dtype, grouped: bool, swiglu_mode: int):
    if grouped and dtype == torch.float16:
        pytest.skip("float16 has no grouped form")
    for quant_mode in (0, 1):
        check(
            inputs,
            inputs.normal(21, 62, dtype=dtype, std=5.0),
            group_index=inputs.counts(4, 21) if grouped else None,
            quant_mode=quant_mode,
            quant_scale=inputs.positive(4 if grouped else 1, 31) if quant_mode else None,
            activate_left=inputs.random.random() < 0.5,
            swiglu_mode=swiglu_mode,
            clamp_limit=3.5,
            glu_alpha=1.3,
            glu_bias=0.7,
        )


def test_clamp_defaults(inputs: Inputs):
    x = inputs.normal(9, 64, dtype=torch.bfloat16, std=10.0)
    check(inputs, x, quant_mode=1, swiglu_mode=1, group_index=inputs.counts(2, 9))


@pytest.mark.parametrize("rows", [1, 2, 130])
@pytest.mark.parametrize("width", [2, 6, 1028])
def test_sizes(inputs: Inputs, rows: int, width: int):
    x = accumulators(inputs, rows, width)
    check(inputs, x, weight_scale=inputs.positive(width, high=1e-4), quant_mode=1, activate_left=True)


@pytest.mark.parametrize("groups", [1, 7, 300])
def test_rows_after_the_last_group_are_zero(inputs: Inputs, groups: int):
    rows, width = 40, 34
    y, scale = check(
        inputs,
        accumulators(inputs, rows, width),
        weight_scale=inputs.positive(groups, width, high=1e-4),
        activation_scale=inputs.positive(rows, 1),
        group_index=inputs.counts(groups, 29),
        quant_mode=1,
    )
    assert not y[29:].any()
    assert not scale[29:].any()
    assert scale[:29].all()


def test_pairs_select_parameters_and_end_at_the_first_empty_one(inputs: Inputs):
    width, table = 20, [[3, 4], [0, 5], [1, 0], [2, 6]]
    scale = inputs.positive(4, width, high=1e-4)
    x = accumulators(inputs, 15, width)
    pairs = torch.tensor(table, device=inputs.device)
    y, row_scale = check(inputs, x, weight_scale=scale, group_index=pairs, quant_mode=1)
    assert not y[9:].any()
    counts = torch.tensor([5, 0, 0, 4], device=inputs.device)
    order = torch.cat([torch.arange(4, 9), torch.arange(4)])
    y_counts, scale_counts = run(x[order], weight_scale=scale, group_index=counts, quant_mode=1)
    assert torch.equal(y_counts[:9], y[order])
    assert torch.equal(scale_counts[:9], row_scale[order])


def test_negative_counts_are_empty_groups(inputs: Inputs):
    counts = torch.tensor([2, -3, 4], device=inputs.device)
    x = accumulators(inputs, 6, 12)
    check(inputs, x, weight_scale=inputs.positive(3, 12, high=1e-4), group_index=counts, quant_mode=1)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("quant_mode", [0, 1])
def test_rows_of_zeros(inputs: Inputs, grouped: bool, quant_mode: int):
    x = accumulators(inputs, 5, 16)
    x[2] = 0
    y, scale = run(
        x,
        weight_scale=inputs.positive(1, 16, high=1e-4),
        group_index=torch.tensor([5], device=inputs.device) if grouped else None,
        quant_mode=quant_mode,
    )
    assert not y[2].any()
    assert scale[2] == 0


@pytest.mark.parametrize("grouped", [False, True])
def test_recipe_bit_by_bit(inputs: Inputs, grouped: bool):
    """Where the activated half is large, swish is the identity: only fp32 products and quotients remain."""
    rows, half = 400, 50
    activated = inputs.positive(rows, half, high=200.0).bfloat16()
    linear = inputs.normal(rows, half).bfloat16()
    index = torch.tensor([rows], device=inputs.device) if grouped else None
    x = torch.cat([activated, linear], dim=1)
    y, scale = (t.cpu() for t in run(x, group_index=index, quant_mode=1, activate_left=True))
    v = activated.float().cpu() * linear.float().cpu()
    amax = v.abs().amax(dim=1)
    expected_scale = amax * (torch.tensor(1.0) / 127.0) if grouped else amax / 127.0
    ratio = v / expected_scale[:, None] if grouped else v * (1.0 / expected_scale)[:, None]
    assert torch.equal(scale, expected_scale)
    assert torch.equal(y, ratio.round().to(torch.int8))


def recipes(v: torch.Tensor, amax: torch.Tensor) -> dict[str, torch.Tensor]:
    """The three ways to quantise ``v`` with the largest magnitude ``amax``, in float32.

    On the CPU, because torch multiplies by 1 / 127 instead of dividing on a GPU.
    """
    v, amax = v.cpu(), amax.cpu()
    by_reciprocal, by_quotient = amax * (torch.tensor(1.0) / 127.0), amax / 127.0
    return {
        "grouped": (v / by_reciprocal).round(),
        "ungrouped": (v * (1.0 / by_quotient)).round(),
        "dynamic": (v * (torch.tensor(127.0) / amax)).round(),
    }


@pytest.mark.parametrize(
    ("recipe", "other"), list(itertools.permutations(("grouped", "ungrouped", "dynamic"), 2))
)
def test_values_next_to_ties_tell_the_recipes_apart(inputs: Inputs, recipe: str, other: str):
    count = 2_000_000
    amax = inputs.integers(count, low=2**19, high=2**20, dtype=torch.float32)
    v = (inputs.integers(count, low=0, high=126, dtype=torch.float32) + 0.5) * amax / 127
    v = v.round().minimum(amax)
    results = recipes(v, amax)
    rows = (results[recipe] != results[other]).nonzero().flatten()[:500]
    assert len(rows) > 20, inputs.note
    linear = torch.stack([amax.cpu()[rows], v.cpu()[rows]], dim=1).to(inputs.device)
    if recipe == "dynamic":
        y, _ = moe_jit.npu_dynamic_quant(linear)
    else:
        x = torch.cat([torch.full_like(linear, 64.0), linear], dim=1).int()  # swish(64) is 64
        index = torch.tensor([len(rows)], device=inputs.device) if recipe == "grouped" else None
        scale = torch.ones(1, 4, device=inputs.device)
        y, _ = run(x, weight_scale=scale, group_index=index, quant_mode=1, activate_left=True)
    assert torch.equal(y[:, 1].float().cpu(), results[recipe][rows])


@pytest.mark.parametrize("scalar", [False, True])
def test_values_next_to_ties_tell_the_static_recipes_apart(inputs: Inputs, scalar: bool):
    """One scale of a group multiplies by its reciprocal, a row of them divides."""
    groups, half = 500, 127
    scale = (2.0**28 * (1 + inputs.positive(groups, 1))).cpu()
    linear = ((torch.arange(half) + 0.5) * scale / 64).round()  # below 2**31
    results = {True: (64 * linear * (1.0 / scale)).round(), False: (64 * linear / scale).round()}
    assert (results[True] != results[False]).sum() > 20, inputs.note
    x = torch.cat([torch.full_like(linear, 64.0), linear], dim=1).int()  # swish(64) is 64
    y, _ = run(
        x.to(inputs.device),
        weight_scale=torch.ones(groups, 2 * half, device=inputs.device),
        quant_scale=(scale[:, 0] if scalar else scale.expand(-1, half)).to(inputs.device),
        group_index=torch.ones(groups, dtype=torch.int64, device=inputs.device),
        activate_left=True,
    )
    assert torch.equal(y.float().cpu(), results[scalar])


def test_static_recipe_bit_by_bit(inputs: Inputs):
    activated, linear = inputs.positive(300, 40, high=200.0), inputs.normal(300, 40)
    x = torch.cat([activated, linear], dim=1).bfloat16()
    v = x[:, :40].float() * x[:, 40:].float()
    vector, scalar = inputs.positive(1, 40, high=1.5), inputs.positive(1, high=1.5)
    y, _ = run(x, quant_scale=vector, activate_left=True)
    assert torch.equal(y, (v / vector).round().clamp(-128, 127).to(torch.int8))
    y, _ = run(x, quant_scale=scalar, activate_left=True)
    assert torch.equal(y, (v * (1.0 / scalar)).round().clamp(-128, 127).to(torch.int8))


def test_grouped_equals_separate_calls(inputs: Inputs):
    """Up to the last bit of the recipe: at most one unit apart."""
    rows, width, groups = 64, 48, 4
    counts = inputs.counts(groups, rows, empty=False)
    x, scale = accumulators(inputs, rows, width), inputs.positive(groups, width, high=1e-4)
    y, row_scale = run(x, weight_scale=scale, group_index=counts, quant_mode=1)
    parts = zip(x.split(counts.tolist()), scale, strict=True)
    separate = [run(part, weight_scale=one, quant_mode=1) for part, one in parts if len(part)]
    expected = torch.cat([part for part, _ in separate])
    assert (y.int() - expected.int()).abs().max() <= 1
    assert (y == expected).float().mean() >= 0.999
    torch.testing.assert_close(row_scale, torch.cat([s for _, s in separate]), rtol=1e-6, atol=0)


def test_shapes_strides_and_inputs_are_kept(inputs: Inputs):
    x = accumulators(inputs, 24, 40).view(2, 3, 4, 40)
    scale = inputs.positive(40, high=1e-4)
    before = x.clone()
    y, row_scale = run(x, weight_scale=scale, activation_scale=inputs.positive(24, 1), quant_mode=1)
    assert y.shape == (2, 3, 4, 20)
    assert row_scale.shape == (2, 3, 4)
    assert torch.equal(x, before)
    wide = torch.cat([x, x], dim=-1).reshape(24, 80)
    strided = run(wide[:, :40], weight_scale=scale, quant_mode=1)
    assert torch.equal(strided[0], run(x.view(24, 40), weight_scale=scale, quant_mode=1)[0])


def test_no_rows(inputs: Inputs):
    x = torch.empty(0, 16, dtype=torch.bfloat16, device=inputs.device)
    y, scale = run(x, quant_mode=1)
    assert y.shape == (0, 8)
    assert scale.shape == (0,)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("dst_type", [torch.int8, torch.quint4x2])
@pytest.mark.parametrize("smooth", [None, "shared", "grouped"])
def test_dynamic_quant(inputs: Inputs, dtype: torch.dtype, dst_type: torch.dtype, smooth: str | None):
    rows, width, groups = 50, 72, 6
    x = inputs.normal(rows, width, dtype=dtype)
    x[7] = 0
    index = inputs.counts(groups, rows).cumsum(0).int() if smooth == "grouped" else None
    scales = None if smooth is None else inputs.positive(groups if smooth == "grouped" else 1, width)
    scales = scales.to(dtype).squeeze(0) if scales is not None else None
    with poisoned_allocations():
        y, scale = moe_jit.npu_dynamic_quant(x, smooth_scales=scales, group_index=index, dst_type=dst_type)
    largest, low, high = (127.0, -128, 127) if dst_type == torch.int8 else (7.0, -8, 7)
    on_cpu = [None if v is None else v.cpu() for v in (scales, index)]
    expected = reference.dynamic_quant(x.cpu(), *on_cpu, largest)
    if dst_type == torch.quint4x2:
        assert y.dtype == torch.int32
        shifts = torch.arange(0, 32, 4, device=y.device)
        nibbles = (y.unsqueeze(-1) >> shifts) & 15
        y = (nibbles - 16 * (nibbles > 7)).flatten(1)
    assert y.shape == (rows, width)
    check_quantised(y, scale, expected, inputs.note, low=low, high=high)
    assert scale[7] == 0


def test_dynamic_quant_recipe_bit_by_bit(inputs: Inputs):
    x = inputs.normal(500, 33)
    y, scale = moe_jit.npu_dynamic_quant(x)
    amax = x.abs().amax(dim=1)
    assert torch.equal(scale, amax * (torch.tensor(1.0) / 127.0))
    assert torch.equal(y, (x * (torch.tensor(127.0) / amax)[:, None]).round().to(torch.int8))
