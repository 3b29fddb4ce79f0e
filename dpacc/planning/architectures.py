"""The numbers that give a model its shape, from its folder, from the hub, or known by heart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers import AutoConfig, PretrainedConfig

from dpacc.errors import ConfigurationError

KNOWN: dict[str, dict[str, Any]] = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
    },
    "meta-llama/Llama-2-7b-hf": {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "max_position_embeddings": 4096,
        "dtype": "float16",
    },
    "meta-llama/Llama-3.1-70B": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "dtype": "bfloat16",
    },
    "EleutherAI/gpt-j-6b": {
        "model_type": "gptj",
        "vocab_size": 50400,
        "n_embd": 4096,
        "n_layer": 28,
        "n_head": 16,
        "n_positions": 2048,
        "rotary_dim": 64,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "tie_word_embeddings": False,
        "dtype": "float32",
    },
    "distilbert/distilbert-base-cased": {
        "model_type": "distilbert",
        "vocab_size": 28996,
        "dim": 768,
        "hidden_dim": 3072,
        "n_layers": 6,
        "n_heads": 12,
        "max_position_embeddings": 512,
        "dtype": "float32",
    },
}
"""Shapes of the models in recipes/configs, and of a large one, planned where there is no network.

Sources: the models' own config.json and cards on the hub; for Llama-2-7B also arXiv 2302.13971,
table 2, and arXiv 2307.09288, table 1; for Llama-3.1-70B arXiv 2407.21783, table 3; for GPT-J-6B
its card's table of hyperparameters; for DistilBERT also arXiv 1910.01108, section 3.
"""


def read_architecture(*, model: str) -> PretrainedConfig:
    """The configuration of a model: of its folder, the hub's cache, `KNOWN`, or the hub.

    No weights are read. A known model needs no network.

    Args:
        model: folder with a config.json, or id on the hub.

    Raises:
        ConfigurationError: no such folder, nothing readable in it, or the hub did not answer.

    >>> read_architecture(model="EleutherAI/gpt-j-6B").n_layer
    28
    """
    folder = Path(model).expanduser()
    known = next((each for each in KNOWN if each.lower() == model.lower()), None)
    if folder.is_dir():
        return _read(str(folder), model)
    if known is not None and not try_to_load_from_cache(model, "config.json"):
        return AutoConfig.for_model(**KNOWN[known])
    if folder.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise ConfigurationError(
            f"model={model} is no folder (looked in {Path.cwd()}): check the path, or give an id "
            "on the hub"
        )
    return _read(model, model)


def _read(source: str, model: str) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # a damaged file raises whatever its parser raises
        reason = next((line for line in str(error).splitlines() if line.strip()), "unreadable")
        raise ConfigurationError(
            f"the configuration of model={model} cannot be read: {reason.strip()} (give a folder "
            f"with its config.json, or one of {', '.join(KNOWN)}, which need no network)"
        ) from error
