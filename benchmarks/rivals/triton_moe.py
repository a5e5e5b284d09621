"""Baseline in Triton: gather fused into the first product, separate activation, configs tuned per point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
import triton
from inputs import Inputs
from layers import Layer, graph_time_us

from moe_jit.enums import ActivationType
from rivals import triton_kernels as kernels
from rivals.base import Rival, Unavailable

CHUNK = 2048
ELEMENTS = 2048
TUNING_CALLS = 4
TUNING_REPLAYS = 5


@dataclass(frozen=True)
class Config:
    block_m: int
    block_n: int
    block_k: int
    group_m: int
    num_warps: int
    num_stages: int
    swap: bool = False

    def __str__(self) -> str:
        sizes = f"{self.block_m}x{self.block_n}x{self.block_k}"
        return f"{sizes} g{self.group_m} w{self.num_warps} s{self.num_stages}{' swap' if self.swap else ''}"


CONFIGS = (
    Config(16, 64, 256, 1, 4, 4),
    Config(16, 128, 128, 1, 4, 5),
    Config(16, 128, 256, 1, 4, 3),
    Config(16, 64, 256, 1, 4, 4, swap=True),
    Config(16, 128, 256, 1, 4, 4, swap=True),
    Config(32, 128, 128, 8, 4, 5, swap=True),
    Config(32, 128, 256, 8, 4, 3),
    Config(32, 128, 256, 8, 4, 3, swap=True),
    Config(64, 128, 128, 16, 4, 4),
    Config(64, 256, 128, 16, 8, 3),
    Config(128, 128, 128, 16, 4, 4),
    Config(128, 128, 128, 16, 8, 4),
    Config(128, 256, 128, 16, 8, 3),
    Config(128, 256, 128, 16, 8, 4),
)


def candidates(rows_per_expert: float) -> list[Config]:
    """Configs whose token block is near the expected number of rows of an expert that is hit."""
    largest = max(16, 2 * rows_per_expert)
    smallest = min(rows_per_expert / 4, 64)
    return [c for c in CONFIGS if smallest <= c.block_m <= largest]


def activate(values: torch.Tensor, ids: torch.Tensor, gain: torch.Tensor, layer: Layer) -> torch.Tensor:
    """e4m3 [n, I] from bf16 ``values`` [n, 2I or I]; row p belongs to the global expert ``ids[p]``."""
    num_rows, size = values.shape[0], layer.model.intermediate_size
    out = torch.empty(num_rows, size, dtype=torch.float8_e4m3fn, device=values.device)
    kernels.activate[(num_rows, triton.cdiv(size, ELEMENTS))](
        values, out, ids, gain, size, layer.local_offset, layer.num_local,
        GATED=layer.model.activation.is_gated, BLOCK=ELEMENTS, num_warps=4,
    )  # fmt: skip
    return out


def combine(
    values: torch.Tensor,
    ids: torch.Tensor,
    layer: Layer,
    row_of_pair: torch.Tensor | None = None,
    pair_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """bf16 [T, H]: the sum of each token's local rows."""
    num_tokens, top_k = ids.shape
    hidden_size = values.shape[1]
    out = torch.empty(num_tokens, hidden_size, dtype=torch.bfloat16, device=values.device)
    kernels.combine[(num_tokens, triton.cdiv(hidden_size, ELEMENTS))](
        values, out, ids, row_of_pair, pair_weights, hidden_size, layer.local_offset, layer.num_local,
        TOP_K=top_k, INDEXED=row_of_pair is not None, WEIGHTED=pair_weights is not None,
        BLOCK=ELEMENTS, num_warps=4,
    )  # fmt: skip
    return out


def activation_gain(layer: Layer) -> torch.Tensor:
    """What remains to multiply, before e4m3, when the first product was scaled by the gate's scale."""
    if layer.model.activation not in (ActivationType.Swiglu, ActivationType.Relu2):
        raise Unavailable(f"no {layer.model.activation.name} activation")
    return layer.scale1 / layer.gate_scale if layer.model.activation.is_gated else layer.scale1


@dataclass(frozen=True)
class _Index:
    """Index lists of one call; ``lists`` is None when every pair is a block of its own."""

    max_blocks: int
    lists: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None


class TritonMoe(Rival):
    name = "triton"

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.gain = activation_gain(layer)
        self.config = CONFIGS[0]

    def tune(self, inputs: Sequence[Inputs]) -> str:
        model = self.layer.model
        rows = inputs[0].num_tokens * model.top_k / model.experts_hit(inputs[0].num_tokens)
        calls: list[Callable[[], object]] = [
            partial(self.call, i, x) for i, x in enumerate(inputs[:TUNING_CALLS])
        ]
        times = {}
        for config in candidates(rows):
            self.config = config
            with suppress(triton.runtime.errors.OutOfResources):
                times[config] = graph_time_us(calls, TUNING_REPLAYS)
        self.config = min(times, key=lambda config: times[config])
        return str(self.config)

    def call(self, index: int, inputs: Inputs) -> torch.Tensor:
        layer, model = self.layer, self.layer.model
        weights = layer.weights_of_call(index)
        ids, pair_weights = inputs.ids, inputs.weights
        lists = self._index(ids)
        on_input = pair_weights if model.scale_input else None
        on_output = None if model.scale_input else pair_weights
        values = self._product(
            inputs.hidden, weights.gemm1, layer.gate_scale, ids, lists, model.top_k, on_input
        )
        quantised = activate(values, ids, self.gain, layer)
        values = self._product(quantised, weights.gemm2, layer.scale2, ids, lists, 1, on_output)
        return values if model.top_k == 1 and not layer.is_sharded else combine(values, ids, layer)

    def _index(self, ids: torch.Tensor) -> _Index:
        layer, block_m = self.layer, self.config.block_m
        num_pairs, num_local = ids.numel(), layer.num_local
        if 4 * num_pairs <= layer.model.num_experts:
            return _Index(num_pairs, None)
        max_blocks = min(num_pairs, num_local + num_pairs // block_m)
        counts, slots, block_expert, num_blocks = (
            torch.empty(n, dtype=torch.int32, device=ids.device)
            for n in (num_local, max_blocks * block_m, max_blocks, 1)
        )
        chunk = min(CHUNK, triton.next_power_of_2(num_pairs))
        kernels.count_pairs[(num_local,)](
            ids, counts, num_pairs, layer.local_offset, CHUNK=chunk, num_warps=4
        )
        kernels.place_pairs[(num_local,)](
            ids, counts, slots, block_expert, num_blocks, num_pairs, layer.local_offset, num_local,
            BLOCK_M=block_m, EXPERTS=triton.next_power_of_2(num_local), CHUNK=chunk, num_warps=4,
        )  # fmt: skip
        return _Index(max_blocks, (slots, block_expert, num_blocks))

    def _product(
        self,
        a: torch.Tensor,
        weights: torch.Tensor,
        scale: torch.Tensor,
        ids: torch.Tensor,
        index: _Index,
        pairs_per_row: int,
        pair_weights: torch.Tensor | None,
    ) -> torch.Tensor:
        c = self.config
        _, rows, depth = weights.shape
        out = torch.empty(ids.numel(), rows, dtype=torch.bfloat16, device=a.device)
        kernels.grouped_gemm[(index.max_blocks * triton.cdiv(rows, c.block_n),)](
            a, weights, out, scale, pair_weights, ids, *(index.lists or (None, None, None)),
            ids.numel(), rows, depth, self.layer.local_offset, self.layer.num_local, index.max_blocks,
            pairs_per_row,
            DIRECT=index.lists is None, WEIGHTED=pair_weights is not None, EVEN_DEPTH=depth % c.block_k == 0,
            SWAP=c.swap, BLOCK_M=c.block_m, BLOCK_N=c.block_n, BLOCK_K=c.block_k, GROUP_M=c.group_m,
            num_warps=c.num_warps, num_stages=c.num_stages,
        )  # fmt: skip
        return out
