"""The top layers of SmolLM2 as a model of its own, fed what the frozen layers beneath it made.

Adapters are on the top layers only, so what lies beneath is computed once, kept on disk, and given
to every tool alike. Only the word after a prompt is learned, so the last layer computes its last
position alone, and the head only the label words: the loss is that of the right word among them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, apply_rotary_pos_emb

DATA = Path(__file__).resolve().parents[1] / "data"
MODEL = DATA / "smollm2-135m-instruct"
DTYPE = "float32"
WORDS = (" negative", " positive")
PARTS = ("train", "held_out")
VALIDATION = 1376
_TOKENS_AT_ONCE = 2048

Row = dict[str, Any]


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


def upper_layers(*, layers: int) -> PreTrainedModel:
    """The top `layers` of SmolLM2, frozen, from `inputs_embeds` to the label words."""
    from dpacc.recipe.models import load_base

    model = load_base(model=str(MODEL), dtype=DTYPE).model
    kept = model.model.layers[-layers:]
    kept[-1].__class__ = LastPosition
    model.model.layers = kept
    model.config.num_hidden_layers = layers
    for index, layer in enumerate(kept):
        layer.self_attn.layer_idx = index
    rows = model.lm_head.weight[_tokens_of_words()]
    model.lm_head = nn.Linear(rows.shape[1], len(rows), bias=False, dtype=rows.dtype)
    model.lm_head.weight = nn.Parameter(rows.clone(), requires_grad=False)
    return model


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """Prompts as the states that enter the upper layers, and the word that follows each.

    Args:
        rows: one an example: its place, its tokens, and the place of its word among WORDS.
        states: [tokens of all examples, hidden].
        starts: where each example's states begin.
    """

    rows: list[Row]
    states: Tensor
    starts: np.ndarray

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch, padded on the left so that every prompt ends at the last position."""
        spans = [self.states[self.starts[r["row"]] : self.starts[r["row"] + 1]] for r in rows]
        width = max(len(span) for span in spans)
        embeds = self.states.new_zeros(len(rows), width, self.states.shape[1])
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for place, span in enumerate(spans):
            embeds[place, width - len(span) :], mask[place, width - len(span) :] = span, 1
        return {
            "inputs_embeds": embeds,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0),
            "word": torch.tensor([r["word"] for r in rows]),
        }

    def inputs(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch without its words."""
        return {name: value for name, value in self.collate(rows).items() if name != "word"}

    def only(self, places: Sequence[int]) -> list[Row]:
        """Some of the rows."""
        return [self.rows[place] for place in places]


def word_losses(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """−log p of each prompt's right word among the label words, [examples] fp32."""
    return F.cross_entropy(_word_logits(model, batch), batch["word"], reduction="none")


def _word_logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    inputs = {name: value for name, value in batch.items() if name != "word"}
    logits: Tensor = model(**inputs, use_cache=False).logits
    return logits[:, -1].float()


@torch.no_grad()
def measure(
    *, model: nn.Module, sentences: Sentences, rows: Sequence[Row]
) -> tuple[list[bool], float]:
    """Whether the likelier label word is right, for each row, and the mean loss."""
    was_training = model.training
    model.eval()
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]["input_ids"]))
    right, loss = [False] * len(rows), 0.0
    for places in _runs(order, rows):
        batch = sentences.collate([rows[at] for at in places])
        logits = _word_logits(model, batch)
        loss += float(F.cross_entropy(logits, batch["word"], reduction="sum"))
        hits = (logits.argmax(dim=1) == batch["word"]).tolist()
        for at, hit in zip(places, hits, strict=True):
            right[at] = hit
    model.train(was_training)
    return right, loss / len(rows)


def _runs(order: Sequence[int], rows: Sequence[Row]) -> Iterator[list[int]]:
    run: list[int] = []
    for at in order:
        if run and (len(run) + 1) * len(rows[at]["input_ids"]) > _TOKENS_AT_ONCE:
            yield run
            run = []
        run.append(at)
    yield run


# --- what the frozen layers make of each prompt, once -------------------------------------


def load_sentences(*, layers: int, folder: Path) -> Sentences:
    """All prompts of the demo's task: those to learn from, and then the held-out ones.

    The first call for a number of `layers` takes some minutes, and leaves its states in `folder`.
    """
    records = [record for part in PARTS for record in _records(part)]
    return _beneath(
        layers=layers,
        prompts=[record["prompt"] for record in records],
        words=[WORDS.index(record["completion"]) for record in records],
        path=folder / f"states-beneath-{layers}.pt",
    )


def load_written(*, layers: int, folder: Path, count: int = 64) -> Sentences:
    """Prompts around texts that the base writes itself after "Review:", which no one's data shaped.

    Their words are made up. The first call leaves texts and states in `folder`.
    """
    path = folder / "written.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_write(count)))
    prompts = [f"Review: {text}\nSentiment:" for text in json.loads(path.read_text())]
    return _beneath(
        layers=layers,
        prompts=prompts,
        words=[0] * len(prompts),
        path=folder / f"written-beneath-{layers}.pt",
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


def _tokens_of_words() -> list[int]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(MODEL), trust_remote_code=False)
    return [tokenizer(word)["input_ids"][0] for word in WORDS]


def _records(part: str) -> list[dict[str, str]]:
    lines = (DATA / f"movie_sentiment/{part}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _beneath(*, layers: int, prompts: Sequence[str], words: Sequence[int], path: Path) -> Sentences:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(MODEL), trust_remote_code=False)
    rows = [
        {"row": place, "input_ids": tokenizer(prompt)["input_ids"], "word": word}
        for place, (prompt, word) in enumerate(zip(prompts, words, strict=True))
    ]
    starts = np.cumsum([0, *(len(row["input_ids"]) for row in rows)])
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(_states_beneath(layers, rows, starts), path)
    return Sentences(rows=rows, states=torch.load(path), starts=starts)


@torch.no_grad()
def _write(count: int) -> list[str]:
    """First lines that the base continues "Review:" with."""
    from dpacc.recipe.models import load_base

    base = load_base(model=str(MODEL), dtype=DTYPE)
    torch.manual_seed(0)
    ids = base.tokenizer("Review:", return_tensors="pt")["input_ids"].repeat(count, 1)
    written = base.model.eval().generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=28,
        do_sample=True,
        top_k=0,
        use_cache=True,
        pad_token_id=base.tokenizer.pad_token_id,
    )
    texts = base.tokenizer.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)
    return [text.strip().split("\n")[0] for text in texts if text.strip()]


@torch.no_grad()
def _states_beneath(layers: int, rows: Sequence[Row], starts: np.ndarray) -> Tensor:
    """What enters the top `layers` for each token of each row, [tokens, hidden]."""
    from dpacc.recipe.models import load_base

    model = load_base(model=str(MODEL), dtype=DTYPE).model.eval().model
    model.layers = model.layers[:-layers]
    model.norm = nn.Identity()
    model.config.num_hidden_layers = len(model.layers)
    states = torch.empty(int(starts[-1]), model.config.hidden_size, dtype=getattr(torch, DTYPE))
    order = sorted(range(len(rows)), key=lambda at: len(rows[at]["input_ids"]))
    for places in _runs(order, rows):
        ids = [torch.tensor(rows[at]["input_ids"]) for at in places]
        # Padded on the right, where causal attention does not see it.
        outputs = model(input_ids=nn.utils.rnn.pad_sequence(ids, batch_first=True))[0]
        for at, output in zip(places, outputs, strict=True):
            start, end = int(starts[at]), int(starts[at + 1])
            states[start:end] = output[: end - start]
    return states
