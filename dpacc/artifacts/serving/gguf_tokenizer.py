"""A byte-level BPE tokenizer in the words of a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dpacc.errors import ConfigurationError

if TYPE_CHECKING:
    from gguf import GGUFWriter
    from transformers import PreTrainedTokenizerBase

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLIT_BY = {
    _WORDS.format(digits=r"\p{N}"): "qwen2",
    _WORDS.format(digits=r"\p{N}{1,3}"): "llama-bpe",
}
REMEDY = "convert_hf_to_gguf.py of llama.cpp may read the merged folder"


def write_tokenizer(*, writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Tokens, merges, special tokens and the chat template.

    Args:
        writer: of the file.
        tokenizer: the model's.
        size: for how many tokens the model has logits; those without words are unused ones.

    Raises:
        ConfigurationError: it is no byte-level BPE, or cuts texts in a way that has no name.
    """
    from gguf import TokenType

    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ConfigurationError(f"gguf: this tokenizer has no tokenizer.json; {REMEDY}")
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    name = name_of(told)
    words = {place: word for word, place in tokenizer.get_vocab().items()}
    added = {each["id"]: each["special"] for each in told["added_tokens"]}
    kinds = {True: TokenType.CONTROL, False: TokenType.USER_DEFINED}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list([words.get(place, f"[PAD{place}]") for place in range(size)])
    writer.add_token_types(
        [
            TokenType.UNUSED
            if place not in words
            else kinds[added[place]]
            if place in added
            else TokenType.NORMAL
            for place in range(size)
        ]
    )
    writer.add_token_merges(
        [each if isinstance(each, str) else " ".join(each) for each in told["model"]["merges"]]
    )
    _write_special(writer, tokenizer)


def name_of(told: Mapping[str, Any]) -> str:
    """What llama.cpp calls the way in which a tokenizer cuts texts before it looks at bytes.

    Args:
        told: its `tokenizer.json`.

    Raises:
        ConfigurationError: nothing that is known here.
    """
    model, normalizer = told["model"], told.get("normalizer") or {"type": "NFC"}
    if model["type"] != "BPE" or model.get("byte_fallback") or normalizer["type"] != "NFC":
        raise ConfigurationError(f"gguf: this tokenizer is no byte-level BPE; {REMEDY}")
    found = _cut_by(told.get("pre_tokenizer") or {"type": "none"})
    if found is None:
        raise ConfigurationError(
            f"gguf: how this tokenizer cuts texts has no name in llama.cpp that is known here; "
            f"{REMEDY}"
        )
    return found


def _cut_by(cutting: Mapping[str, Any]) -> str | None:
    steps = cutting.get("pretokenizers", [cutting])
    if steps[-1]["type"] != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return None
    first, by_regex = steps[:-1], steps[-1]["use_regex"]
    if not first:
        return "gpt-2" if by_regex else None
    (one, *more) = first
    if more:
        return None
    if one["type"] == "Digits" and one["individual_digits"] and by_regex:
        return "smollm"
    isolated = one["type"] == "Split" and one["behavior"] == "Isolated" and not one["invert"]
    return _SPLIT_BY.get(one["pattern"].get("Regex")) if isolated and not by_regex else None


def _write_special(writer: GGUFWriter, tokenizer: PreTrainedTokenizerBase) -> None:
    adds = {
        "bos": writer.add_bos_token_id,
        "eos": writer.add_eos_token_id,
        "unk": writer.add_unk_token_id,
        "pad": writer.add_pad_token_id,
    }
    for name, add in adds.items():
        place = getattr(tokenizer, f"{name}_token_id")
        if place is not None:
            add(place)
    shown = tokenizer("")["input_ids"]
    writer.add_add_bos_token(shown[:1] == [tokenizer.bos_token_id])
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
