"""npu_grouped_matmul_finalize_routing beside the plain product and what a user would compose."""

from __future__ import annotations

import torch
from int_products import Int8Product
from int_workloads import Contender, relative_l2
from rivals import triton_int

import moe_jit

TOP_K = 8


class FinalizedProduct(Int8Product):
    """Every group has ``rows`` rows; each token is in ``TOP_K`` of them."""

    family = "finalize_routing"
    out_bytes = 0  # see bytes, below
    layouts = ("transposed",)

    def prepare_rows(self) -> None:
        self.tokens = self.m // min(TOP_K, self.groups)
        self.scale_fp32 = self.scale.float()
        self.logit = torch.rand(self.m, device="cuda")
        self.row_index = torch.arange(self.m, device="cuda") % self.tokens
        self.bytes += self.tokens * self.n * 4

    def contenders(self) -> list[Contender]:
        return [
            Contender("moe_jit", lambda: self.ours, is_rival=False),
            Contender(
                "moe_jit plain product",
                lambda: super(FinalizedProduct, self).ours,
                has_result=False,
                is_rival=False,
            ),
            Contender("triton + index_add", lambda: self._with_index_add()),
        ]

    def ours(self, index: int) -> torch.Tensor:
        return moe_jit.npu_grouped_matmul_finalize_routing(
            self.x,
            self.weights[index],
            self.counts,
            scale=self.scale_fp32,
            pertoken_scale=self.row_scale,
            logit=self.logit,
            row_index=self.row_index,
            output_bs=self.tokens,
        )

    def _with_index_add(self):
        product = triton_int.tuned(self.family, self.by_triton, self.rows, self.calls)

        def call(index: int) -> torch.Tensor:
            rows = product(index).float() * self.logit[:, None]
            out = torch.zeros(self.tokens, self.n, device="cuda")
            return out.index_add_(0, self.row_index, rows)

        return call

    def error(self, output: torch.Tensor) -> float:
        """Of one token."""
        rows = (self.row_index == self.tokens // 2).nonzero().flatten().tolist()
        terms = [self.expected(row, self.dense(row // self.rows)) * self.logit[row].double() for row in rows]
        return relative_l2(output[self.tokens // 2], torch.stack(terms).sum(0))
