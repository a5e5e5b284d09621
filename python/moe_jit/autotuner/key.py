"""What identifies a layer shape on a kind of device: measurements of one key hold for all of its calls."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from enum import Enum
from functools import cache
from typing import Any

import torch

from ..jit import SourceTree, Unit
from ..jit.flags import unit_flags
from ..jit.spec import HOPPER, package_sources
from ..problem import MoEProblem

OPERATION = "fp8_per_tensor_scale_moe"
# Facts of a call that cannot change which tactic is fastest; every other field of MoEProblem is in the key.
IRRELEVANT = {
    "num_tokens": "measured per bucket",
    "tune_max_num_tokens": "says which buckets to measure",
    "device": "its name and number of multiprocessors are in the key",
    "local_expert_offset": "ranks of one layer do the same work",
    "do_finalize": "the weighted sum is another kernel",
    "has_replay": "a few bytes per token, in another kernel",
}
# What a person recognises a layer shape by.
_SIZES = (
    *("hidden_size", "intermediate_size", "num_local_experts", "num_experts", "top_k", "activation"),
    *("entry", "k", "n", "half", "num_groups"),
)


@dataclass(frozen=True)
class Key:
    """Facts as canonical JSON, in which values of different types differ."""

    text: str

    @classmethod
    def of(cls, facts: dict[str, Any]) -> Key:
        return cls(json.dumps(facts, sort_keys=True))

    @property
    def facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads(self.text)
        return facts

    def __str__(self) -> str:
        facts = self.facts
        sizes = (f"{name} {facts[name]}" for name in _SIZES if name in facts)
        return f"{facts.get('operation')} ({', '.join(sizes)})"


def kernel_set(tree: SourceTree, target: str = HOPPER, folder: str = "cuda") -> str:
    """Digest of all that the device's code is compiled from, and of its flags; no driver or compiler
    version."""
    digest = hashlib.sha256(tree.headers_digest(target).encode())
    for path in sorted((tree.csrc / folder).iterdir()):
        if path.suffix in (".cu", ".cpp"):
            unit = Unit(str(path.relative_to(tree.csrc)))
            described = [unit.source, tree.unit_digest(unit, target), unit_flags(unit, target)]
            digest.update(json.dumps(described).encode())
    return digest.hexdigest()[:16]


@cache
def own_kernels(target: str, folder: str) -> str:
    """``kernel_set`` of this package's sources."""
    return kernel_set(package_sources(), target, folder)


def _fact(value: object) -> str | int | None:
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    if value is None or isinstance(value, (str, int)):
        return value
    raise TypeError(f"no stable text for {value!r}")


def key_of(problem: MoEProblem, kernels: str | None = None) -> Key:
    """The key of a call; ``kernels`` replaces the digest of this package's kernels."""
    facts = {f.name: _fact(getattr(problem, f.name)) for f in fields(problem) if f.name not in IRRELEVANT}
    return Key.of(
        {
            "operation": OPERATION,
            "gpu": problem.device.name,
            "sm_count": problem.device.sm_count,
            "kernels": kernels or own_kernels(HOPPER, "cuda"),
            "input_dtype": "float8_e4m3fn",
            "weight_dtype": "float8_e4m3fn",
            "output_dtype": "bfloat16",
            **facts,
        }
    )
