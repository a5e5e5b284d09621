"""The ``group_list`` of grouped operators: how rows (or the reduction dimension) are divided."""

from __future__ import annotations

from itertools import accumulate, pairwise
from typing import NamedTuple

import torch

from moe_jit.checks import reject, reject_type

from . import arguments

CUMULATIVE, COUNTS, SPARSE = 0, 1, 2
MAX_GROUPS = 1024
MAX_LIST = 128


class GroupList(NamedTuple):
    """``values`` is None without groups; otherwise an int64 tensor, or a list of cumulative ends."""

    values: torch.Tensor | list[int] | None
    kind: int
    num_groups: int

    def on(self, device: torch.device) -> torch.Tensor | None:
        """The tensor that a module reads."""
        if isinstance(self.values, list):
            return torch.tensor(self.values, dtype=torch.int64, device=device)
        return None if self.values is None else self.values.contiguous()

    def sizes(self, total: int) -> list[int]:
        """The sizes of the groups, on the host (reads a device tensor). ValueError above ``total``."""
        assert self.values is not None
        assert self.kind != SPARSE
        values: list[int] = self.values if isinstance(self.values, list) else self.values.tolist()
        if self.kind == CUMULATIVE:
            ends = list(accumulate(values, max, initial=0))
        else:
            ends = list(accumulate((max(count, 0) for count in values), initial=0))
        if ends[-1] > total:
            reject("group_list", f"at most {total} rows in all (the rows of x)", ends[-1])
        return [end - begin for begin, end in pairwise(ends)]


def check(
    values: object, kind: object, total: int, total_name: str, device: torch.device, owner: str = "x"
) -> GroupList:
    """``total`` is the size of what is divided, called ``total_name``."""
    checked_kind = arguments.one_of("group_list_type", 0 if kind is None else kind, (0, 1, 2))
    if values is None:
        return GroupList(None, checked_kind, 0)
    if isinstance(values, (list, tuple)):
        return _check_list(list(values), checked_kind, total, total_name)
    if not isinstance(values, torch.Tensor):
        reject_type("group_list", "an int64 torch.Tensor, a list of int or None", values)
    arguments.tensor("group_list", values, (torch.int64,), device, owner)
    expected = "[groups, 2] (group_list_type 2)" if checked_kind == SPARSE else "[groups]"
    shape = tuple(values.shape)
    if len(shape) != (2 if checked_kind == SPARSE else 1) or (checked_kind == SPARSE and shape[1] != 2):
        reject("group_list", f"of shape {expected}", f"shape {shape}")
    if not 1 <= shape[0] <= MAX_GROUPS:
        reject("group_list", f"of 1 to {MAX_GROUPS} groups", f"shape {shape}")
    return GroupList(values, checked_kind, shape[0])


def _check_list(values: list[object], kind: int, total: int, total_name: str) -> GroupList:
    ends = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int):
            reject_type("group_list", "a list of int", values)
        ends.append(value)
    if kind != CUMULATIVE:
        reject("group_list_type", "0 where group_list is a list, which holds cumulative ends", kind)
    if not 1 <= len(ends) <= MAX_LIST:
        reject("group_list", f"a list of 1 to {MAX_LIST} entries", f"{len(ends)} entries")
    if ends[0] < 0 or any(after < before for before, after in pairwise(ends)):
        reject("group_list", "ascending and not negative", ends)
    if ends[-1] != total:
        reject("group_list", f"a list that ends with {total} ({total_name})", ends[-1])
    return GroupList(ends, kind, len(ends))
