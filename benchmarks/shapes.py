"""The published shapes of the models that benchmarks build with random weights."""

from __future__ import annotations

from typing import Any

from transformers import GPTJConfig, LlamaConfig

SHAPES: dict[str, Any] = {
    "llama-7b": LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
    ),
    "gptj-6b": GPTJConfig(vocab_size=50400, n_embd=4096, n_layer=28, n_head=16, rotary_dim=64),
}
