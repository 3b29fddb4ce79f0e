"""Tiny random models of each supported family, and examples for them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    RobertaConfig,
)

VOCABULARY = 96
_COMMON = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}

_WITHOUT_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
LLAMA_LIKE = {
    **_COMMON,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_GPT_LIKE = {**_COMMON, **_WITHOUT_DROPOUT, "n_embd": 32, "n_layer": 2, "n_head": 4}
BERT_LIKE = {
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_labels": 3,
    "max_position_embeddings": 256,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}

CONFIGURATIONS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**LLAMA_LIKE, head_dim=8),
    "mistral": MistralConfig(**LLAMA_LIKE, head_dim=8, sliding_window=None),
    "qwen2": Qwen2Config(**LLAMA_LIKE),
    "gptj": GPTJConfig(**_GPT_LIKE, rotary_dim=4, n_positions=256),
    "gpt2": GPT2Config(**_GPT_LIKE, n_positions=256),
    "gpt_neox": GPTNeoXConfig(
        **_COMMON,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        hidden_dropout=0.0,
        attention_dropout=0.0,
    ),
    "opt": OPTConfig(
        **_COMMON,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        dropout=0.0,
        max_position_embeddings=256,
    ),
    "bert": BertConfig(**BERT_LIKE),
    "roberta": RobertaConfig(**BERT_LIKE),
}

TARGETS = {
    "llama": ["q_proj", "v_proj", "down_proj"],  # its kin have adapters on all they have
    "mistral": "all-linear",
    "qwen2": "all-linear",
    "gptj": ["q_proj", "v_proj", "fc_in"],
    "gpt2": ["c_attn", "c_fc"],
    "gpt_neox": ["query_key_value", "dense"],
    "opt": ["q_proj", "v_proj", "fc1"],
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
}

ATTENTION = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "mistral": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "qwen2": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "gptj": ["q_proj", "k_proj", "v_proj", "out_proj"],
    "gpt2": ["attn.c_attn", "attn.c_proj"],
    "gpt_neox": ["query_key_value", "attention.dense"],
    "opt": ["q_proj", "k_proj", "v_proj", "out_proj"],
    "bert": ["query", "key", "value", "attention.output.dense"],
    "roberta": ["query", "key", "value", "attention.output.dense"],
}
"""The attention's projections, all of them and no other layer."""

CLASSIFIERS = ("bert", "roberta")


def tiny_base(family: str, *, seed: int = 0, hidden: int = 32) -> torch.nn.Module:
    """A random fp32 model of `family`."""
    torch.manual_seed(seed)
    loader = AutoModelForSequenceClassification if family in CLASSIFIERS else AutoModelForCausalLM
    configuration = copy.deepcopy(CONFIGURATIONS[family])
    configuration.hidden_size = hidden
    return loader.from_config(configuration)


def tiny_model(family: str, *, rank: int = 3, seed: int = 0) -> torch.nn.Module:
    """`tiny_base` with LoRA whose B is not zero, so that A's gradients are not zero either."""
    return with_lora(tiny_base(family, seed=seed), family, rank=rank)


def with_lora(
    base: torch.nn.Module,
    family: str,
    *,
    rank: int = 3,
    targets: str | Sequence[str] | None = None,
    **options: Any,
) -> torch.nn.Module:
    """Wrap `base` in PEFT LoRA with random B."""
    configuration = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=TARGETS[family] if targets is None else targets,
        task_type="SEQ_CLS" if family in CLASSIFIERS else "CAUSAL_LM",
        fan_in_fan_out=family == "gpt2",
        **options,
    )
    model = get_peft_model(base, configuration)
    model.peft_config["default"].init_lora_weights = False  # as PEFT calls such a start
    set_upper_factors(model)
    return model.train()


def set_upper_factors(model: torch.nn.Module) -> None:
    """Fill B, which starts at zero, with random numbers."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def examples(
    lengths: Sequence[int], *, family: str = "llama", seed: int = 0
) -> list[dict[str, Any]]:
    """Random examples of the given lengths, as the data code produces them."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for length in lengths:
        ids = torch.randint(3, VOCABULARY, (length,), generator=generator).tolist()
        label = (
            int(torch.randint(3, (), generator=generator)) if family in CLASSIFIERS else list(ids)
        )
        made.append({"input_ids": ids, "labels": label})
    return made


def collate(batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Right-pad to the longest."""
    width = max(1, *(len(example["input_ids"]) for example in batch), 1)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask = torch.zeros(len(batch), width, dtype=torch.long)
    per_token = isinstance(batch[0]["labels"], list)
    labels = torch.full((len(batch), width), -100) if per_token else torch.zeros(len(batch))
    labels = labels.long()
    for row, example in enumerate(batch):
        length = len(example["input_ids"])
        ids[row, :length] = torch.tensor(example["input_ids"], dtype=torch.long)
        mask[row, :length] = 1
        if per_token:
            labels[row, :length] = torch.tensor(example["labels"], dtype=torch.long)
        else:
            labels[row] = example["labels"]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def losses_of(family: str) -> Any:
    """The per-example loss function of `family`."""
    from dpacc.losses.per_example import causal_lm_losses, classification_losses

    return classification_losses if family in CLASSIFIERS else causal_lm_losses


def tiny_tokenizer(words: Sequence[str]) -> PreTrainedTokenizerFast:
    """One token a word."""
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = {word: i for i, word in enumerate([*special, *dict.fromkeys(words)])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def save_tiny_llama(folder: Path, *, words: Sequence[str], seed: int = 0) -> None:
    """Write a tiny random Llama and a word-level tokenizer, as `from_pretrained` reads them."""
    tiny_tokenizer(words).save_pretrained(folder)
    # bitsandbytes' 4-bit inference kernel for the CPU wants multiples of its block, 64.
    tiny_base("llama", seed=seed, hidden=64).save_pretrained(folder)
