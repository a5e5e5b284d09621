"""Models of transformers with random weights: FP8 experts of ours against their own bfloat16 experts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from support.setup import DEVICES

transformers = pytest.importorskip("transformers", minversion="5")
huggingface = pytest.importorskip("moe_jit.adapters.huggingface")

VOCABULARY = 128
# Of one token's logits: two layers of experts, each with the error of four roundings to e4m3 (FP8_ERROR in
# test_layer.py). A token that this routes to another expert in the next layer differs by more, hence the
# median over the tokens.
FP8_ERROR = 0.075 * 2**0.5

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": None,
    "pad_token_id": 0,
}


def qwen3() -> Any:
    return transformers.Qwen3MoeConfig(
        **COMMON,
        moe_intermediate_size=48,
        num_experts=8,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        num_key_value_heads=2,
        head_dim=16,
    )


def deepseek() -> Any:
    return transformers.DeepseekV3Config(
        **COMMON,
        moe_intermediate_size=48,
        n_routed_experts=16,
        n_shared_experts=1,
        num_experts_per_tok=4,
        n_group=4,
        topk_group=2,
        routed_scaling_factor=2.5,
        first_k_dense_replace=1,
        num_key_value_heads=4,
        q_lora_rank=32,
        kv_lora_rank=16,
        qk_rope_head_dim=16,
        qk_nope_head_dim=16,
        v_head_dim=16,
    )


def mixtral() -> Any:
    return transformers.MixtralConfig(
        **COMMON, num_local_experts=8, num_experts_per_tok=2, num_key_value_heads=2, head_dim=16
    )


MODELS = {"qwen3_moe": qwen3, "deepseek_v3": deepseek, "mixtral": mixtral}


@pytest.fixture(params=MODELS)
def config(request: pytest.FixtureRequest) -> Any:
    return MODELS[request.param]()


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return request.param


def build(config: Any, device: str) -> Any:
    torch.manual_seed(17)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).to(device).eval()
    for name, value in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            value.normal_(std=0.05)
    return model


def prompt(device: str, rows: int = 2, tokens: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(1, VOCABULARY, (rows, tokens), generator=generator).to(device)


def quantized(model: Any, device: str) -> Any:
    result = copy.deepcopy(model)
    huggingface.quantize_experts(result, [{"input_ids": prompt(device, 4, 64)}])
    return result


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Median over the tokens."""
    difference = (actual.double() - expected.double()).norm(dim=-1)
    return float((difference / expected.double().norm(dim=-1)).median())


@torch.no_grad()
def test_logits_agree_with_the_bfloat16_model(config: Any, device: str) -> None:
    model = build(config, device)
    ours, ids = quantized(model, device), prompt(device)
    expected = model(ids).logits
    assert relative_error(ours(ids).logits, expected) < FP8_ERROR
    for module in model.modules():
        if hasattr(module, "is_concatenated"):
            module.down_proj.zero_()
    assert relative_error(model(ids).logits, expected) > 4 * FP8_ERROR  # the experts matter


@torch.no_grad()
def test_weights_are_held_once_and_in_fp8(config: Any) -> None:
    model = build(config, "cpu")
    experts = [module for module in model.modules() if hasattr(module, "is_concatenated")]
    wide = sum(p.numel() for module in experts for p in module.parameters())
    layers = huggingface.quantize_experts(model, [{"input_ids": prompt("cpu")}])
    assert len(layers) == len(experts) > 0
    assert [module.moe_jit for module in experts] == layers
    assert sum(p.numel() for module in experts for p in module.parameters()) == 0
    narrow = [b for module in experts for b in module.buffers() if b.dtype == torch.float8_e4m3fn]
    assert sum(b.numel() for b in narrow) == wide
    assert model.config._experts_implementation == "moe_jit"


@torch.no_grad()
def test_generate_prefills_and_decodes(config: Any, device: str) -> None:
    """The tokens of cached decoding are those of the whole sequence at once, where the choice is clear."""
    ours, ids = quantized(build(config, device), device), prompt(device)
    tokens = ours.generate(ids, max_new_tokens=12, do_sample=False)
    assert tokens.shape == (2, ids.shape[1] + 12)
    logits = ours(tokens).logits[:, ids.shape[1] - 1 : -1].float()
    best = logits.amax(dim=-1)
    chosen = logits.gather(-1, tokens[:, ids.shape[1] :, None])[..., 0]
    assert ((best - chosen) <= 0.05 * logits.std(dim=-1)).all()


@torch.no_grad()
def test_compiles_without_graph_breaks(device: str) -> None:
    torch._dynamo.reset()
    ours = quantized(build(qwen3(), device), device)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True, dynamic=True)
    for tokens in (24, 17, 9):
        ids = prompt(device, tokens=tokens)
        assert relative_error(compiled(ids).logits, ours(ids).logits) < 0.02


@pytest.mark.cuda
@torch.no_grad()
def test_greedy_tokens_under_graph_replay_are_those_of_eager(config: Any) -> None:
    ours, ids, steps = quantized(build(config, "cuda"), "cuda"), prompt("cuda"), 16

    def decoder() -> tuple[torch.Tensor, Any]:
        """The first token after prefill, and a function that replaces it by the next one."""
        cache = transformers.StaticCache(config=ours.config, max_cache_len=64)
        token = ours(ids, past_key_values=cache).logits[:, -1:].argmax(dim=-1)
        position = torch.full((ids.shape[0], 1), ids.shape[1], device="cuda")

        def step() -> None:
            logits = ours(token, position_ids=position, past_key_values=cache).logits
            token.copy_(logits[:, -1:].argmax(dim=-1))
            position.add_(1)

        return token, step

    def decode(token: torch.Tensor, step: Any, count: int) -> list[list[int]]:
        tokens = []
        for _ in range(count):
            step()
            tokens.append(token.flatten().tolist())
        return tokens

    token, step = decoder()
    expected = decode(token, step, steps)

    token, step = decoder()
    actual = decode(token, step, 2)  # eager steps load everything that a capture needs
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    actual += decode(token, graph.replay, steps - 2)
    assert actual == expected


def test_unsupported_experts_are_refused() -> None:
    config = transformers.GptOssConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        num_local_experts=4,
        num_experts_per_tok=2,
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"model\.layers\.0\.mlp\.experts must be experts without biases"):
        huggingface.quantize_experts(model, [])
    with pytest.raises(ValueError, match="model must have experts with a choice of implementation"):
        huggingface.quantize_experts(torch.nn.Linear(2, 2), [])


def test_experts_without_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="samples must reach"):
        huggingface.quantize_experts(build(mixtral(), "cpu"), [])


def test_unprepared_experts_say_what_to_do() -> None:
    model = build(mixtral(), "cpu")
    model.set_experts_implementation("moe_jit")
    with pytest.raises(RuntimeError, match="call quantize_experts"):
        model(prompt("cpu"))
