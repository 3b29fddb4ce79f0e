"""What is measured: the entities that a model finds in held-out notes, hospital by hospital."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from dpacc.data.entity_spans import EntityScore, entity_scores
from dpacc.data.labelling import tokenize_tags
from dpacc.data.supervision import IGNORED
from dpacc.errors import ConfigurationError
from dpacc.federated.clients.local_training import local_accelerator
from dpacc.federated.server.shared_model import shared_model
from dpacc.federated.settings import LoraSettings, Task
from dpacc.federated.updates.layout import load_arrays, trainable_arrays
from dpacc.layers.frozen_activations import FrozenActivations
from dpacc.recipe.evaluation import evaluating, in_batches
from dpacc.recipe.examples import pad_examples

Scores = Mapping[str, Mapping[str, EntityScore]]
"""By hospital, by kind of entity and `all`."""

_TOKENS_AT_ONCE = 4096


class HeldOutNotes:
    """Held-out notes of each hospital, outside the guarantee, and a model of its own to read them.

    What the layers beneath the adapter make of the notes is computed once, whichever adapters of
    this federation are measured.

    Args:
        folder: with `held_out_<hospital>.jsonl`.
        hospitals: whose.
        model_name: of the base that all share.
        lora: the adapter that all share.
        task: what is learned, as clients are told.

    Raises:
        ConfigurationError: a file is missing or holds no notes.
    """

    def __init__(
        self,
        *,
        folder: Path | str,
        hospitals: Sequence[str],
        model_name: str,
        lora: LoraSettings,
        task: Mapping[str, Any],
    ) -> None:
        shared = shared_model(name=model_name, lora=lora, task=Task(fields=task))
        self._labels: Sequence[str] = task["labels"]
        self._notes = {name: _read(Path(folder) / f"held_out_{name}.jsonl") for name in hospitals}
        self._model = shared.model.eval()
        examples = tokenize_tags(
            records=[note for notes in self._notes.values() for note in notes],
            tokenizer=shared.tokenizer,
            max_length=task["max_length"],
            words_field=task["words_field"],
            label_field=task["label_field"],
            labels=self._labels,
        )
        self._scratch = tempfile.TemporaryDirectory()
        self._frozen = FrozenActivations(
            model=self._model,
            examples=examples,
            collate=partial(pad_examples, pad_token_id=int(shared.tokenizer.pad_token_id)),
            accelerator=local_accelerator(),
            folder=Path(self._scratch.name),
        )

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """F1 over all entities, from 0 to 1, in each hospital's notes."""
        return {name: scores["all"].f1 for name, scores in self.scores(model).items()}

    def scores(self, model: nn.Module) -> Scores:
        """Precision, recall and F1 of each kind of entity in each hospital's notes.

        Args:
            model: the base with an adapter of this federation.
        """
        load_arrays(self._model, trainable_arrays(model))
        predicted = iter(self._predicted())
        found = {}
        for name, notes in self._notes.items():
            guesses = [_as_long(next(predicted), len(note["words"])) for note in notes]
            found[name] = entity_scores(predicted=guesses, true=[note["label"] for note in notes])
        return found

    def _predicted(self) -> list[list[str]]:
        """The tags of each note's words, as far as they were read."""
        examples: list[Any] = self._frozen.examples
        tags: list[list[str]] = [[] for _ in examples]
        with evaluating(self._model):
            for positions, batch in in_batches(
                self._model, examples, self._frozen.collate, _TOKENS_AT_ONCE
            ):
                known = batch.pop("labels") != IGNORED
                likeliest = self._model(**batch).logits.argmax(dim=-1)
                for row, place in enumerate(positions):
                    classes = likeliest[row][known[row]].tolist()
                    tags[place] = [self._labels[each] for each in classes]
        return tags

    def require_apart(self, *, folder: Path, unit_field: str) -> None:
        """See that nobody is trained and measured on, where all files are in one place.

        Args:
            folder: with `<hospital>.jsonl`.
            unit_field: says whose a note is.

        Raises:
            ConfigurationError: somebody is in a hospital's notes and in held-out ones.
        """
        measured = {note.get(unit_field) for notes in self._notes.values() for note in notes}
        for name in self._notes:
            own = {note.get(unit_field) for note in _read(folder / f"{name}.jsonl")}
            both = own & measured - {None}
            if both:
                raise ConfigurationError(
                    f"{len(both)} of those whose notes are in {name}.jsonl are in held-out notes, "
                    f"too: hold out all notes of whom you measure on, by {unit_field!r}"
                )

    def close(self) -> None:
        """Give up the activations."""
        self._frozen.close()
        self._scratch.cleanup()


def _as_long(tags: list[str], words: int) -> list[str]:
    """Words beyond the longest example are read by nobody; what they hold is missed."""
    return [*tags, *["O"] * (words - len(tags))]


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        raise ConfigurationError(f"there are no notes {path}") from None
    if not lines:
        raise ConfigurationError(f"{path} holds no notes")
    return [json.loads(line) for line in lines]
