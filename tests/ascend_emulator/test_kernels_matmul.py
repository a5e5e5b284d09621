"""Kernels of npu_grouped_matmul: every combination of dtypes and layout with sizes that fill no tile, small
tiles that go round every buffer, and the CPU backend's bits where sums are exact."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.ascend import Inputs
from support.matmul import I8, INT4, ROWS, Problem

import moe_jit
from moe_jit.ascend import matmul_tiling
from moe_jit.ascend.matmul_tiling import Tile

pytestmark = pytest.mark.ascend_emulator

KERNEL_ROWS = {name: row for name, row in ROWS.items() if row.x != torch.float32}
LAYOUTS = ("nd", "transposed", "nz", "nz-transposed")


def sizes(name: str, layout: str) -> dict[str, int]:
    """Depths and widths that are no multiples of tiles, as far as the operator allows."""
    row = ROWS[name]
    if row.x == I8 and row.w == INT4:
        return {"k": 320, "n": 192 if layout == "nz" else 72}
    if row.w == INT4:
        return {"k": 192 if row.x == INT4 else 184, "n": 72}
    return {"k": 75, "n": 61}


def has_layout(name: str, layout: str) -> bool:
    row = ROWS[name]
    if row.w != INT4:
        return True
    return layout in ("nd", "nz") or (layout == "transposed" and row.x not in (I8, INT4))


CASES = [(name, layout) for name in KERNEL_ROWS for layout in LAYOUTS if has_layout(name, layout)]


def on_emulator(
    problem: Problem, cores: int, kind: str = "counts", seed: int = 0, **changes: Any
) -> torch.Tensor:
    with moe_jit.use_backend("ascend-emulator", cores=cores, seed=seed):
        (y,) = problem.call(kind, **changes)
    return y


def is_exact(name: str) -> bool:
    """Whether the sums have the same bits whatever their order."""
    return ROWS[name].x in (I8, INT4)


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_sizes_that_fill_no_tile(name: str, layout: str) -> None:
    inputs = Inputs()
    counts = [inputs.random.randint(0, 40) for _ in range(3)] + [0, 1]
    problem = Problem(inputs, ROWS[name], counts, tail=3, layout=layout, **sizes(name, layout))
    y = on_emulator(problem, cores=inputs.random.choice((1, 2, 3)))
    problem.check(y)
    if is_exact(name):
        assert torch.equal(y, problem.call()[0]), inputs.note


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", KERNEL_ROWS)
def test_small_tiles_go_round_all_buffers(name: str, bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several tiles for each core, more than slots of the ring; several steps in L1 and in L0."""
    depth = {I8: 32, INT4: 64}.get(ROWS[name].w, 16) if is_exact(name) else 64
    chosen = Tile(16, 64, 2 * depth, depth)
    monkeypatch.setattr(matmul_tiling, "choose_tile", lambda *_: chosen)
    inputs = Inputs()
    k, n = (512, 264) if INT4 in (ROWS[name].x, ROWS[name].w) else (5 * depth + 3, 271)
    problem = Problem(inputs, ROWS[name], [33, 0, 50], k=k, n=n, bias=bias)
    y = on_emulator(problem, cores=2)
    problem.check(y)
    if is_exact(name):
        assert torch.equal(y, problem.call()[0]), inputs.note


@pytest.mark.parametrize("layout", ["nd", "nz"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("tile", [Tile(16, 128, 256, 64, True), Tile(32, 64, 256, 256, True)])
def test_int4_weights_that_become_int8(
    tile: Tile, bias: bool, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sum for each group of k instead of one for each piece of x: the same bits."""
    monkeypatch.setattr(matmul_tiling, "choose_tile", lambda *_: tile)
    inputs = Inputs()
    n = inputs.random.choice((128, 320)) if layout == "nz" else inputs.random.choice((72, 136, 264))
    counts = [33, 0, inputs.random.randint(1, 60)]
    for name, offset in (("i8i4-bf16", False), ("i8i4-f16", True)):
        problem = Problem(
            inputs, ROWS[name], counts, 768, n, tail=3, layout=layout, bias=bias, k_groups=3, offset=offset
        )
        for cores in (1, 3):
            y = on_emulator(problem, cores)
            problem.check(y)
            assert torch.equal(y, problem.call()[0]), inputs.note


@pytest.mark.parametrize("value", [-128, 127])
def test_int4_weights_that_become_int8_with_the_largest_sums(value: int) -> None:
    """Groups whose sums, and whose columns' sums, are as large as they can be; and the tile of many rows."""
    inputs = Inputs()
    problem = Problem(inputs, ROWS["i8i4-f16"], [510, 3], k=512, n=128, k_groups=2)
    problem.x[:] = value
    problem.w[:] = inputs.random.choice((-8, 7))
    problem.parameters["scale"] *= 2.0**-10
    y = on_emulator(problem, cores=2)
    problem.check(y)
    assert torch.equal(y, problem.call()[0]), inputs.note


DIGIT_ROWS = ["f16-i4", "bf16-i4"]
DIGIT_TILES = [Tile(16, 64, 128, 64, digits=True), Tile(16, 256, 512, 512, digits=True)]


@pytest.mark.parametrize("options", [{}, {"k_groups": 3}, {"offset": True}, {"k_groups": 6, "offset": True}])
@pytest.mark.parametrize("layout", ["nd", "nz", "transposed"])
@pytest.mark.parametrize("tile", DIGIT_TILES)
@pytest.mark.parametrize("name", DIGIT_ROWS)
def test_activations_that_become_digits(
    name: str, tile: Tile, layout: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few rows times int4 weights, which are multiplied as they are stored; any order of the cores."""
    monkeypatch.setattr(matmul_tiling, "choose_tile", lambda *_: tile)
    inputs = Inputs()
    counts, bias = [33, 0, inputs.random.randint(1, 20)], inputs.random.random() < 0.5
    n = inputs.random.choice((128, 320)) if layout == "nz" else inputs.random.choice((72, 136, 264))
    problem = Problem(inputs, ROWS[name], counts, 384, n, tail=3, layout=layout, bias=bias, **options)
    first = on_emulator(problem, cores=1)
    problem.check(first)
    assert torch.equal(on_emulator(problem, cores=3, seed=inputs.random.randrange(1000)), first), inputs.note


@pytest.mark.parametrize("name", DIGIT_ROWS)
def test_digits_of_any_magnitude(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows over the whole range of the format, each with numbers of quite different sizes; rows of zeros;
    more columns than the vector core has at a time. Only rows that are not finite become NaN."""
    monkeypatch.setattr(matmul_tiling, "choose_tile", lambda *_: DIGIT_TILES[1])
    inputs = Inputs()
    problem = Problem(inputs, ROWS[name], [9, 7], 4096 + 64, 64, bias=False, offset=True)
    exponents = torch.arange(-14, 2).double() if name == "f16-i4" else torch.linspace(-80, 100, 16)
    sizes = 2.0 ** inputs.integers(16, problem.k, low=-6, high=6).double()
    problem.x = (problem.x.double() * sizes * 2.0 ** exponents.double()[:, None]).to(ROWS[name].x)
    problem.x[3] = 0
    problem.check(on_emulator(problem, cores=2))
    whole = problem.x.clone()
    problem.x[2, 5], problem.x[8, -1], problem.x[12, 4099] = float("inf"), float("nan"), float("-inf")
    y = on_emulator(problem, cores=2)
    bad = torch.zeros(16, dtype=torch.bool)
    bad[[2, 8, 12]] = True
    assert y[bad].isnan().all(), inputs.note
    problem.x = whole
    assert torch.equal(y[~bad], on_emulator(problem, cores=2)[~bad]), inputs.note


@pytest.mark.parametrize("num_groups", [1, 5, 64])
@pytest.mark.parametrize("name", KERNEL_ROWS)
def test_groups_and_cores(name: str, num_groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result does not depend on how many cores there are, or on the order in which they run. (Sums of
    floats depend on the tile, which is that of one core here.)"""
    choose = matmul_tiling.choose_tile
    if not is_exact(name):
        monkeypatch.setattr(matmul_tiling, "choose_tile", lambda *sizes: choose(*sizes[:5], 1, *sizes[6:]))
    inputs = Inputs()
    counts = [inputs.random.choice((0, 0, 1, 2, 19)) for _ in range(num_groups)]
    problem = Problem(inputs, ROWS[name], counts, tail=2, **sizes(name, "nd"))
    first = on_emulator(problem, cores=1)
    problem.check(first)
    for cores in (7, 24):
        assert torch.equal(on_emulator(problem, cores, seed=inputs.random.randrange(1000)), first), (
            inputs.note
        )


@pytest.mark.parametrize("name", ["i8-i32", "i8-bf16-token", "f16"])
def test_counts_and_ends_are_the_same(name: str) -> None:
    inputs = Inputs()
    counts = [7, 0, 18, 5]
    problem = Problem(inputs, ROWS[name], counts, tail=4, **sizes(name, "nd"))
    expected = on_emulator(problem, cores=2)
    problem.check(expected)
    assert torch.equal(on_emulator(problem, 2, "cumulative"), expected), inputs.note


def test_pairs_of_expert_and_count_end_at_the_first_empty_one() -> None:
    inputs = Inputs()
    problem = Problem(inputs, ROWS["i8-i32"], [7, 0, 18, 5], tail=4, **sizes("i8-i32", "nd"))
    pairs = torch.tensor([[2, 9], [0, 12], [3, 0], [1, 5]])
    y = on_emulator(problem, 3, group_list=pairs, group_list_type=2)
    expected = torch.zeros_like(y)
    for expert, begin, end in ((2, 0, 9), (0, 9, 21)):
        product = problem.x[begin:end].double() @ problem.w[expert].double()
        expected[begin:end] = (product + problem.parameters["bias"][expert]).int()
    assert torch.equal(y, expected), inputs.note


@pytest.mark.parametrize("name", ["i8-i8", "i8-bf16", "f16", "bf16-i8"])
def test_lists_of_weights(name: str) -> None:
    inputs = Inputs()
    problem = Problem(inputs, ROWS[name], [7, 0, 18], stacked=False, **sizes(name, "nd"))
    problem.check(on_emulator(problem, cores=2))


@pytest.mark.parametrize(("name", "layout"), [c for c in CASES if "4" in c[0] and c[1] != "nz"])
def test_scales_for_parts_of_the_depth(name: str, layout: str) -> None:
    inputs = Inputs()
    options: dict[str, Any] = {"k": 768, "n": 72, "k_groups": 3}
    if name in ("f16-i4", "bf16-i4"):
        options |= {"k_groups": 24, "offset": True}  # parts that end inside a block of 32 bytes, transposed
    elif name == "i8i4-f16":
        options["offset"] = True
    problem = Problem(inputs, ROWS[name], [3, 0, 21], layout=layout, **options)
    y = on_emulator(problem, cores=2)
    problem.check(y)
    if is_exact(name):
        assert torch.equal(y, problem.call()[0]), inputs.note


@pytest.mark.parametrize("n", [61, 64])
def test_requantisation_honours_every_field(n: int) -> None:
    """Offsets and both signs, of a width that the cube stores itself and of one that it does not."""
    inputs = Inputs()
    problem = Problem(inputs, ROWS["i8-i8"], [20, 3], k=96, n=n)
    scale = inputs.positive(2, n, high=1e-3)
    words = moe_jit.npu_trans_quant_param(scale, inputs.normal(2, n, std=60.0))
    y = on_emulator(problem, 2, scale=[words])
    assert torch.equal(y, problem.call(scale=[words])[0]), inputs.note
    assert y.unique().numel() > 100
