"""What npu_grouped_matmul compiles for a GPU: every kernel variant, and random problems for one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from moe_jit.ascend import cuda_plan, grouped_matmul, matmul_rules
from moe_jit.ascend.matmul_arguments import Request, request
from moe_jit.ascend.matmul_rules import Parameters
from moe_jit.jit import ModuleSpec
from support.ascend import Inputs
from support.matmul import I8, INT4, ROWS, Problem, Row


@dataclass(frozen=True)
class Kernel:
    """``row`` of ROWS; ``tile`` rows of a token tile, None on CUDA cores; ``group`` elements of k that share
    scales, 0 where all of a column do."""

    row: str
    layout: str
    tile: int | None
    group: int = 0
    bias: bool = True
    offset: bool = False
    act_type: int = 0

    def __str__(self) -> str:
        parts = [self.row, self.layout, "direct" if self.tile is None else str(self.tile)]
        parts += [f"group{self.group}"] if self.group else []
        parts += [name for name in ("bias", "offset") if getattr(self, name)]
        return "-".join(parts + ([f"act{self.act_type}"] if self.act_type else []))

    @property
    def dtypes(self) -> Row:
        return ROWS[self.row]

    @property
    def group_lists(self) -> list[str]:
        """Forms of group lists that calls of these dtypes may have."""
        return ["counts"] if (self.dtypes.x, self.dtypes.w) == (I8, INT4) else ["counts", "cumulative"]

    def problem(self, inputs: Inputs, counts: list[int], k: int, n: int, tail: int = 0) -> Problem:
        """``k`` and ``n`` in steps of what the kernel takes."""
        depth = k * self._depth_step()
        return Problem(
            inputs,
            self.dtypes,
            counts,
            depth,
            n * self._column_step(),
            tail=tail,
            layout=self.layout,
            bias=self.bias,
            k_groups=depth // self.group if self.group else 1,
            offset=self.offset,
            act_type=self.act_type,
        )

    def steps(self, depth: int, columns: int) -> tuple[int, int]:
        """``depth`` and ``columns`` at least, as problem() takes them."""
        return -(-depth // self._depth_step()), -(-columns // self._column_step())

    def random_problem(self, inputs: Inputs, max_rows: int) -> Problem:
        pick = inputs.random
        counts = inputs.counts(pick.choice([1, 2, 5, 17, 60]), pick.randint(1, max_rows)).tolist()
        depth, columns = self.steps(pick.randint(self.group + 1, 700), pick.randint(1, 300))
        return self.problem(inputs, counts, depth, columns, tail=pick.choice([0, 0, 1, 13]))

    def _depth_step(self) -> int:
        if self.group:
            return self.group
        if self.dtypes.w == INT4:
            return 64
        return 16 if self.tile else 1

    def _column_step(self) -> int:
        if self.dtypes.w == INT4:
            return 64 if self.layout == "nz" else 32 if self.tile else 8
        if not self.tile:
            return 1
        if self.layout == "nz":
            return 8 if self.bias else 64  # without a parameter of n columns the padding counts
        return 16

    def check_plan(self, problem: Problem) -> None:
        """Tensor cores take the call if the table says so."""
        assert self.tile is None or self.module(problem).name.startswith("grouped_matmul_sm"), str(self)

    def module(self, problem: Problem) -> ModuleSpec:
        """That of a GPU, which need not be there."""
        arguments = problem.arguments()
        given = dict.fromkeys((*grouped_matmul._LISTS, *grouped_matmul._SCALARS, *grouped_matmul._RARE))
        checked = request(arguments.pop("x"), arguments.pop("weight"), given | arguments)
        with planned_for(self):
            return cuda_plan.module_for(checked, matmul_rules.check(checked), "sm_90a")


@contextmanager
def planned_for(kernel: Kernel) -> Iterator[None]:
    """GPU calls inside use the token tile of ``kernel``, whatever their rows, or CUDA cores."""

    def nothing(r: Request, p: Parameters) -> None:
        return None

    with pytest.MonkeyPatch.context() as patch:
        if kernel.tile is None:
            patch.setattr(cuda_plan, "tensor_core_product", nothing)
        patch.setattr(cuda_plan, "tile_tokens", lambda *_: kernel.tile)
        patch.setattr(grouped_matmul, "_plans", {})
        yield


# Every number format and epilogue, tile and layout. Modules compile for minutes of processor time in all, so
# outputs, layouts and tiles take turns.
KERNELS = [
    Kernel("i8-i8", "nd", 16),
    Kernel("i8-i32", "transposed", 16, bias=False),
    Kernel("i8-i32", "nz", 64),
    Kernel("i8-i32", "nd", 128),
    Kernel("i8-i8", "nz", 160),
    Kernel("i8-i8", "transposed", 128),
    Kernel("i8-bf16-token", "nd", 320),
    Kernel("i8-i32", "transposed", 320, bias=False),
    Kernel("i8-bf16-token", "nd", 64, act_type=5, bias=False),
    Kernel("i8-f16-token", "transposed", 64, act_type=2),
    Kernel("i8-bf16-f32scale", "nz", 16, act_type=4),
    Kernel("f16", "nd", 16),
    Kernel("bf16", "transposed", 64),
    Kernel("bf16", "nz", 160),
    Kernel("bf16", "nd", 128),
    Kernel("f16", "transposed", 160),
    Kernel("bf16", "nd", 320),
    Kernel("f16", "nz", 320),
    Kernel("bf16", "transposed", 320),
    Kernel("f16-i8", "nd", 16),
    Kernel("bf16-i8", "transposed", 64, offset=True),
    Kernel("bf16-i8", "nz", 160),
    Kernel("f16-i4", "nd", 16, group=32),
    Kernel("bf16-i4", "nz", 64, group=128, offset=True),
    Kernel("bf16-i4", "nd", 160),
    Kernel("bf16-i4", "nd", 16, group=256),
    Kernel("bf16-i4", "nz", 32, group=128),
    Kernel("bf16-i4", "transposed", 16, group=128),
    Kernel("bf16-i4", "transposed", 64, group=32, offset=True),
    Kernel("f16-i4", "transposed", 160),
    Kernel("i8i4-bf16", "nd", 16),
    Kernel("i8i4-f16", "nz", 64, group=256, offset=True),
    Kernel("i8i4-bf16", "nd", 32, group=256),
    Kernel("i8i4-bf16", "nd", 160, bias=False),
    Kernel("i4-bf16", "nd", 64, group=128, bias=False),
    Kernel("i4-f16", "nz", 16, bias=False),
    Kernel("f32", "nd", None),
    Kernel("bf16", "nz-transposed", None),
    Kernel("i8-i8", "nz-transposed", None),
    Kernel("bf16-i8", "nd", None, offset=True),
    Kernel("f16-i4", "nd", None, group=16),
    Kernel("i8i4-bf16", "nd", None, group=256, offset=False),
    Kernel("i4-bf16", "nz", None, bias=False),
]
