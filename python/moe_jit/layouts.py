"""Row layouts of the two expert weight tensors and conversions between them.

A *plain* gemm1 weight of a gated activation is a pair of halves of ``intermediate_size`` rows:
``"w3_w1"`` is [up; gate], ``"w1_w3"`` is [gate; up]. Everything else plain is simply in row order.
A *shuffled* weight is what FlashInfer's SM100 kernels take: the halves of a gated gemm1 are interleaved
(row 2i = up i, row 2i + 1 = gate i), and then, inside every block of 32 rows, row r moves to position
8 * (r % 4) + r // 4. Columns never move.

All functions take tensors [E, rows, columns] of any dtype on any device and return a new contiguous
tensor of the same shape, dtype and device.
"""

from __future__ import annotations

import torch

from moe_jit import checks
from moe_jit.enums import WeightLayout

ROWS_PER_BLOCK = 32

PlainLayout = str | WeightLayout


def plain_rows_in_shuffled_order(
    num_rows: int, *, gated: bool, plain: PlainLayout = "w3_w1", device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Return int64 [num_rows]: entry p is the plain row that a shuffled weight stores at row p.

    ``gated`` says whether the rows are two halves to interleave; ``plain`` names the order of the halves.
    Raises ValueError when ``num_rows`` is not a positive multiple of 32.
    """
    order = WeightLayout.parse(plain, "plain", plain=True)
    checks.boolean("gated", gated)
    if num_rows <= 0 or num_rows % ROWS_PER_BLOCK:
        raise ValueError(
            f"a shuffled weight needs a positive multiple of {ROWS_PER_BLOCK} rows, got {num_rows}"
        )
    position = torch.arange(num_rows, device=device)
    in_block = position % ROWS_PER_BLOCK
    unshuffled = position - in_block + 4 * (in_block % 8) + in_block // 8
    if not gated:
        return unshuffled
    half = num_rows // 2
    is_gate = unshuffled % 2
    in_second_half = is_gate if order is WeightLayout.W3W1 else 1 - is_gate
    return unshuffled // 2 + half * in_second_half


def shuffle_gemm1(weight: torch.Tensor, gated: bool, source: PlainLayout = "w3_w1") -> torch.Tensor:
    """Convert a plain gemm1 weight [E, 2I or I, H] to the shuffled layout.

    ``source`` is the order of the halves, "w3_w1" or "w1_w3"; it is irrelevant when not ``gated``.
    Raises TypeError or ValueError when ``weight`` is not a 3-D tensor with a multiple of 32 rows.
    """
    _check_weight(weight, "weight")
    order = WeightLayout.parse(source, "source", plain=True)
    return _take_rows(weight, _shuffle_index(weight, gated, order))


def unshuffle_gemm1(weight: torch.Tensor, gated: bool, target: PlainLayout = "w3_w1") -> torch.Tensor:
    """Inverse of ``shuffle_gemm1``: convert a shuffled gemm1 weight to plain rows in order ``target``."""
    _check_weight(weight, "weight")
    order = WeightLayout.parse(target, "target", plain=True)
    return _take_rows(weight, torch.argsort(_shuffle_index(weight, gated, order)))


def shuffle_gemm2(weight: torch.Tensor) -> torch.Tensor:
    """Convert a plain gemm2 weight [E, H, I] to the shuffled layout; H must be a multiple of 32."""
    return shuffle_gemm1(weight, gated=False)


def unshuffle_gemm2(weight: torch.Tensor) -> torch.Tensor:
    """Inverse of ``shuffle_gemm2``."""
    return unshuffle_gemm1(weight, gated=False)


def swap_halves(weight: torch.Tensor) -> torch.Tensor:
    """Exchange the two halves of a plain gated gemm1 weight [E, 2I, H]: "w3_w1" <-> "w1_w3"."""
    _check_weight(weight, "weight")
    if weight.shape[1] % 2:
        raise ValueError(f"weight must have an even number of rows to have two halves, got {weight.shape[1]}")
    first, second = weight.chunk(2, dim=1)
    return torch.cat([second.view(_movable(weight)), first.view(_movable(weight))], dim=1).view(weight.dtype)


def _shuffle_index(weight: torch.Tensor, gated: bool, plain: PlainLayout) -> torch.Tensor:
    return plain_rows_in_shuffled_order(weight.shape[1], gated=gated, plain=plain, device=weight.device)


def _take_rows(weight: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return weight.view(_movable(weight)).index_select(1, index).view(weight.dtype)


def _movable(weight: torch.Tensor) -> torch.dtype:
    """One-byte floats are moved as bytes: torch does not index them on every device."""
    return torch.uint8 if weight.element_size() == 1 and weight.dtype.is_floating_point else weight.dtype


def _check_weight(weight: object, name: str) -> None:
    checks.is_tensor(name, weight)
    assert isinstance(weight, torch.Tensor)
    checks.dense(name, weight)
    if weight.dim() != 3:
        raise ValueError(f"{name} must have 3 dimensions [experts, rows, columns], got {tuple(weight.shape)}")
