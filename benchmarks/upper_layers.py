"""The top layers of a base as a model of its own, fed what the frozen layers beneath it made.

Adapters are on the top layers only, so what lies beneath is computed once, kept on disk, and given
to every tool alike (`cached_states.py`). The head computes chosen words only, among which the loss
is. Where a single word after a prompt is learned, the last layer computes its last position alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cached_states import DTYPE, CachedTexts, Result, Row, states_beneath, written
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, apply_rotary_pos_emb

DATA = Path(__file__).resolve().parents[1] / "data"
MODEL = DATA / "smollm2-135m-instruct"
WORDS = (" negative", " positive")
PARTS = ("train", "held_out")
VALIDATION = 1376


class LastPosition(LlamaDecoderLayer):
    """A decoder layer that computes the last position only, from keys and values of all."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        **_: Any,
    ) -> Tensor:
        """[examples, tokens, hidden] to [examples, 1, hidden]."""
        assert position_embeddings is not None
        attention, last = self.self_attn, hidden_states[:, -1:]
        normed = self.input_layernorm(hidden_states)
        query, key, value = (
            project(of).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for project, of in (
                (attention.q_proj, normed[:, -1:]),
                (attention.k_proj, normed),
                (attention.v_proj, normed),
            )
        )
        cos, sin = position_embeddings
        query, _ = apply_rotary_pos_emb(query, query, cos[:, -1:], sin[:, -1:])
        _, key = apply_rotary_pos_emb(key, key, cos, sin)
        seen = None if attention_mask is None else attention_mask[..., -1:, :]
        mixed = F.scaled_dot_product_attention(
            query, key, value, seen, scale=attention.scaling, enable_gqa=True
        )
        last = last + attention.o_proj(mixed.transpose(1, 2).flatten(2))
        return last + self.mlp(self.post_attention_layernorm(last))


def upper_layers(
    *, layers: int, model: Path, words: Sequence[int], last_position: bool = True
) -> PreTrainedModel:
    """The top `layers` of a language model, frozen, from `inputs_embeds` to some words.

    Args:
        layers: how many.
        model: the base's folder.
        words: tokens that the head computes.
        last_position: whether the top layer computes no other, where it is a Llama's.
    """
    from dpacc.recipe.models import load_base

    whole: Any = load_base(model=str(model), dtype=DTYPE).model
    kept = whole.model.layers[-layers:]
    if last_position and isinstance(kept[-1], LlamaDecoderLayer):
        kept[-1].__class__ = LastPosition
    whole.model.layers = kept
    whole.config.num_hidden_layers = layers
    if getattr(whole.config, "layer_types", None):  # which of them see a window only
        whole.config.layer_types = whole.config.layer_types[-layers:]
    for index, layer in enumerate(kept):
        layer.self_attn.layer_idx = index
    rows = whole.lm_head.weight[list(words)]
    whole.lm_head = nn.Linear(rows.shape[1], len(rows), bias=False, dtype=rows.dtype)
    whole.lm_head.weight = nn.Parameter(rows.clone(), requires_grad=False)
    return whole  # type: ignore[no-any-return]


@dataclass(frozen=True, kw_only=True)
class Sentences(CachedTexts):
    """Prompts, and the word that follows each: `word` is its place among WORDS."""

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch, padded on the left so that every prompt ends at the last position."""
        spans = self.spans(rows)
        width = max(len(span) for span in spans)
        embeds = spans[0].new_zeros(len(rows), width, self.states.shape[1])
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for place, span in enumerate(spans):
            embeds[place, width - len(span) :], mask[place, width - len(span) :] = span, 1
        return {
            "inputs_embeds": embeds,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0),
            "word": torch.tensor([r["word"] for r in rows]),
        }

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """−log p of each prompt's right word among the label words, [examples] fp32."""
        return F.cross_entropy(_word_logits(model, batch), batch["word"], reduction="none")

    @torch.no_grad()
    def measured(self, model: nn.Module, rows: Sequence[Row]) -> Result:
        """Accuracy, mean loss, and which rows were told wrongly."""
        was_training = model.training
        model.eval()
        right, loss = [False] * len(rows), 0.0
        for places, batch in self.batches(rows):
            logits = _word_logits(model, batch)
            loss += float(F.cross_entropy(logits, batch["word"], reduction="sum"))
            hits = (logits.argmax(dim=1) == batch["word"]).tolist()
            for at, hit in zip(places, hits, strict=True):
                right[at] = hit
        model.train(was_training)
        wrong = [at for at, correct in enumerate(right) if not correct]
        return {"accuracy": sum(right) / len(right), "loss": loss / len(rows), "wrong": wrong}


def _word_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    inputs = {name: value for name, value in batch.items() if name != "word"}
    logits: Tensor = model(**inputs, use_cache=False).logits
    return logits[:, -1].float()


# --- the demo's sentences -----------------------------------------------------------------


def label_words(*, model: Path, words: Sequence[str] = WORDS) -> list[int]:
    """The tokens of some words."""
    tokenizer = load_tokenizer(model)
    return [tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]


def load_tokenizer(model: Path) -> Any:
    """The base's own."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(model), trust_remote_code=False)


def load_sentences(*, layers: int, folder: Path) -> Sentences:
    """All prompts of the demo's task: those to learn from, and then the held-out ones.

    The first call for a number of `layers` takes some minutes, and leaves its states in `folder`.
    """
    records = [record for part in PARTS for record in _records(part)]
    return sentences_beneath(
        model=MODEL,
        layers=layers,
        prompts=load_tokenizer(MODEL)([record["prompt"] for record in records])["input_ids"],
        words=[WORDS.index(record["completion"]) for record in records],
        folder=folder,
        name="states",
    )


def load_written(*, layers: int, folder: Path) -> Sentences:
    """Prompts around texts that the base writes itself after "Review:"; their words are made up."""
    texts = written(model=MODEL, start="Review:", path=folder / "written.json")
    prompts = [f"Review: {text}\nSentiment:" for text in texts]
    return sentences_beneath(
        model=MODEL,
        layers=layers,
        prompts=load_tokenizer(MODEL)(prompts)["input_ids"],
        words=[0] * len(prompts),
        folder=folder,
        name="written",
    )


def parts() -> tuple[list[int], list[int], list[int]]:
    """Which rows are learned, which choose the settings, and which are only looked at in the end.

    The second are some of the training file's, drawn once, so that 8,192 are learned.
    """
    training, held_out = (sum(1 for _ in _records(part)) for part in PARTS)
    shuffled = np.random.default_rng(0).permutation(training)
    validation, learned = sorted(shuffled[:VALIDATION]), sorted(shuffled[VALIDATION:])
    whole = range(training, training + held_out)
    return [int(at) for at in learned], [int(at) for at in validation], list(whole)


def sentences_beneath(
    *,
    model: Path,
    layers: int,
    prompts: Sequence[list[int]],
    words: Sequence[int],
    folder: Path,
    name: str,
    dtype: type[np.floating[Any]] = np.float32,
    computed: str = DTYPE,
) -> Sentences:
    """Tokenized prompts as what enters the top `layers`."""
    states, starts = states_beneath(
        model=model,
        layers=layers,
        token_ids=prompts,
        folder=folder,
        name=name,
        dtype=dtype,
        computed=computed,
    )
    rows = [
        {"row": place, "input_ids": prompt, "word": word}
        for place, (prompt, word) in enumerate(zip(prompts, words, strict=True))
    ]
    return Sentences(rows=rows, states=states, starts=starts)


def _records(part: str) -> list[dict[str, str]]:
    lines = (DATA / f"movie_sentiment/{part}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]
