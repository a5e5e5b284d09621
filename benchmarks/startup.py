"""Where the time of an engine's start goes: imports, compilation, tuning, graph capture.

    python benchmarks/startup.py --model tests/warmup/configs/qwen3_moe.json --ep 8

starts three processes: with an empty cache, with the cache that this leaves, and with a directory made by
``moe_jit.warmup`` and neither a cache nor a compiler. Without a GPU the CPU backend starts instead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BATCHES = (512, 256, 128, 64, 32, 16, 8, 4, 2, 1)


class Timeline(dict[str, float]):
    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self[name] = time.perf_counter() - start


def start_engine(options: argparse.Namespace) -> Timeline:
    """What a serving engine does before its first request, for one layer."""
    timeline = Timeline()
    with timeline.step("import torch"):
        import torch
    with timeline.step("import moe_jit"):
        import moe_jit
    gpu = torch.cuda.is_available()
    calls = calls_of(options, torch.device("cuda" if gpu else "cpu"))
    wait = torch.cuda.synchronize if gpu else (lambda: None)
    with timeline.step("first call"):
        calls[BATCHES[0]]()
        wait()
    with timeline.step("other batch sizes"):
        for call in calls.values():
            call()
        wait()
    if not gpu:
        return timeline
    if options.tune:
        with timeline.step("tuning"), moe_jit.autotune():
            calls[1]()
            wait()
    with timeline.step("capture"):
        pool = torch.cuda.graph_pool_handle()
        for call in calls.values():
            call()
            with torch.cuda.graph(torch.cuda.CUDAGraph(), pool=pool):
                call()
        wait()
    return timeline


def calls_of(options: argparse.Namespace, device: Any) -> dict[int, Callable[[], object]]:
    """A call of the layer for each batch size, largest first."""
    import torch

    import moe_jit
    from moe_jit.warmup import expert_layer, read_config
    from moe_jit.warmup.tuning import random_experts

    layer = expert_layer(read_config(options.model)).shard(options.tp, options.ep)
    experts = random_experts(layer, device)
    token = experts.pop("hidden_states")
    ids = torch.arange(layer.top_k, dtype=torch.int32, device=device)

    def call_of(num_tokens: int) -> Callable[[], object]:
        ids_of_all = ids.repeat(num_tokens, 1)
        arguments = {
            **experts,
            "topk_ids": ids_of_all,
            "topk_weights": torch.ones_like(ids_of_all, dtype=torch.bfloat16),
            "hidden_states": token.expand(num_tokens, -1).contiguous(),
            "num_experts": layer.num_experts,
            "top_k": layer.top_k,
            "intermediate_size": layer.intermediate_size,
            "local_expert_offset": 0,
            "local_num_experts": layer.num_local_experts,
            "activation_type": layer.activation,
            "weight_layout": "w1_w3",
            "tune_max_num_tokens": max(BATCHES),
        }
        return lambda: moe_jit.trtllm_fp8_per_tensor_scale_routed_moe(**arguments)

    return {num_tokens: call_of(num_tokens) for num_tokens in BATCHES}


def measure(arguments: list[str], **environment: str) -> dict[str, float]:
    """The timeline of a new process."""
    command = [sys.executable, __file__, "--child", *arguments]
    result = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True, check=True
    )
    timeline: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return timeline


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="config.json of a Hugging Face model")
    parser.add_argument("--tp", type=int, default=1)
    parser.add_argument("--ep", type=int, default=1)
    parser.add_argument("--tune", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(start_engine(options)))
        return

    import torch

    import moe_jit

    arguments = [word for word in sys.argv[1:] if word != "--child"]
    with tempfile.TemporaryDirectory() as root:
        cache, empty, prebuilt = (str(Path(root) / name) for name in ("cache", "empty", "prebuilt"))
        runs = {
            "empty cache": measure(arguments, MOE_JIT_CACHE_DIR=cache),
            "warm cache": measure(arguments, MOE_JIT_CACHE_DIR=cache),
        }
        arch = "9.0a" if torch.cuda.is_available() else "cpu"
        report = moe_jit.warmup(
            options.model, tp=options.tp, ep=options.ep, arch=arch, output=prebuilt, tune=False
        )
        shipped = {
            "MOE_JIT_CACHE_DIR": empty,
            "MOE_JIT_PREBUILT_DIR": prebuilt,
            "PATH": empty,
            "CUDA_HOME": "",
        }
        runs["prebuilt, no compiler"] = measure(arguments, **shipped)
    print(f"seconds ({len(report.specs)} modules warmed up in {report.seconds:.1f} s)")
    steps = list(dict.fromkeys(step for run in runs.values() for step in run))
    print(f"{'':24}" + "".join(f"{step:>20}" for step in steps))
    for name, run in runs.items():
        print(f"{name:24}" + "".join(f"{run.get(step, float('nan')):20.2f}" for step in steps))


if __name__ == "__main__":
    main()
