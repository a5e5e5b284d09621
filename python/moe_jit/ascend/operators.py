"""An operator with torch_npu's signature: a plain function, and a torch.library operator of that name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from moe_jit.ops import is_traced

_library = torch.library.Library("moe_jit", "FRAGMENT")


class Operator:
    """``run(*args, **kwargs)`` computes; ``allocate`` takes the same, checks and returns empty outputs.

    Both get every keyword of ``schema``. A call goes through the dispatcher only while torch traces, because
    that costs host time.
    """

    def __init__(self, schema: str, run: Callable[..., Any], allocate: Callable[..., Any]) -> None:
        name = schema.partition("(")[0]
        _library.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
        self._run = run
        self._dispatched = getattr(torch.ops.moe_jit, name)
        arguments = self._dispatched.default._schema.arguments
        defaults = {a.name: a.default_value for a in arguments if a.kwarg_only}
        for key in ("CPU", "CUDA", "PrivateUse1"):  # the last one is torch_npu's
            _library.impl(name, _with_defaults(run, defaults), key)
        torch.library.register_fake(f"moe_jit::{name}", _with_defaults(allocate, defaults), lib=_library)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        first = args[0][0] if isinstance(args[0], (list, tuple)) and args[0] else args[0]
        return (self._dispatched if is_traced(first) else self._run)(*args, **kwargs)


def _with_defaults(function: Callable[..., Any], defaults: dict[str, Any]) -> Callable[..., Any]:
    """The dispatcher leaves out keywords that have their default values."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **(defaults | kwargs))

    return call
