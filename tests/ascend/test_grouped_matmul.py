"""npu_grouped_matmul against the reference: dtypes, layouts, group lists, sizes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from support.ascend import Inputs, backends, inputs_on
from support.matmul import BF16, F16, F32, I8, INT4, ROWS, Problem

import moe_jit

GROUP_LISTS = ["list", "cumulative", "counts"]
INT4_WEIGHT = [name for name, row in ROWS.items() if row.w == INT4]
INT4_SCALED = [name for name in INT4_WEIGHT if ROWS[name].x in (I8, INT4)]
ANTIQUANT = [name for name, row in ROWS.items() if row.x in (F16, BF16) and row.w != row.x]


@pytest.fixture(params=backends("grouped_matmul"))
def inputs(request) -> Iterator[Inputs]:
    yield from inputs_on(request.param)


def size(name: str) -> tuple[int, int]:
    """(k, n) that the row allows in every layout."""
    return (128, 64) if ROWS[name].w == INT4 else (70, 51)


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("layout", ["nd", "transposed", "nz", "nz-transposed"])
@pytest.mark.parametrize("name", ROWS)
def test_rows_and_layouts(inputs: Inputs, name: str, layout: str, stacked: bool):
    if (name in INT4_WEIGHT and layout == "nz-transposed") or (
        name in INT4_SCALED and (layout == "transposed" or not stacked)
    ):
        pytest.skip("not a form of int4 weights")
    k, n = size(name)
    problem = Problem(inputs, ROWS[name], [3, 0, 8, 1], k, n, tail=2, layout=layout, stacked=stacked)
    (y,) = problem.call()
    problem.check(y)
    assert not y[-2:].any()


@pytest.mark.parametrize("kind", GROUP_LISTS)
@pytest.mark.parametrize("name", ROWS)
def test_group_lists(inputs: Inputs, name: str, kind: str):
    if name.startswith("i8i4") and kind != "counts":
        pytest.skip("counts only")
    k, n = size(name)
    problem = Problem(inputs, ROWS[name], [0, 5, 7, 0, 1], k, n, tail=0 if kind == "list" else 3, bias=False)
    problem.check(problem.call(kind)[0])


@pytest.mark.parametrize(("k", "n"), [(1, 1), (5, 3422), (514, 17), (987, 33), (2, 7079), (33, 3818)])
@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.w != INT4])
def test_odd_sizes(inputs: Inputs, name: str, k: int, n: int):
    problem = Problem(inputs, ROWS[name], [1, 2], k, n)
    problem.check(problem.call()[0])


@pytest.mark.parametrize("groups", [1, 2, 129, 1024])
@pytest.mark.parametrize("name", ["bf16", "i8-bf16-token", "i8-i32", "i8i4-bf16", "bf16-i4"])
def test_number_of_groups(inputs: Inputs, name: str, groups: int):
    k, n = (64, 8) if name in INT4_WEIGHT else (19, 9)
    counts = inputs.counts(groups, 60).tolist()
    problem = Problem(inputs, ROWS[name], counts, k, n)
    problem.check(problem.call()[0])


@pytest.mark.parametrize("act_type", [1, 2, 4, 5])
@pytest.mark.parametrize(
    "name", [n for n, row in ROWS.items() if row.x == row.w == I8 and row.y in (F16, BF16)]
)
def test_activations(inputs: Inputs, name: str, act_type: int):
    problem = Problem(inputs, ROWS[name], [9, 4], 60, 41, act_type=act_type)
    problem.check(problem.call()[0])


@pytest.mark.parametrize("name", ["i8-i8", "i8-i32", "i8i4-bf16", "i4-f16"])
def test_activation_without_effect_warns(inputs: Inputs, name: str):
    problem = Problem(inputs, ROWS[name], [3], 64, 64)
    plain = problem.call()[0]
    with pytest.warns(UserWarning, match="act_type 5"):
        assert torch.equal(problem.call(act_type=5)[0], plain)


@pytest.mark.parametrize("name", ["i8-bf16-token", "i8-bf16-f32scale-token"])
def test_bfloat16_bias_after_the_scales(inputs: Inputs, name: str):
    problem = Problem(inputs, ROWS[name], [5, 2], 60, 41, bias=BF16, act_type=5)
    problem.check(problem.call()[0])


@pytest.mark.parametrize("k_groups", [1, 4])
@pytest.mark.parametrize("offset", [False, True])
@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("name", ANTIQUANT)
def test_antiquant(inputs: Inputs, name: str, stacked: bool, offset: bool, k_groups: int):
    if k_groups > 1 and ROWS[name].w == I8:
        pytest.skip("int8 weights have one scale per column")
    problem = Problem(
        inputs, ROWS[name], [6, 0, 3], 96, 40, stacked=stacked, offset=offset, k_groups=k_groups
    )
    problem.check(problem.call()[0])


@pytest.mark.parametrize("layout", ["nd", "nz"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("k_groups", [1, 3])
@pytest.mark.parametrize("name", INT4_SCALED)
def test_int4_groups_of_k(inputs: Inputs, name: str, k_groups: int, bias: bool, layout: str):
    offset = name == "i8i4-f16"
    problem = Problem(
        inputs, ROWS[name], [6, 0, 3], 768, 64, bias=bias, k_groups=k_groups, offset=offset, layout=layout
    )
    problem.check(problem.call()[0])


def test_int4_depths_that_are_not_multiples_of_the_vector(inputs: Inputs):
    problem = Problem(inputs, ROWS["i4-bf16"], [4, 3], 24 * 5, 24, k_groups=20)  # groups of 6
    problem.check(problem.call()[0])


def test_blocks_packed_after_blocking(inputs: Inputs):
    """npu_format_cast, then npu_convert_weight_to_int4pack: blocks [16, 1] of packed elements."""
    problem = Problem(inputs, ROWS["i4-bf16"], [4, 3], 64, 64)
    blocked = moe_jit.npu_convert_weight_to_int4pack(moe_jit.npu_format_cast(problem.w.int(), 29))
    assert blocked.shape[-2:] == (16, 1)
    problem.check(problem.call(weight=[blocked])[0])


# ---- int8 results


@pytest.mark.parametrize("signed", [True, False])
def test_requantisation_offset_sign_and_rounding(inputs: Inputs, signed: bool):
    problem = Problem(inputs, ROWS["i8-i8"], [40, 25], 30, 50, bias=False)
    offset = inputs.normal(2, 50, std=150.0)  # many products leave nine bits, many sums eight
    parameter = moe_jit.npu_trans_quant_param(4 * problem.parameters["scale"], offset)
    parameter = parameter if signed else parameter & ~(1 << 46)
    (y,) = problem.call(scale=[parameter])
    for expert, begin, end in problem.ranges():
        accumulator = moe_jit.reference.ascend.accumulate(problem.x[begin:end].cpu(), problem.w[expert].cpu())
        exact = moe_jit.reference.ascend.requantised(accumulator, parameter[expert].cpu())
        assert torch.equal(
            y[begin:end].cpu(), exact.to(torch.uint8).view(torch.int8) if not signed else exact.to(I8)
        )


def test_large_accumulators_convert_to_nearest_even(inputs: Inputs):
    """Sums beyond 2**24, which float32 cannot hold exactly."""
    k = 4000
    x = torch.full((1, k), 127, dtype=I8, device=inputs.device)
    w = inputs.integers(1, k, 30, low=100)
    scale = torch.ones(1, 30, device=inputs.device)
    (y,) = moe_jit.npu_grouped_matmul(
        [x], [w], scale=[scale], group_list=[1], group_type=0, split_item=3, output_dtype=BF16
    )
    exact = x.long().cpu() @ w[0].long().cpu()
    assert exact.max() > 2**24
    assert torch.equal(y.cpu(), exact.float().bfloat16())


def test_integer_bias_wraps(inputs: Inputs):
    x = torch.ones(1, 4, dtype=I8, device=inputs.device)
    w = torch.ones(1, 4, 3, dtype=I8, device=inputs.device)
    bias = torch.full((1, 3), 2**31 - 1, dtype=torch.int32, device=inputs.device)
    (y,) = moe_jit.npu_grouped_matmul(
        [x], [w], bias=[bias], group_list=[1], group_type=0, split_item=3, output_dtype=torch.int32
    )
    assert (y == -(2**31) + 3).all()


# ---- several tensors


@pytest.mark.parametrize("name", ["f16", "bf16", "f32", "bf16-i8", "f16-i4"])
def test_separate_products(inputs: Inputs, name: str):
    """group_type -1, also by default: each x with its weight, of different sizes and dimensions."""
    problems = [
        Problem(inputs, ROWS[name], [m], k, n, stacked=False)
        for m, k, n in ((12, 16, 24), (5, 40, 8), (6, 8, 48))
    ]
    parts = [problem.arguments() for problem in problems]
    lists = [key for key in parts[0] if isinstance(parts[0][key], list)]
    arguments = {key: [part[key][0] for part in parts] for key in lists}
    arguments["x"][0] = arguments["x"][0].view(3, 2, 2, 16)
    for group_type in (None, -1):
        outputs = moe_jit.npu_grouped_matmul(**arguments, group_type=group_type)
        assert outputs[0].shape == (3, 2, 2, 24)
        for problem, y in zip(problems, outputs, strict=True):
            problem.check(y.reshape(problem.x.shape[0], -1))


def test_separate_products_with_groups_of_k(inputs: Inputs):
    """Groups of one length, so that weights of different k have different numbers of them."""
    problems = [
        Problem(inputs, ROWS["bf16-i4"], [5], k, n, stacked=False, k_groups=k // 32)
        for k, n in ((32, 24), (96, 8), (64, 48))
    ]
    parts = [problem.arguments() for problem in problems]
    lists = [key for key in parts[0] if isinstance(parts[0][key], list)]
    outputs = moe_jit.npu_grouped_matmul(**{key: [part[key][0] for part in parts] for key in lists})
    for problem, y in zip(problems, outputs, strict=True):
        problem.check(y)


def test_quantised_without_groups(inputs: Inputs):
    problem = Problem(inputs, ROWS["i8-bf16-token"], [12], 32, 20, stacked=False)
    arguments = {k: v for k, v in problem.arguments().items() if not k.startswith(("group", "split"))}
    problem.check(moe_jit.npu_grouped_matmul(**arguments)[0])


@pytest.mark.parametrize("name", ["bf16", "bf16-i8"])
def test_several_x_and_one_output(inputs: Inputs, name: str):
    problem = Problem(inputs, ROWS[name], [3, 2, 7], 30, 20, stacked=False)
    pieces = list(problem.x.split(problem.counts))
    for group_list in (None, [3, 5, 12]):
        (y,) = problem.call(x=pieces, group_list=group_list, group_list_type=0, split_item=2)
        problem.check(y)


@pytest.mark.parametrize("kind", GROUP_LISTS)
@pytest.mark.parametrize("name", ["f16", "bf16", "f32", "i8-bf16-token", "bf16-i8"])
def test_one_output_for_each_group(inputs: Inputs, name: str, kind: str):
    problem = Problem(inputs, ROWS[name], [3, 0, 7], 30, 20, stacked=False)
    for split_item in (0, 1):
        outputs = problem.call(kind, split_item=split_item)
        assert [y.shape[0] for y in outputs] == problem.counts
        problem.check(torch.cat(outputs))
        assert torch.equal(torch.cat(outputs), problem.call(kind, split_item=2)[0])


def test_outputs_of_different_widths(inputs: Inputs):
    x = inputs.normal(9, 12)
    weights = [inputs.normal(12, n) for n in (5, 8)]
    first, second = moe_jit.npu_grouped_matmul([x], weights, group_list=[4, 9], group_type=0, split_item=0)
    torch.testing.assert_close(first, x[:4] @ weights[0])
    torch.testing.assert_close(second, x[4:] @ weights[1])


# ---- group_type 2


@pytest.mark.parametrize("kind", GROUP_LISTS)
@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("name", ["f16", "bf16", "f32"])
def test_split_of_the_reduction_dimension(inputs: Inputs, name: str, contiguous: bool, kind: str):
    dtype, counts, m, n = ROWS[name].x, [4, 0, 9, 2], 7, 11
    k = sum(counts)
    x = inputs.normal(k, m, dtype=dtype).T
    x = x.contiguous() if contiguous else x
    w = inputs.normal(k, n, dtype=dtype)
    problem = Problem(inputs, ROWS[name], counts, 1, 1)
    arguments = {"group_type": 2, **problem.group_list(kind)}
    (y,) = moe_jit.npu_grouped_matmul([x], [w], split_item=2, **arguments)
    assert y.shape == (4, m, n)
    assert not y[1].any()
    begin = 0
    for group, count in enumerate(counts):
        part = slice(begin, begin + count)
        exact = x[:, part].double() @ w[part].double()
        bound = x[:, part].double().abs() @ w[part].double().abs()
        unit = {F16: 2.0**-11, BF16: 2.0**-8, F32: 2.0**-24}[dtype]
        error = (y[group].double() - exact).abs()
        assert (error <= unit * 1.01 * exact.abs() + 2.0**-22 * bound + 2.0**-25).all(), inputs.note
        begin += count


def test_split_of_the_reduction_dimension_with_several_weights(inputs: Inputs):
    counts = [4, 9, 2]
    x, w = inputs.normal(15, 6).T, inputs.normal(15, 5)
    ends = [4, 13, 15]
    (stacked,) = moe_jit.npu_grouped_matmul([x], [w], group_list=ends, group_type=2, split_item=3)
    pieces = list(w.split(counts))
    (from_pieces,) = moe_jit.npu_grouped_matmul([x], pieces, group_list=ends, group_type=2, split_item=3)
    separate = moe_jit.npu_grouped_matmul([x], pieces, group_list=ends, group_type=2, split_item=0)
    assert torch.equal(stacked, from_pieces)
    assert torch.equal(stacked, torch.stack(separate))


def test_split_of_the_reduction_dimension_ends_with_the_slices(inputs: Inputs):
    """The host does not read a group list that contradicts the slices."""
    x, w = inputs.normal(12, 5).T, inputs.normal(12, 6)
    ends = torch.tensor([8, 12], device=inputs.device)
    (y,) = moe_jit.npu_grouped_matmul(
        [x], [w[:4].clone(), w[4:].clone()], group_list=ends, group_type=2, split_item=2
    )
    torch.testing.assert_close(y[0], x[:, :4] @ w[:4])
    torch.testing.assert_close(y[1], x[:, 8:] @ w[4:8])


# ---- identities


@pytest.mark.parametrize("name", ["i8-i8", "i8-i32", "i8-bf16-token", "i8-f16"])
def test_pairs_equal_counts(inputs: Inputs, name: str):
    problem = Problem(inputs, ROWS[name], [3, 0, 5, 2], 30, 20, tail=2)
    (by_counts,) = problem.call()
    order, pairs = torch.tensor([8, 9, 0, 1, 2, 3, 4, 5, 6, 7]), [[3, 2], [0, 3], [2, 5], [1, 0]]
    x = torch.cat([problem.x[order], problem.x[10:]])
    arguments = {"x": [x], "group_list": torch.tensor(pairs, device=inputs.device), "group_list_type": 2}
    if "per_token_scale" in problem.parameters:
        scale = problem.parameters["per_token_scale"]
        arguments["per_token_scale"] = [torch.cat([scale[order], scale[10:]])]
    (by_pairs,) = problem.call(**arguments)
    assert torch.equal(by_pairs[:10], by_counts[order])
    assert not by_pairs[10:].any()


@pytest.mark.parametrize(
    ("values", "kind", "counts"),
    [
        ([3, 100], 1, [3, 9]),
        ([3, 2**40], 1, [3, 9]),
        ([-5, 4], 1, [0, 4]),
        ([5, 100], 0, [5, 7]),
        ([7, 4], 0, [7, 0]),
        ([-3, 4], 0, [0, 4]),
        ([[1, 3], [0, 100]], 2, [9, 3]),
    ],
)
def test_lists_that_do_not_fit_the_rows_are_cut(inputs: Inputs, values: list, kind: int, counts: list[int]):
    problem = Problem(inputs, ROWS["i8-i32"], [6, 6], 20, 12, bias=False)
    (y,) = problem.call(group_list=torch.tensor(values, device=inputs.device), group_list_type=kind)
    begin = 0
    for expert in (1, 0) if kind == 2 else (0, 1):
        rows = slice(begin, begin + counts[expert])
        product = problem.x[rows].cpu().long() @ problem.w[expert].cpu().long()
        assert torch.equal(y[rows].cpu().long(), product)
        begin = rows.stop
    assert not y[begin:].any()


def test_nothing_after_an_empty_pair_is_read(inputs: Inputs):
    problem = Problem(inputs, ROWS["i8-i32"], [3, 4], 10, 6)
    pairs = torch.tensor([[1, 0], [0, 7]], device=inputs.device)
    (y,) = problem.call(group_list=pairs, group_list_type=2)
    assert not y.any()


@pytest.mark.parametrize("name", ROWS)
def test_grouped_equals_one_group_at_a_time(inputs: Inputs, name: str):
    k, n = size(name)
    problem = Problem(inputs, ROWS[name], [4, 0, 6], k, n)
    (y,) = problem.call()
    for expert, begin, end in problem.ranges():
        one = Problem(inputs, ROWS[name], [end - begin], k, n)
        one.x, one.w = problem.x[begin:end], problem.w[expert : expert + 1]
        one.parameters = {
            key: v[begin:end] if key == "per_token_scale" else v[expert : expert + 1]
            for key, v in problem.parameters.items()
        }
        assert torch.equal(one.call()[0], y[begin:end])


def test_int4_weight_with_the_mandated_bias_is_the_dequantised_product(inputs: Inputs):
    problem = Problem(inputs, ROWS["i8i4-f16"], [5, 9], 512, 64, bias=False, k_groups=2)
    scale, w = problem.parameters["scale"], problem.w.float()
    weight = w * scale.repeat_interleave(256, dim=1)
    problem.parameters["bias"] = 8 * weight.sum(dim=1)
    (y,) = problem.call()
    for expert, begin, end in problem.ranges():
        scaled = problem.parameters["per_token_scale"][begin:end, None]
        direct = (problem.x[begin:end].double() @ weight[expert].double()) * scaled
        assert (y[begin:end].double() - direct).abs().max() <= 2.0**-10 * direct.abs().max()


def test_tail_rows_do_not_matter(inputs: Inputs):
    problem = Problem(inputs, ROWS["bf16"], [3, 4], 20, 12, tail=5)
    poisoned = problem.x.clone()
    poisoned[7:] = float("nan")
    (y,) = problem.call(x=[poisoned])
    assert torch.equal(y, problem.call()[0])
    assert not y[7:].any()


def test_inputs_are_not_modified_and_results_repeat(inputs: Inputs):
    problem = Problem(inputs, ROWS["i8i4-bf16"], [30, 4], 512, 64, k_groups=2)
    arguments = problem.arguments()
    before = [t.clone() for key in ("x", "weight", "scale", "bias") for t in arguments[key]]
    results = [moe_jit.npu_grouped_matmul(**arguments)[0] for _ in range(3)]
    after = [t for key in ("x", "weight", "scale", "bias") for t in arguments[key]]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.equal(results[0], y) for y in results)


def test_empty_x_and_unaligned_views(inputs: Inputs):
    problem = Problem(inputs, ROWS["i8-i32"], [2, 3], 33, 20)
    (none,) = problem.call(x=[problem.x[:0]])
    assert none.shape == (0, 20)
    wide = torch.zeros(5, 40, dtype=I8, device=inputs.device)
    wide[:, 3:36] = problem.x
    assert torch.equal(problem.call(x=[wide[:, 3:36]])[0], problem.call()[0])


def test_float32_products_use_all_bits(inputs: Inputs):
    x = torch.tensor([[1 + 2.0**-23]], device=inputs.device)
    w = torch.tensor([[[1.0]]], device=inputs.device, dtype=F32)
    (y,) = moe_jit.npu_grouped_matmul([x], [w], group_list=[1], group_type=0, split_item=3)
    assert y.item() == 1 + 2.0**-23


@pytest.mark.parametrize("name", ["bf16", "i8-bf16-token", "i8-i8", "bf16-i4", "i8i4-f16", "i4-bf16"])
def test_repeated_signatures_take_the_new_tensors(inputs: Inputs, name: str):
    """The second call of a signature skips the checks, but neither the values nor the group list."""
    k, n = size(name)
    for counts in ([3, 5, 2], [0, 9, 1], [4, 0, 0]):
        problem = Problem(inputs, ROWS[name], counts, k, n, tail=10 - sum(counts))
        problem.check(problem.call()[0])
    for changes in ({"bias": []}, {"bias": None}, {"split_item": 2}):
        if name != "i4-bf16":
            problem.parameters.pop("bias", None)
            problem.check(problem.call(**changes)[0])
    with pytest.raises(TypeError, match="split_item"):
        problem.call(split_item=True)


def test_strided_inputs_are_not_taken_for_contiguous_ones(inputs: Inputs):
    problem = Problem(inputs, ROWS["i8-bf16-token"], [3, 5], 32, 16)
    expected = problem.call()[0]
    x = problem.x.T.contiguous().T
    scale = problem.parameters["per_token_scale"].repeat_interleave(2)[::2]
    for _ in range(3):
        assert torch.equal(problem.call(x=[x], per_token_scale=[scale])[0], expected)
