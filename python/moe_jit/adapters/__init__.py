"""Ways into programs that run models: ``huggingface`` (transformers), ``vllm`` and ``sglang``.

Each is imported explicitly; importing ``moe_jit`` imports none of them.
"""
