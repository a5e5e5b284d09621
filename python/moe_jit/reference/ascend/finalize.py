"""The scatter-add of npu_grouped_matmul_finalize_routing."""

from __future__ import annotations

import torch


def scatter_rows(
    terms: torch.Tensor,
    row_index: torch.Tensor,
    output_rows: int,
    *,
    shared_input: torch.Tensor | None = None,
    shared_input_weight: float = 1.0,
    shared_input_offset: int = 0,
) -> torch.Tensor:
    """Add row i of ``terms`` [rows, n] to row ``row_index[i]`` of the output, in ascending i and in the dtype
    of ``terms``; the weighted shared input is there first."""
    output = terms.new_zeros(output_rows, terms.shape[1])
    if shared_input is not None:
        end = shared_input_offset + shared_input.shape[0]
        output[shared_input_offset:end] = shared_input.to(terms.dtype) * shared_input_weight
    for row, target in zip(terms, row_index.tolist(), strict=True):
        if 0 <= target < output_rows:
            output[target] += row
    return output
