"""A decode step captured for a list of batch sizes in one memory pool, as serving engines do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support.calls import call
from support.setup import Setup

import moe_jit

pytestmark = pytest.mark.cuda

SHAPE = {"hidden_size": 2048, "intermediate_size": 768, "num_experts": 64, "top_k": 8}
BUCKETS = (512, 448, 384, 320, 256, 128, 64, 16, 4, 1)  # the largest first, so that its memory serves all
SEGMENTS = 24 << 20  # torch reserves memory in segments of up to 20 MiB


def test_graphs_of_all_buckets_share_one_pool() -> None:
    setup = Setup("cuda")
    layer = setup.layer(SHAPE["num_experts"], SHAPE["hidden_size"], SHAPE["intermediate_size"])
    routing = setup.routing(BUCKETS[0], SHAPE["num_experts"], top_k=SHAPE["top_k"])
    hidden = setup.hidden(BUCKETS[0], layer)
    output = torch.empty(BUCKETS[0], layer.hidden_size, dtype=torch.bfloat16, device="cuda")

    def step(bucket: int, into: torch.Tensor) -> torch.Tensor:
        first = replace(routing, logits=routing.logits[:bucket])
        return call(layer, hidden[:bucket], first, output=into[:bucket], poison=False)

    for bucket in BUCKETS:
        step(bucket, output)
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    pool = torch.cuda.graph_pool_handle()
    graphs = {}
    for bucket in BUCKETS:
        graphs[bucket] = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graphs[bucket], pool=pool):
            step(bucket, output)
    taken = torch.cuda.memory_reserved() - before
    sizes = [moe_jit.workspace_size(bucket, **SHAPE) for bucket in BUCKETS]
    assert taken <= sizes[0] + SEGMENTS < sum(sizes)

    expected = torch.empty_like(output)
    for bucket in (*BUCKETS, *reversed(BUCKETS)):
        hidden.copy_(setup.hidden(BUCKETS[0], layer))
        routing.logits.copy_(setup.routing(BUCKETS[0], SHAPE["num_experts"], top_k=SHAPE["top_k"]).logits)
        output.fill_(torch.nan)
        graphs[bucket].replay()
        step(bucket, expected)
        assert torch.equal(output[:bucket], expected[:bucket]), f"seed {setup.seed}, bucket {bucket}"
        assert output[bucket:].isnan().all()
