"""What torch_npu knows and a launch needs: the stream and the number of cores."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

KIND = "npu"
_BLOCKED_FORMAT = 29  # FRACTAL_NZ
_FEWEST_CORES = 20  # of the smallest Atlas A2; a chip with more runs such a launch too


def _torch_npu() -> Any:
    try:
        return importlib.import_module("torch_npu")
    except ImportError as error:
        raise ImportError(
            "tensors of an NPU need torch_npu, which cannot be imported; "
            f"install the release for torch {torch.__version__} and CANN's set_env.sh"
        ) from error


def current_stream() -> int:
    """The address of the current stream's handle."""
    return int(_torch_npu().npu.current_stream().npu_stream)


def is_blocked(tensor: torch.Tensor) -> bool:
    """Whether the memory of a tensor of plain shape is in the NPU's blocked format."""
    return bool(_torch_npu().get_npu_format(tensor) == _BLOCKED_FORMAT)


def name(device: torch.device) -> str:
    """What torch_npu calls the chip."""
    return str(getattr(_torch_npu().npu.get_device_properties(device), "name", KIND))


def is_capturing() -> bool:
    """Whether calls are recorded into a graph now."""
    known = getattr(_torch_npu().npu, "is_current_stream_capturing", None)  # newer versions have it
    return bool(known()) if known is not None else False


class Timer:
    """Times launches on the current stream by events. ``flushed`` is larger than the L2 cache."""

    def __init__(self, flushed: torch.Tensor) -> None:
        self._flushed = flushed

    def microseconds(self, run: Callable[[], object], repeats: int) -> float:
        """The mean of ``repeats`` launches, each with a cold L2 cache."""
        npu = _torch_npu().npu
        spans = []
        for _ in range(repeats):
            self._flushed.zero_()
            start, end = (npu.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            spans.append((start, end))
        spans[-1][1].synchronize()
        return 1e3 * sum(float(start.elapsed_time(end)) for start, end in spans) / repeats


@cache
def num_cores(device: torch.device) -> int:
    """Cube cores of an NPU: MOE_JIT_ASCEND_CORES, else what torch_npu says, else 20."""
    chosen = os.environ.get("MOE_JIT_ASCEND_CORES", "").strip()
    if chosen:
        if not chosen.isdigit() or int(chosen) < 1:
            raise ValueError(f"MOE_JIT_ASCEND_CORES: given {chosen!r}, expected a positive integer")
        return int(chosen)
    properties = _torch_npu().npu.get_device_properties(device)
    return int(getattr(properties, "cube_core_num", 0) or _FEWEST_CORES)
