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
    "llama-1b": LlamaConfig(
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        head_dim=64,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    "smollm2-135m": LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
    "small": LlamaConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=2,
        num_attention_heads=4,
    ),
}
"""Those of Llama-2-7B, GPT-J-6B, Llama-3.2-1B and SmolLM2-135M, and one to try a script with."""
