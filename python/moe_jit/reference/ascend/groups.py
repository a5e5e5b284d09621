"""Which expert a row belongs to, from a group list."""

from __future__ import annotations

import torch

CUMULATIVE, COUNTS, SPARSE = 0, 1, 2


def row_experts(group_list: torch.Tensor, group_list_type: int, num_rows: int) -> torch.Tensor:
    """int64 [num_rows]: the expert of each row, -1 for rows after the last group."""
    experts = torch.full((num_rows,), -1, dtype=torch.int64)
    values = group_list.cpu().tolist()
    begin = 0
    for group, value in enumerate(values):
        expert, count = (group, value) if group_list_type != SPARSE else value
        if group_list_type == SPARSE and count <= 0:
            break
        end = count if group_list_type == CUMULATIVE else begin + max(count, 0)
        experts[begin:end] = expert
        begin = max(begin, end)
    return experts
