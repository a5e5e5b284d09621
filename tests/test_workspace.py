"""The memory that moe_jit.workspace_size reports is the memory that a call takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.calls import call
from support.setup import Setup

import moe_jit

SHAPE: dict[str, Any] = {"hidden_size": 192, "intermediate_size": 96, "num_experts": 8, "top_k": 2}
ROUNDING = 512  # of torch's caching allocator, for each allocation


def test_cpu_takes_the_parts_that_are_not_returned() -> None:
    assert moe_jit.workspace_size(10, **SHAPE, device="cpu") == 10 * 2 * (4 + 2)
    assert moe_jit.workspace_size(10, **SHAPE, do_finalize=False, device="cpu") == 0
    assert moe_jit.workspace_size(0, **SHAPE) == 0


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("num_tokens", -1, ValueError),
        ("hidden_size", 0, ValueError),
        ("intermediate_size", 1.5, TypeError),
        ("hidden_size", 2**31, ValueError),
        ("num_experts", 0, ValueError),
        ("num_experts", 2049, ValueError),
        ("top_k", 9, ValueError),
        ("local_num_experts", 9, ValueError),
        ("do_finalize", 1, TypeError),
        ("routing_method_type", 99, ValueError),
        ("activation_type", 99, ValueError),
        ("device", "meta", ValueError),
        ("device", "gpu", ValueError),
        ("device", [], ValueError),
    ],
)
def test_errors_name_the_argument(name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        moe_jit.workspace_size(**({"num_tokens": 4, **SHAPE} | {name: value}))


@pytest.mark.cuda
@pytest.mark.parametrize("do_finalize", [True, False])
@pytest.mark.parametrize("num_tokens", [1, 40, 3000])
def test_gpu_takes_what_is_reported(num_tokens: int, do_finalize: bool) -> None:
    setup = Setup("cuda")
    layer, routing = setup.layer(), setup.routing(num_tokens)
    hidden = setup.hidden(num_tokens, layer)

    def run() -> Any:
        return call(layer, hidden, routing, do_finalize=do_finalize, poison=False)

    run()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = run()
    taken = torch.cuda.max_memory_allocated() - before
    returned = sum(t.untyped_storage().nbytes() for t in (result if isinstance(result, list) else [result]))
    reported = moe_jit.workspace_size(num_tokens, **SHAPE, do_finalize=do_finalize)
    assert reported <= taken - returned + ROUNDING
    assert taken <= reported + returned + 4 * ROUNDING
