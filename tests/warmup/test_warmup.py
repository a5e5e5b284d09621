"""Warm-up produces a directory that serves a process without any compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import moe_jit
from moe_jit import RoutingMethodType, jit
from moe_jit.plan import default_tactic
from moe_jit.warmup import expert_layer, run, tuning

CONFIG: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "hidden_size": 64,
    "moe_intermediate_size": 32,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
}

CPU_PROGRAM = """
import torch
from moe_jit import FusedMoE, jit
scales = {"input_scale": 1.0, "intermediate_scale": 1.0}
layer = FusedMoE(torch.randn(8, 64, 64), torch.randn(8, 64, 32), top_k=2, **scales)
assert layer(torch.randn(5, 64), torch.randn(5, 8)).isfinite().all()
print([record.origin for record in jit.stats()])
"""

GPU_PROGRAM = """
import sys
from moe_jit import jit
from moe_jit.problem import Device
from moe_jit import backends
from moe_jit.warmup import expert_layer
from moe_jit.workspace import problem_workspace
device = Device("cuda", 0, "sm_90a", 132)
layer = expert_layer(%r)
for pre_routed in (False, True):
    backends.load(backends.module_spec(layer.problem(4, device, pre_routed=pre_routed)))
print([record.origin for record in jit.stats()])
sizes = [problem_workspace(layer.problem(tokens, device, pre_routed=False)) for tokens in (1, 2, 3, 4)]
assert 0 < sizes[0] <= sizes[1] <= sizes[2] <= sizes[3] < 1 << 20, sizes
"""


def run_without_compilers(program: str, prebuilt: Path, tmp_path: Path) -> str:
    """Standard output of a new process whose PATH holds nothing at all and whose cache is empty."""
    hidden = ("CXX", "CUDA_HOME", "MOE_JIT_CACHE_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {
        "PATH": str(tmp_path / "nothing"),
        "MOE_JIT_PREBUILT_DIR": str(prebuilt),
        "MOE_JIT_CACHE_DIR": str(tmp_path / "empty"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=300
    )
    assert result.returncode == 0, result.stderr
    assert not (tmp_path / "empty").exists()
    return result.stdout


def test_cpu_directory(tmp_path: Path) -> None:
    output = tmp_path / "prebuilt"
    report = moe_jit.warmup(CONFIG, arch="cpu", output=output)
    assert [path.is_relative_to(output) for path in report.paths] == [True]
    assert run_without_compilers(CPU_PROGRAM, output, tmp_path) == "['prebuilt']\n"


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc")
def test_gpu_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPU is needed to compile, to load, or to ask for the size of the scratch memory."""
    monkeypatch.setattr(run, "candidates", lambda problem: (default_tactic(problem),))  # compiles faster
    output = tmp_path / "prebuilt"
    report = moe_jit.warmup(CONFIG, max_tokens=4, output=output)
    assert len(report.specs) == 2  # routed here or before
    origins = run_without_compilers(GPU_PROGRAM % CONFIG, output, tmp_path)
    assert origins == f"{['prebuilt'] * 2}\n"


@pytest.mark.parametrize("name", ["routed", "grouped", "llama4"])
def test_the_calls_that_are_tuned_are_valid(name: str, tmp_path: Path) -> None:
    """On the CPU there is nothing to measure, but the calls are the same."""
    layer = expert_layer(CONFIG).shard(1, 2)
    if name == "grouped":
        method = RoutingMethodType.DeepSeekV3
        layer = replace(layer, routing_method=method, n_group=4, topk_group=2)
    elif name == "llama4":
        layer = replace(layer, routing_method=RoutingMethodType.Llama4, top_k=1, scale_input=True)
    tuning.tune(
        layer,
        64,
        tmp_path / "autotune.json",
        device=torch.device("cpu"),
        weight_layout=moe_jit.WeightLayout.W1W3,
        logits_dtype=torch.bfloat16,
    )


@pytest.mark.cuda
def test_tuned_directory(tmp_path: Path) -> None:
    report = moe_jit.warmup(CONFIG, max_tokens=64, output=tmp_path)
    assert report.tuned
    assert "fp8_per_tensor_scale_moe" in (tmp_path / "autotune.json").read_text()
    assert not moe_jit.warmup(CONFIG, max_tokens=64, tune=False).tuned


def test_without_an_output_the_cache_is_filled(cache_dir: Path) -> None:
    specs = moe_jit.warmup(CONFIG, arch="cpu").specs
    assert jit.describe(specs[0]).origin == "cache"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"arch": "8.0"}, "arch must be '9.0a' or 'cpu', got '8.0'"),
        ({"max_tokens": 0}, "max_tokens must be at least 1, got 0"),
        ({"tp": 0}, "tp must be at least 1, got 0"),
        ({"arch": "cpu", "tune": True}, "tune must be None or False without a Hopper GPU"),
        ({"ep": 3}, "ep must be a divisor of the number of experts 8, got 3"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        moe_jit.warmup(CONFIG, **options)


def test_command(tmp_path: Path) -> None:
    program = "from moe_jit.cli import main; main()"
    config = Path(__file__).parent / "configs" / "qwen3_moe.json"
    arguments = ["warmup", "--model", str(config), "--ep", "4", "--arch", "cpu", "--output", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *arguments, *options]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)

    good = run()
    assert good.returncode == 0, good.stderr
    assert "32 of 128 experts, top 8, hidden size 2048, intermediate size 768" in good.stdout
    assert f"MOE_JIT_PREBUILT_DIR={tmp_path}" in good.stdout
    bad = run("--tp", "7")
    assert bad.returncode == 2
    assert "tp must be a divisor of the intermediate size 768" in " ".join(bad.stderr.split())
