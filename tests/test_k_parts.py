"""The rule that cuts K where tiles are few, as the kernels' host code evaluates it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = """
#include "moe_jit/core/k_parts.h"
extern "C" int k_parts(int64_t tiles, int64_t stages) { return moe_jit::k_parts(tiles, stages); }
extern "C" int64_t expected_experts(int64_t pairs, int64_t experts, int64_t local) {
    return moe_jit::expected_experts(pairs, experts, local);
}
"""


@pytest.fixture(scope="module")
def rule(tmp_path_factory) -> ctypes.CDLL:
    target = tmp_path_factory.mktemp("rule")
    (target / "rule.cpp").write_text(SOURCE)
    compiler = os.environ.get("CXX", "c++").split()
    options = ["-std=c++17", "-shared", "-fPIC", f"-I{ROOT / 'include'}"]
    subprocess.run([*compiler, *options, "-o", "rule.so", "rule.cpp"], cwd=target, check=True)
    return ctypes.CDLL(str(target / "rule.so"))


@pytest.mark.parametrize(
    ("tiles", "stages", "parts"),
    [
        (80, 32, 4),  # Llama4-Maverick's second product at one token, tiles of 64 rows, stages of 256
        (128, 56, 4),  # Mixtral
        (256, 56, 4),
        (264, 56, 2),
        (512, 56, 2),
        (528, 56, 1),
        (512, 6, 1),  # Qwen3-235B
        (896, 8, 1),  # DeepSeek-V3
        (1, 15, 1),
        (1, 16, 2),
        (1, 32, 4),
        (1, 1000, 4),
        (0, 1000, 4),
    ],
)
def test_parts_fill_the_device_and_stay_long(rule, tiles, stages, parts):
    assert rule.k_parts(ctypes.c_int64(tiles), ctypes.c_int64(stages)) == parts


@pytest.mark.parametrize(
    ("pairs", "num_experts", "num_local", "expected"),
    [(1, 128, 128, 1), (8, 256, 32, 1), (9, 256, 32, 2), (16, 8, 8, 8), (64, 8, 8, 8), (1, 2048, 1, 1)],
)
def test_expected_experts(rule, pairs, num_experts, num_local, expected):
    arguments = (ctypes.c_int64(n) for n in (pairs, num_experts, num_local))
    assert rule.expected_experts(*arguments) == expected
