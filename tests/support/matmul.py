"""Random problems of npu_grouped_matmul: a product for each expert, in every dtype row and weight layout."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

import moe_jit
from moe_jit import backends
from moe_jit.ascend.formats import pack_int4
from moe_jit.reference import ascend as reference
from support.ascend import Inputs
from support.calls import poisoned_allocations

F16, BF16, F32, I8, I32 = torch.float16, torch.bfloat16, torch.float32, torch.int8, torch.int32
INT4 = "int4"
ULP = {F16: 2.0**-10, BF16: 2.0**-7, F32: 2.0**-23}
SMALLEST = {F16: 2.0**-24, BF16: 2.0**-126, F32: 2.0**-126}


@dataclass(frozen=True)
class Row:
    """One row of the dtype tables; ``x`` and ``w`` may be INT4."""

    x: Any
    w: Any
    y: torch.dtype
    scale: torch.dtype | None = None
    per_token: bool = False

    @property
    def quantised_bias(self) -> bool:
        return self.x == I8 and self.w == I8


ROWS = {
    "f16": Row(F16, F16, F16),
    "bf16": Row(BF16, BF16, BF16),
    "f32": Row(F32, F32, F32),
    "i8-i8": Row(I8, I8, I8, torch.int64),
    "i8-i32": Row(I8, I8, I32),
    "i8-bf16": Row(I8, I8, BF16, BF16),
    "i8-bf16-f32scale": Row(I8, I8, BF16, F32),
    "i8-f16": Row(I8, I8, F16, F32),
    "i8-bf16-token": Row(I8, I8, BF16, BF16, True),
    "i8-bf16-f32scale-token": Row(I8, I8, BF16, F32, True),
    "i8-f16-token": Row(I8, I8, F16, F32, True),
    "f16-i8": Row(F16, I8, F16),
    "bf16-i8": Row(BF16, I8, BF16),
    "f16-i4": Row(F16, INT4, F16),
    "bf16-i4": Row(BF16, INT4, BF16),
    "i8i4-bf16": Row(I8, INT4, BF16, torch.int64, True),
    "i8i4-f16": Row(I8, INT4, F16, torch.int64, True),
    "i4-bf16": Row(INT4, INT4, BF16, torch.uint64, True),
    "i4-f16": Row(INT4, INT4, F16, torch.uint64, False),
}


def stored_weight(w: torch.Tensor, layout: str, packed: bool) -> torch.Tensor:
    """The logical matrices [..., k, n] as an argument."""
    swapped = layout in ("transposed", "nz-transposed")
    value = w.transpose(-1, -2) if swapped else w
    value = pack_int4(value) if packed else value.contiguous()
    if layout.startswith("nz"):
        value = moe_jit.nd_to_nz(value)
    if layout == "nz-transposed":
        value = value.transpose(-4, -3)
    return value.transpose(-1, -2) if swapped else value


def float_bits(scale: torch.Tensor) -> torch.Tensor:
    """float32 bits, zero-extended to int64."""
    return scale.contiguous().view(torch.int32).long() & 0xFFFFFFFF


@dataclass
class Problem:
    """``counts`` rows for each expert, ``tail`` more rows that belong to none."""

    inputs: Inputs
    row: Row
    counts: list[int]
    k: int
    n: int
    tail: int = 0
    layout: str = "nd"
    stacked: bool = True
    bias: bool | torch.dtype = True
    k_groups: int = 1
    offset: bool = False
    act_type: int = 0
    x: torch.Tensor = field(init=False)
    w: torch.Tensor = field(init=False)
    parameters: dict[str, torch.Tensor] = field(init=False)
    backend: str = field(default=backends.AUTO, init=False)  # of the last call

    def __post_init__(self) -> None:
        rows, experts = sum(self.counts) + self.tail, len(self.counts)
        self.x = self._operand(self.row.x, rows, self.k)
        self.w = self._operand(self.row.w, experts, self.k, self.n)
        self.parameters = self._parameters(rows, experts)

    def _operand(self, dtype: Any, *shape: int) -> torch.Tensor:
        if dtype == INT4:
            return self.inputs.integers(*shape, low=-8, high=7)
        if dtype == I8:
            return self.inputs.integers(*shape)
        return self.inputs.normal(*shape, dtype=dtype)

    def _parameters(self, rows: int, experts: int) -> dict[str, torch.Tensor]:
        inputs, row, n = self.inputs, self.row, self.n
        shape = (experts, self.k_groups, n) if self.k_groups > 1 else (experts, n)
        result = {}
        if row.scale is not None:
            result["scale"] = inputs.positive(*shape, high=2e-3)
            if row.scale == BF16:
                result["scale"] = result["scale"].bfloat16()
        if row.w in (I8, INT4) and row.x in (F16, BF16):
            result["antiquant_scale"] = inputs.positive(*shape, high=0.1, dtype=row.x)
            if self.offset:
                result["antiquant_offset"] = inputs.normal(*shape, std=3.0, dtype=row.x)
        elif self.offset:
            result["offset"] = inputs.normal(experts, 1, n, std=1e-3)
        if row.per_token:
            result["per_token_scale"] = inputs.positive(rows, high=0.1)
        if self.bias and row.x != INT4:
            result["bias"] = self._bias(experts)
        return result

    def _bias(self, experts: int) -> torch.Tensor:
        inputs, row = self.inputs, self.row
        if row.quantised_bias and self.bias is True:
            return inputs.integers(experts, self.n, low=-5000, high=5000, dtype=I32)
        if row.quantised_bias:
            return inputs.normal(experts, self.n, dtype=self.bias)
        dtype = F16 if row.x == F16 else F32
        return inputs.normal(experts, self.n, dtype=dtype, std=3.0)

    # ---- the call

    def group_list(self, kind: str) -> dict[str, Any]:
        counts = torch.tensor(self.counts, device=self.inputs.device)
        if kind == "list":
            return {"group_list": counts.cumsum(0).tolist(), "group_list_type": 0}
        if kind == "cumulative":
            return {"group_list": counts.cumsum(0), "group_list_type": 0}
        return {"group_list": counts, "group_list_type": 1}

    def arguments(self, kind: str = "counts") -> dict[str, Any]:
        row = self.row
        packed = row.w == INT4
        weight = stored_weight(self.w, self.layout, packed)
        pieces = [weight] if self.stacked else list(weight.unbind(0))
        arguments: dict[str, Any] = {
            "x": [pack_int4(self.x) if row.x == INT4 else self.x],
            "weight": pieces,
            "split_item": 3,
            "group_type": 0,
            "output_dtype": row.y,
            "act_type": self.act_type,
            **self.group_list(kind),
        }
        for name, value in self.parameters.items():
            if name == "per_token_scale":
                arguments[name] = [value]
            else:
                value = self._stored_scale(value) if name == "scale" else value
                arguments[name] = [value] if self.stacked else list(value.unbind(0))
        return arguments

    def _stored_scale(self, scale: torch.Tensor) -> torch.Tensor:
        if self.row.y == I8:
            return moe_jit.npu_trans_quant_param(scale)
        if self.row.scale in (torch.int64, torch.uint64):
            return float_bits(scale).to(self.row.scale)
        return scale

    def call(self, kind: str = "counts", **changes: Any) -> list[torch.Tensor]:
        self.backend = backends.chosen().name
        with poisoned_allocations():
            return moe_jit.npu_grouped_matmul(**(self.arguments(kind) | changes))

    # ---- the expected result

    def ranges(self) -> list[tuple[int, int, int]]:
        ends = torch.tensor(self.counts).cumsum(0).tolist()
        return [(e, end - count, end) for e, (count, end) in enumerate(zip(self.counts, ends, strict=True))]

    def may_scale_sums(self, device: str) -> bool:
        """Sums of the weights themselves may be scaled, which then are not rounded: on a GPU where they have
        no offset, and in an Ascend kernel of int4 weights."""
        if "antiquant_scale" not in self.parameters:
            return False
        if self.backend == backends.EMULATOR:
            return self.row.w == INT4
        return device == "cuda" and not self.offset

    def expected(self, rounded: bool = True) -> reference.Product:
        """``rounded``: dequantised weights are, to 16 bits."""
        rows = self.x.shape[0]
        exact, bound = torch.zeros(2, rows, self.n, dtype=torch.float64).unbind(0)
        for expert, begin, end in self.ranges():
            product = self._expected_rows(expert, begin, end, rounded)
            exact[begin:end], bound[begin:end] = product.exact, product.bound
        return reference.Product(exact, bound)

    def _expected_rows(self, expert: int, begin: int, end: int, rounded: bool) -> reference.Product:
        row, x, w = self.row, self.x[begin:end].cpu(), self.w[expert].cpu()
        one = {
            name: value[begin:end].cpu() if name == "per_token_scale" else value[expert].cpu()
            for name, value in self.parameters.items()
        }
        if row.x in (F16, BF16, F32):
            if row.w != row.x:
                tables = one["antiquant_scale"], one.get("antiquant_offset")
                w = reference.dequantised_weight(w, *tables, rounded=rounded)
            return reference.float_product(x, w, one.get("bias"))
        if row.w == INT4:
            scale = one["scale"].reshape(-1, self.n)
            return reference.int4_product(
                x,
                w,
                scale,
                shifted=row.x == I8 and "bias" in one,
                bias=one.get("bias"),
                offset=one.get("offset"),
                factor=one.get("per_token_scale"),
            )
        return self._expected_int8(x, w, one)

    def _expected_int8(self, x: torch.Tensor, w: torch.Tensor, one: dict[str, Any]) -> reference.Product:
        bias = one.get("bias")
        integer = bias if bias is not None and bias.dtype == I32 else None
        accumulator = reference.accumulate(x, w, integer)
        if self.row.y == I32:
            exact = accumulator.double()
        elif self.row.y == I8:
            exact = reference.requantised(accumulator, moe_jit.npu_trans_quant_param(one["scale"])).double()
        else:
            floating = None if integer is bias else bias
            scale, token = one["scale"], one.get("per_token_scale")
            exact = reference.scaled_product(accumulator, scale, token, floating, self.act_type)
        return reference.Product(exact, exact.abs())

    def check(self, y: torch.Tensor) -> None:
        """Integers and scaled integers exactly, activated ones to one unit, float sums within their bound."""
        expected = self.expected()
        if self.may_scale_sums(y.device.type):  # experts with few rows and with many may differ
            is_close = self._close_rows(y, expected)
            scaled = self.expected(rounded=False)
            expected = reference.Product(*map(partial(torch.where, is_close), expected, scaled))
        note = f"{self.inputs.note} {self.row} {self.counts} k {self.k} n {self.n} {self.layout}"
        assert y.dtype == self.row.y, note
        assert tuple(y.shape) == tuple(expected.exact.shape), note
        actual = y.cpu().double()
        if self.row.quantised_bias:
            if self.row.y in (I8, I32) or not self.act_type:
                rounded = expected.exact.float().to(self.row.y)
                assert torch.equal(y.cpu(), rounded), f"{note}: {(y.cpu() != rounded).sum()} differ"
                return
            tolerance = units(expected.exact, self.row.y)
        else:
            tolerance = self._sum_tolerance(expected)
        error = (actual - expected.exact).abs()
        assert (error <= tolerance).all(), f"{note}: {(error / tolerance).max()} of the tolerance"

    def _sum_tolerance(self, expected: reference.Product) -> torch.Tensor:
        """Of fp32 sums that are rounded once."""
        sums = (self.k + 4) * 2.0**-24 * expected.bound
        return 0.5 * (1 + 2.0**-8) * units(expected.exact.abs() + sums, self.row.y) + sums

    def _close_rows(self, y: torch.Tensor, expected: reference.Product) -> torch.Tensor:
        """bool [rows, 1]"""
        error = (y.cpu().double() - expected.exact).abs()
        return (error <= self._sum_tolerance(expected)).all(dim=1, keepdim=True)


def units(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The unit in the last place of ``dtype`` at ``value``."""
    exponent = torch.frexp(value)[1] - 1
    return torch.ldexp(torch.ones_like(value), exponent).clamp(min=SMALLEST[dtype] / ULP[dtype]) * ULP[dtype]
