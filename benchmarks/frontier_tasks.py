"""The frontier's tasks: passages of chats and reviews to model; texts and e-mails to judge.

Language modelling is over 8,192 words only, which the tokenizer's training made the most frequent:
the head is dearer than six layers otherwise. What is not among them is read, not learned.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import upper_layers
from cached_states import DTYPE, CachedTexts, Result, Row, states_beneath, written
from torch import Tensor, nn
from torch.nn import functional as F
from upper_layers import label_words, load_tokenizer, sentences_beneath
from upper_layers import upper_layers as top_of

VOCABULARY = 8192
"""Of so many tokens one may follow (`words_of`)."""

TOKENS = 17
"""Of a passage; the first is read only, and the last is predicted only."""

FEWEST_TOKENS = 9


BLOCKS = 50
"""Into so many blocks the measured texts are cut, for the error of a difference."""

_IGNORED = -100
_CHARACTERS = [chr(code) for code in range(33, 127)]
_MODELLED = {
    "chats": ("chats", "Hello"),
    "reviews": ("rotten_tomatoes", "Review:"),
    "openings": ("imdb_reviews", "Review:"),
}


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked of a text, which one of two words answers.

    Args:
        source: folder of the texts.
        before: stands before a text.
        after: and after it.
        words: two, of which the first means no.
        read: which tokens of a text.
        written: names what the base wrote itself after `before`, to whiten by.
        computed: what the layers beneath compute in.
    """

    source: str
    before: str = "Review: "
    after: str = "\nSentiment:"
    words: tuple[str, str] = upper_layers.WORDS
    read: slice
    written: str = "sentiment"
    computed: str = DTYPE


JUDGED = {
    "sentiment": Question(source="imdb_reviews", read=slice(-32, None)),
    "endings": Question(source="imdb_reviews", read=slice(-64, None), computed="bfloat16"),
    # Few sentences are longer.
    "sentences": Question(source="rotten_tomatoes", read=slice(-64, None)),
    "emails": Question(
        source="emails",
        before="E-mail: ",
        after="\nSpam:",
        words=(" no", " yes"),
        read=slice(16),
        written="emails",
        computed="bfloat16",
    ),
}
WRITTEN_TOKENS = 32


@dataclass(frozen=True, kw_only=True)
class Task:
    """Texts, the model above them, and which of them are for what.

    Args:
        name: with its size, as results name it.
        texts: all of them.
        public: what the base wrote itself, to whiten by.
        base: the upper layers.
        parts: places of texts to learn, to choose settings by, and to look at in the end.
        measure: what a result is judged by.
        rising: whether more of it is better.
    """

    name: str
    texts: CachedTexts
    public: CachedTexts
    base: nn.Module
    parts: Mapping[str, Sequence[int]]
    measure: str
    rising: bool


@dataclass(frozen=True, kw_only=True)
class Passages(CachedTexts):
    """Texts of which each token is to be predicted: `targets` are the next, −100 if not learned."""

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch, padded on the right."""
        embeds = nn.utils.rnn.pad_sequence(self.spans(rows), batch_first=True)
        targets = torch.full(embeds.shape[:2], _IGNORED)
        mask = torch.zeros(embeds.shape[:2], dtype=torch.long)
        for place, row in enumerate(rows):
            targets[place, : len(row["targets"])] = torch.tensor(row["targets"])
            mask[place, : len(row["targets"])] = 1
        return {
            "inputs_embeds": embeds,
            "attention_mask": mask,
            "position_ids": torch.arange(embeds.shape[1]).expand(len(rows), -1),
            "targets": targets,
        }

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean −log p of each text's learned tokens, [examples] fp32."""
        sums, counts = self._summed(model, batch)
        return sums / counts.clamp(min=1)

    @torch.no_grad()
    def measured(self, model: nn.Module, rows: Sequence[Row]) -> Result:
        """Perplexity, and the sums of loss and of tokens in each block."""
        was_training = model.training
        model.eval()
        sums, counts = np.zeros(len(rows)), np.zeros(len(rows))
        for places, batch in self.batches(rows):
            sums[places], counts[places] = (each.numpy() for each in self._summed(model, batch))
        model.train(was_training)
        loss = float(sums.sum() / counts.sum())
        return {"perplexity": float(np.exp(loss)), "loss": loss, "blocks": in_blocks(sums, counts)}

    @staticmethod
    def _summed(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        inputs = {name: value for name, value in batch.items() if name != "targets"}
        targets = batch["targets"]
        logits: Tensor = model(**inputs, use_cache=False).logits
        each = F.cross_entropy(
            logits.float().flatten(0, 1),
            targets.flatten(),
            ignore_index=_IGNORED,
            reduction="none",
        )
        return each.view(targets.shape).sum(dim=1), (targets != _IGNORED).sum(dim=1)


@dataclass(frozen=True, kw_only=True)
class Judged(upper_layers.Sentences):
    """Prompts with a word each, of so many that only sums by blocks are kept."""

    def measured(self, model: nn.Module, rows: Sequence[Row]) -> Result:
        """Accuracy, loss, and how many were told rightly of how many in each block."""
        found = super().measured(model, rows)
        right = np.ones(len(rows))
        right[found.pop("wrong")] = 0
        return found | {"blocks": in_blocks(right, np.ones(len(rows)))}


def in_blocks(sums: np.ndarray, counts: np.ndarray) -> list[tuple[float, int]]:
    """Sums over each of BLOCKS runs of texts, with counts; every block is about as large."""
    cut = zip(np.array_split(sums, BLOCKS), np.array_split(counts, BLOCKS), strict=True)
    return [(round(float(a.sum()), 4), int(b.sum())) for a, b in cut]


def load_task(
    name: str,
    *,
    model: str = upper_layers.MODEL.name,
    layers: int,
    texts: int,
    held_out: int,
    validation: int,
    folder: Path,
) -> Task:
    """One of `chats`, `reviews`, `openings`, `sentiment`, `endings`, `sentences` and `emails`.

    Args:
        name: which.
        model: the base's folder among the data; another than SmolLM2's is told in the task's name,
            and has its states in a folder of its own.
        layers: how many of the top layers are adapted.
        texts: how many are learned.
        held_out: how many are looked at in the end, at most.
        validation: how many choose settings, at most.
        folder: where states are kept.
    """
    sizes = {"train": texts, "validation": validation, "held_out": held_out}
    load = _judged if name in JUDGED else _modelled
    base = upper_layers.DATA / model
    if not base.is_dir():
        raise SystemExit(f"error: {base} is missing: a `recipes/fetch_*.py` brings it")
    if base == upper_layers.MODEL:
        return load(name, base, layers, sizes, folder)
    task = load(name, base, layers, sizes, folder / model)
    return replace(task, name=f"{task.name}-{model}")


def _file_type(model: Path) -> type[np.floating[Any]]:
    """What a base's states are kept in: Gemma's are larger than 16 bits hold."""
    return np.float16 if model == upper_layers.MODEL else np.float32


def words_of(tokenizer: Any) -> list[int]:
    """VOCABULARY tokens that training made frequent: those of the smallest numbers.

    The characters of ASCII that have larger ones, as in Gemma, are there in place of the last.
    """
    known = tokenizer.get_vocab()
    late = sorted(known[each] for each in _CHARACTERS if known.get(each, 0) >= VOCABULARY)
    return [*range(VOCABULARY - len(late)), *late]


def _modelled(name: str, model: Path, layers: int, sizes: Mapping[str, int], folder: Path) -> Task:
    source, start = _MODELLED[name]
    tokenizer = load_tokenizer(model)
    found = {
        part: _passages(tokenizer, _records(source, part, most), name)[:most]
        for part, most in sizes.items()
    }
    public = written(model=model, start=start, path=folder / f"written-{name}.json")
    public_ids = [ids[:TOKENS] for ids in tokenizer(public)["input_ids"] if len(ids) > 1]
    words = words_of(tokenizer)
    beneath = partial(_beneath, model=model, layers=layers, words=words, folder=folder)
    return Task(
        name=f"{name}-{len(found['train'])}",
        texts=beneath([ids for part in found.values() for ids in part], name=name),
        public=beneath(public_ids, name=f"written-{name}"),
        base=top_of(layers=layers, model=model, words=words, last_position=False),
        parts=_places(found),
        measure="perplexity",
        rising=False,
    )


def _judged(name: str, model: Path, layers: int, sizes: Mapping[str, int], folder: Path) -> Task:
    asked, tokenizer = JUDGED[name], load_tokenizer(model)
    before = tokenizer(asked.before)["input_ids"]
    tokenizer = partial(tokenizer, add_special_tokens=False)
    after = tokenizer(asked.after)["input_ids"]
    records = {part: _records(asked.source, part, most)[:most] for part, most in sizes.items()}
    prompts = {
        part: [
            before + ids[asked.read] + after
            for ids in tokenizer([each["text"] for each in found])["input_ids"]
        ]
        for part, found in records.items()
    }
    words = [asked.words.index(r["completion"]) for found in records.values() for r in found]
    public = written(
        model=model,
        start=asked.before.strip(),
        path=folder / f"written-{asked.written}.json",
        tokens=WRITTEN_TOKENS,
    )
    public_ids = [before + ids + after for ids in tokenizer(public)["input_ids"]]
    every = [ids for part in prompts.values() for ids in part]
    cached = sentences_beneath(
        model=model,
        layers=layers,
        prompts=every,
        words=words,
        folder=folder,
        name=name,
        dtype=_file_type(model),
        computed=asked.computed,
    )
    return Task(
        name=f"{name}-{len(prompts['train'])}",
        texts=Judged(rows=cached.rows, states=cached.states, starts=cached.starts),
        public=sentences_beneath(
            model=model,
            layers=layers,
            prompts=public_ids,
            words=[0] * len(public_ids),
            folder=folder,
            name=f"written-{name}",
            computed=asked.computed,
        ),
        base=top_of(layers=layers, model=model, words=label_words(model=model, words=asked.words)),
        parts=_places(prompts),
        measure="accuracy",
        rising=True,
    )


def _places(found: Mapping[str, Sequence[Any]]) -> dict[str, list[int]]:
    places, start = {}, 0
    for part, each in found.items():
        places[part] = list(range(start, start + len(each)))
        start += len(each)
    return places


def _passages(tokenizer: Any, records: Sequence[Mapping[str, Any]], name: str) -> list[list[int]]:
    """One passage of each text that is long enough, so that a conversation is an example."""
    texts = [_from_some_turn(each) if name == "chats" else each["text"] for each in records]
    cut = [ids[:TOKENS] for ids in tokenizer(texts)["input_ids"]]
    return [ids for ids in cut if len(ids) >= FEWEST_TOKENS]


def _from_some_turn(chat: Mapping[str, Any]) -> str:
    """What was said from one turn on, which a hash chose: conversations open alike."""
    if len(chat["senders"]) < 2:
        return ""
    said = [turn["text"] for turn in chat["turns"]]
    at = int(hashlib.sha256(chat["id"].encode()).hexdigest(), 16) % len(said)
    return "\n".join(said[at:])


def _records(source: str, part: str, most: int) -> list[dict[str, Any]]:
    path = upper_layers.DATA / source / f"{part}.jsonl"
    if not path.exists():
        script = "fetch_emails.py" if source == "emails" else "fetch_benchmarks.py"
        raise SystemExit(f"error: {path} is missing: run `python recipes/{script}`")
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [json.loads(line) for line in lines]


def _beneath(
    token_ids: Sequence[list[int]],
    *,
    model: Path,
    layers: int,
    words: Sequence[int],
    folder: Path,
    name: str,
) -> Passages:
    read, places = [ids[:-1] for ids in token_ids], {word: at for at, word in enumerate(words)}
    states, starts = states_beneath(
        model=model,
        layers=layers,
        token_ids=read,
        folder=folder,
        name=name,
        dtype=_file_type(model),
    )
    rows = [
        {
            "row": place,
            "input_ids": ids[:-1],
            "targets": [places.get(word, _IGNORED) for word in ids[1:]],
        }
        for place, ids in enumerate(token_ids)
    ]
    return Passages(rows=rows, states=states, starts=starts)
