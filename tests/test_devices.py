"""Which devices are accepted, and what a GPU adds to validation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

import moe_jit
from moe_jit import backends

E4M3 = torch.float8_e4m3fn


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes torch report a GPU of a given kind; no GPU is needed."""

    def report(name: str, major: int, minor: int, hip: str | None = None) -> torch.device:
        facts = SimpleNamespace(name=name, major=major, minor=minor, multi_processor_count=132)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: facts)
        monkeypatch.setattr(torch.version, "hip", hip)
        backends.describe.cache_clear()
        return torch.device("cuda", 1)

    yield report
    backends.describe.cache_clear()


@pytest.mark.parametrize(
    ("name", "major", "minor"),
    [("NVIDIA A100", 8, 0), ("NVIDIA L40S", 8, 9), ("NVIDIA B200", 10, 0), ("NVIDIA RTX PRO 6000", 12, 0)],
)
def test_other_gpus_get_one_clear_error(gpu: Any, name: str, major: int, minor: int):
    with pytest.raises(ValueError, match="hidden_states must be on the CPU or on a GPU of") as raised:
        backends.describe(gpu(name, major, minor))
    assert "compute capability 9.0 (Hopper: H100, H200" in str(raised.value)
    assert f"got cuda:1 ({name}, compute capability {major}.{minor})" in str(raised.value)


def test_hopper_is_accepted(gpu: Any):
    device = backends.describe(gpu("NVIDIA H200", 9, 0))
    assert device == moe_jit.problem.Device("cuda", 1, "sm_90a", 132, "NVIDIA H200")


def test_devices_that_are_not_cuda(gpu: Any):
    with pytest.raises(ValueError, match="hidden_states must be on the CPU or on a GPU"):
        backends.describe(gpu("AMD Instinct MI300X", 9, 4, hip="6.2"))
    with pytest.raises(ValueError, match="got xpu:0"):
        backends.describe(torch.device("xpu", 0))


def arguments(device: str, num_tokens: int = 5) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(7)

    def fp8(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(E4M3).to(device)

    return {
        "routing_logits": torch.randn(num_tokens, 8, generator=generator).to(device),
        "routing_bias": None,
        "hidden_states": fp8(num_tokens, 128),
        "gemm1_weights": fp8(8, 256, 128),
        "output1_scales_scalar": torch.full((8,), 0.02, device=device),
        "output1_scales_gate_scalar": torch.full((8,), 0.02, device=device),
        "gemm2_weights": fp8(8, 128, 128),
        "output2_scales_scalar": torch.full((8,), 0.02, device=device),
        "num_experts": 8,
        "top_k": 2,
        "n_group": None,
        "topk_group": None,
        "intermediate_size": 128,
        "local_expert_offset": 0,
        "local_num_experts": 8,
        "routed_scaling_factor": None,
        "use_routing_scales_on_input": False,
        "routing_method_type": 1,
    }


def arguments_like(good: dict[str, Any], num_tokens: int) -> dict[str, Any]:
    per_token = ("routing_logits", "hidden_states")
    return {**good, **{name: good[name][:num_tokens] for name in per_token}}


def shifted(value: torch.Tensor) -> torch.Tensor:
    """The same contents, contiguous, at an address that is not a multiple of 16."""
    memory = torch.empty(value.nbytes + 16, dtype=torch.uint8, device=value.device)
    step = value.element_size()
    return memory[step : step + value.nbytes].view(value.dtype).view(value.shape).copy_(value)


def test_the_cpu_needs_no_alignment():
    expected = moe_jit.trtllm_fp8_per_tensor_scale_moe(**arguments("cpu"))
    moved = {k: shifted(v) if isinstance(v, torch.Tensor) else v for k, v in arguments("cpu").items()}
    assert torch.equal(moe_jit.trtllm_fp8_per_tensor_scale_moe(**moved), expected)


@pytest.mark.cuda
class TestCuda:
    @pytest.mark.parametrize("name", ["hidden_states", "gemm1_weights", "gemm2_weights", "output"])
    def test_alignment(self, name: str):
        good = {**arguments("cuda"), "output": torch.empty(5, 128, dtype=torch.bfloat16, device="cuda")}
        expected = moe_jit.trtllm_fp8_per_tensor_scale_moe(**good).clone()
        with pytest.raises(ValueError, match=f"{name} must be aligned to 16 bytes on a GPU"):
            moe_jit.trtllm_fp8_per_tensor_scale_moe(**{**good, name: shifted(good[name])})
        assert torch.equal(moe_jit.trtllm_fp8_per_tensor_scale_moe(**good), expected)

    @pytest.mark.parametrize(
        "name", [name for name, value in arguments("cpu").items() if isinstance(value, torch.Tensor)]
    )
    def test_every_tensor_must_be_on_one_device(self, name: str):
        good = arguments("cuda")
        expected = moe_jit.trtllm_fp8_per_tensor_scale_moe(**good)
        with pytest.raises(ValueError, match=r"must be on (cpu|cuda:0), the device of hidden_states"):
            moe_jit.trtllm_fp8_per_tensor_scale_moe(**{**good, name: good[name].cpu()})
        assert torch.equal(moe_jit.trtllm_fp8_per_tensor_scale_moe(**good), expected)

    def test_no_synchronisation(self):
        good, bad = arguments("cuda"), {**arguments("cuda"), "top_k": 9}
        moe_jit.trtllm_fp8_per_tensor_scale_moe(**good)
        torch.cuda.set_sync_debug_mode("error")
        try:
            moe_jit.trtllm_fp8_per_tensor_scale_moe(**good)
            moe_jit.trtllm_fp8_per_tensor_scale_moe(**arguments_like(good, num_tokens=4))
            with pytest.raises(ValueError, match="top_k"):
                moe_jit.trtllm_fp8_per_tensor_scale_moe(**bad)
        finally:
            torch.cuda.set_sync_debug_mode("default")
