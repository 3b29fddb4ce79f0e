"""Public records to compare federations on: fetched ones by name, or a file of one's own."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpacc.errors import ConfigurationError
from dpacc.federated.benchmark.settings import BenchmarkConfig
from dpacc.federated.healthcare.notes import LABELS

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Records to learn from and to measure on, and what their fields mean.

    Args:
        name: as results call it.
        train: what clients will own.
        held_out: what the server measures on.
        labels: the classes; None where texts are modelled.
        label_field: the field with a record's class.
        text_field: the field with its text.
        words_field: where each word has a class of its own, the field with its words.
        owner_field: the field that says whose it is, if one does.
        kind_field: the field that says of which kind it is, if one does.
    """

    name: str
    train: Sequence[Record]
    held_out: Sequence[Record]
    labels: tuple[str, ...] | None = None
    label_field: str = "label"
    text_field: str = "text"
    words_field: str | None = None
    owner_field: str | None = None
    kind_field: str | None = None

    def task(self, *, max_length: int) -> dict[str, Any]:
        """What server and clients are told."""
        if self.labels is None:
            told = {"task": "causal-lm", "text_field": self.text_field}
        elif self.words_field is None:
            told = {"task": "sequence-classification", "text_field": self.text_field}
        else:
            told = {"task": "token-classification", "words_field": self.words_field}
        classes = {} if self.labels is None else {"labels": self.labels}
        return {**told, **classes, "label_field": self.label_field, "max_length": max_length}

    @property
    def digest(self) -> str:
        """SHA-256 of all records, and of what is read of them, by which results know their data."""
        meant = [self.task(max_length=0), self.owner_field, self.kind_field]
        lines = json.dumps([meant, *self.train, None, *self.held_out], sort_keys=True)
        return hashlib.sha256(lines.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Fetched:
    """Where a named data set lies, and which recipes put it there, in turn."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]
    recipes: tuple[str, ...]
    fields: Mapping[str, Any]


_SENTENCES = {
    "labels": ("negative", "positive"),
    "label_field": "sentiment",
    "owner_field": "document",
    "kind_field": "kind",
}
_KINDS = {"reviews": "movies", "products": "products", "news": "news", "tweets": "tweets"}
_OF_SENTENCES = {name: (kind,) for name, kind in _KINDS.items()}
NAMED: Mapping[str, _Fetched] = {
    **{
        name: _Fetched(
            train=tuple(f"sentences/{kind}*.jsonl" for kind in kinds),
            held_out=tuple(f"sentences/held_out_{kind}.jsonl" for kind in kinds),
            recipes=("fetch_federation.py",),
            fields=_SENTENCES,
        )
        for name, kinds in {**_OF_SENTENCES, "sentences": tuple(_KINDS.values())}.items()
    },
    "shakespeare": _Fetched(
        train=("shakespeare/train.jsonl",),
        held_out=("shakespeare/held_out.jsonl",),
        recipes=("fetch_shakespeare.py",),
        fields={
            "labels": ("comedy", "history", "tragedy"),
            "label_field": "genre",
            "owner_field": "role",
            "kind_field": "play",
        },
    ),
    "chats": _Fetched(
        train=("chats/train_turns.jsonl",),
        held_out=("chats/held_out_turns.jsonl",),
        recipes=("fetch_benchmarks.py",),
        fields={"owner_field": "sender"},
    ),
    "clinical": _Fetched(
        train=("hospitals/*.jsonl",),
        held_out=("hospitals/held_out_*.jsonl",),
        recipes=(
            "fetch_clinical.py",
            "healthcare.py --config recipes/configs/healthcare/hospitals.yaml",
        ),
        fields={
            "labels": LABELS,
            "words_field": "words",
            "owner_field": "patient",
            "kind_field": "kind",
        },
    ),
}
"""What the package index has, by the names that a configuration uses."""


def load_data_set(name: str, *, config: BenchmarkConfig) -> DataSet:
    """A data set by its name or file, cut to as many records as the configuration wants.

    Raises:
        ConfigurationError: there is none, or it lacks what a name promises.
    """
    found = _own(name, config) if name.endswith(".jsonl") else _named(name, config)
    if not found.train or not found.held_out:
        raise ConfigurationError(f"{name} has no records to learn from, or none to measure on")
    return replace(
        found,
        train=_cut(found.train, config.examples, seed=config.seed),
        held_out=_cut(found.held_out, config.held_out_examples, seed=config.seed),
    )


def _named(name: str, config: BenchmarkConfig) -> DataSet:
    if name not in NAMED:
        known = ", ".join(NAMED)
        raise ConfigurationError(f"data set {name!r} is unknown: {known}, or a .jsonl file")
    source, folder = NAMED[name], Path(config.data_folder)
    held_out = _matching(folder, source.held_out)
    learned = [path for path in _matching(folder, source.train) if path not in held_out]
    if not learned or not held_out:
        commands = ", then ".join(f"`python recipes/{each}`" for each in source.recipes)
        raise ConfigurationError(f"{folder} does not hold {name}: run {commands}")
    return DataSet(
        name=name,
        train=_together(map(_read, learned)),
        held_out=_together(map(_read, held_out)),
        **source.fields,
    )


def _matching(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def _own(name: str, config: BenchmarkConfig) -> DataSet:
    if config.held_out is None:
        raise ConfigurationError(f"{name} needs held_out: a file of other records to measure on")
    return DataSet(
        name=Path(name).stem,
        train=_read(Path(name)),
        held_out=_read(Path(config.held_out)),
        labels=config.labels,
        label_field=config.label_field,
        text_field=config.text_field,
        owner_field=config.owner_field,
        kind_field=config.kind_field,
    )


def _read(path: Path) -> list[Record]:
    """The lines of a file; those of a federation's client say of which kind it is."""
    kind = path.stem.removeprefix("held_out_").partition("-")[0]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        return [{"kind": kind, **json.loads(line)} for line in lines if line.strip()]
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, TypeError):
        raise ConfigurationError(f"{path} must hold one JSON object a line") from None


def _together(files: Iterable[Sequence[Record]]) -> list[Record]:
    return [record for records in files for record in records]


def _cut(records: Sequence[Record], most: int | None, *, seed: int) -> list[Record]:
    """So many of them, drawn by a public seed, in the order in which they stand."""
    if most is None or most >= len(records):
        return list(records)
    return [records[at] for at in sorted(random.Random(seed).sample(range(len(records)), most))]
