"""Number formats seen through the public function, and what only the CPU backend promises."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from support.setup import DEVICES

import moe_jit
from moe_jit import ActivationType

SIZE = 32


def _one_expert_per_token(
    hidden: torch.Tensor, gemm1: torch.Tensor, sc: torch.Tensor, s2: torch.Tensor | None = None
) -> torch.Tensor:
    """Token t visits expert t with weight 1: its element 0 is bf16(s2 * e4m3(sc * sum(hidden * gemm1)))."""
    count, device = hidden.shape[0], hidden.device
    gemm2 = torch.zeros(count, SIZE, SIZE, device=device)
    gemm2[:, 0, 0] = 1
    output = moe_jit.trtllm_fp8_per_tensor_scale_routed_moe(
        topk_ids=torch.arange(count, dtype=torch.int32, device=device)[:, None],
        topk_weights=torch.ones(count, 1, dtype=torch.bfloat16, device=device),
        hidden_states=hidden,
        gemm1_weights=gemm1,
        output1_scales_scalar=sc,
        output1_scales_gate_scalar=torch.ones_like(sc),
        gemm2_weights=gemm2.to(torch.float8_e4m3fn),
        output2_scales_scalar=torch.ones_like(sc) if s2 is None else s2,
        num_experts=count,
        top_k=1,
        intermediate_size=SIZE,
        local_expert_offset=0,
        local_num_experts=count,
        activation_type=ActivationType.Identity,
        weight_layout="w3_w1",
    )
    assert isinstance(output, torch.Tensor)
    return output[:, 0].float()


def _one_hot(count: int, device: str) -> torch.Tensor:
    """Rows whose element 0 is 1: hidden states [count, H], or with a further axis the weights."""
    rows = torch.zeros(count, SIZE, device=device)
    rows[:, 0] = 1
    return rows.to(torch.float8_e4m3fn)


def _first_weight_one(count: int, device: str) -> torch.Tensor:
    weights = torch.zeros(count, SIZE, SIZE, device=device)
    weights[:, 0, 0] = 1
    return weights.to(torch.float8_e4m3fn)


def _same(actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    return (actual == expected) | (actual.isnan() & expected.isnan())


def _all_codes(device: str) -> torch.Tensor:
    return torch.arange(256, dtype=torch.int32, device=device).to(torch.uint8)


@pytest.mark.parametrize("device", DEVICES)
def test_every_e4m3_code_is_read_exactly(device: str) -> None:
    codes = _all_codes(device)
    expected = codes.view(torch.float8_e4m3fn).float()
    ones = torch.ones(256, device=device)

    hidden = _one_hot(256, device).view(torch.uint8)
    hidden[:, 0] = codes
    from_hidden = _one_expert_per_token(
        hidden.view(torch.float8_e4m3fn), _first_weight_one(256, device), ones
    )
    weights = _first_weight_one(256, device).view(torch.uint8)
    weights[:, 0, 0] = codes
    from_weights = _one_expert_per_token(_one_hot(256, device), weights.view(torch.float8_e4m3fn), ones)
    assert _same(from_hidden, expected).all()
    assert _same(from_weights, expected).all()


@pytest.mark.parametrize("device", DEVICES)
def test_intermediate_rounds_to_nearest_even_and_saturates(device: str) -> None:
    grid = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    middle = (grid[1:] + grid[:-1]) / 2
    inf = torch.tensor(torch.inf)
    positive = torch.cat(
        [
            grid,
            middle,
            middle.nextafter(inf),
            middle.nextafter(-inf),
            torch.tensor([448.1, 463.9, 464, 464.1, 480, 3e38, torch.nan, 2.0**-10, 2.0**-11, 1e-30]),
            torch.randn(500).exp2(),
        ]
    )
    values = torch.cat([positive, -positive]).to(device)
    count = values.numel()
    assert count <= 2048

    actual = _one_expert_per_token(_one_hot(count, device), _first_weight_one(count, device), values)
    expected = values.clamp(-448, 448).to(torch.float8_e4m3fn).float()
    assert _same(actual, expected).all()


@pytest.mark.parametrize("device", DEVICES)
def test_rows_round_to_bfloat16_to_nearest_even(device: str) -> None:
    bits = torch.randint(-(2**31), 2**31 - 1, (1500,), dtype=torch.int64).to(torch.int32)
    ties = (torch.randint(0, 0x7F00, (500,), dtype=torch.int32) << 16) + 0x8000
    scales = torch.cat([bits, ties]).view(torch.float32)
    scales = scales[scales.isnan() | (scales.abs() > 2.0**-100)].to(device)
    count = scales.numel()
    ones = torch.ones(count, device=device)

    actual = _one_expert_per_token(_one_hot(count, device), _first_weight_one(count, device), ones, scales)
    assert _same(actual, scales.bfloat16().float()).all()


def _random_call(num_tokens: int, seed: int) -> torch.Tensor:
    """A Swiglu layer with H = 160, I = 96, E = 8, k = 3; the tokens of a seed have a common prefix."""
    generator = torch.Generator().manual_seed(seed)

    def e4m3(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(torch.float8_e4m3fn)

    gemm1, gemm2 = e4m3(8, 192, 160), e4m3(8, 160, 96)
    scales = torch.rand(3, 8, generator=generator) * 0.2
    hidden, logits = e4m3(64, 160)[:num_tokens], torch.randn(64, 8, generator=generator)[:num_tokens]
    output = moe_jit.trtllm_fp8_per_tensor_scale_moe(
        logits, None, hidden, gemm1, scales[0], scales[1], gemm2, scales[2], 8, 3, None, None, 96, 0, 8, None,
        False, 1,
    )  # fmt: skip
    assert isinstance(output, torch.Tensor)
    return output


def _digest(output: torch.Tensor) -> str:
    return hashlib.sha256(output.view(torch.uint8).numpy().tobytes()).hexdigest()


def test_a_token_does_not_depend_on_its_batch() -> None:
    seed = int(torch.randint(1 << 30, ()))
    everything = _random_call(64, seed)
    for num_tokens in (1, 2, 7, 33):
        assert torch.equal(_random_call(num_tokens, seed), everything[:num_tokens])


def test_result_does_not_depend_on_the_number_of_threads() -> None:
    seed = int(torch.randint(1 << 30, ()))
    expected = _digest(_random_call(64, seed))
    for threads in ("1", "3"):
        done = subprocess.run(
            [sys.executable, __file__, str(seed)],
            env={
                **os.environ,
                "OMP_NUM_THREADS": threads,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.split()[-1] == expected


if __name__ == "__main__":
    print(_digest(_random_call(64, int(sys.argv[1]))))
