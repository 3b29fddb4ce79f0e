"""The data of a run, read before any weights: what it learns from, and what it measures on."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dpacc_accounting import Budget

from dpacc.data.overlap import OVERLAP_NOTE, require_apart
from dpacc.data.privacy_units import count_units
from dpacc.data.sequences import SEQUENCE_IDS, parted
from dpacc.data.supervision import Example
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.examples import (
    load_held_out_examples,
    load_held_out_units,
    load_training_examples,
    load_units,
    pad_examples,
)
from dpacc.recipe.pretrained import load_tokenizer


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What a run learns from, and what it measures on.

    Attributes:
        tokenizer: of the configuration's model.
        private: the private examples.
        units: whose each is; None where every example is its own unit.
        held_out: what the guarantee does not cover; empty where none is named.
        notes: what the ledger must say of them, subjects and texts.
        kept_of_each: the most examples of a unit that are drawn from, where examples are drawn.
    """

    tokenizer: Any
    private: list[Example]
    units: list[Hashable] | None
    held_out: list[Example]
    notes: list[tuple[str, str]]
    kept_of_each: int | None = None

    @property
    def dataset_size(self) -> int:
        """N, which is public: units, or the examples that are kept of them."""
        return count_units(
            examples=len(self.private), units=self.units, kept_of_each=self.kept_of_each
        )

    @property
    def collate(self) -> Callable[[list[Example]], dict[str, Any]]:
        """Pads a micro-batch to its longest row."""
        return partial(pad_examples, pad_token_id=int(self.tokenizer.pad_token_id))


def read_training_data(*, config: TrainingConfig, data_is_public: bool = False) -> TrainingData:
    """Read and tokenize what the configuration names.

    Args:
        config: the files, their fields, and the model whose tokenizer reads them.
        data_is_public: whether the examples to learn from need no protection.

    Raises:
        ConfigurationError: something cannot be read, or private examples are held out as well.
        BudgetError: the configuration's budget is that of other data.
    """
    if config.budget is not None and not data_is_public:
        Budget(path=config.budget).require_data(data=config.train_data)
    tokenizer = load_tokenizer(model=config.model)
    private = load_training_examples(config=config, tokenizer=tokenizer)
    units = load_units(config=config)
    held_out = load_held_out_examples(config=config, tokenizer=tokenizer)
    notes: list[tuple[str, str]] = []
    if not data_is_public:
        notes = admit_held_out(
            config=config,
            private=private,
            held_out=held_out,
            owners=units,
            held_out_owners=load_held_out_units(config=config),
        )
    return TrainingData(
        tokenizer=tokenizer,
        private=private,
        units=units,
        held_out=held_out,
        notes=notes,
        kept_of_each=config.kept_of_each,
    )


def admit_held_out(
    *,
    config: TrainingConfig,
    private: Sequence[Any],
    held_out: Sequence[Any],
    owners: Sequence[Any] | None,
    held_out_owners: Sequence[Any],
) -> list[tuple[str, str]]:
    """See that a recipe's held-out data is nobody's private data.

    Args:
        config: says whether private examples may be measured on.
        private: the private examples.
        held_out: the held-out ones; none where none were named.
        owners: whose the private examples are, if a unit is larger than one.
        held_out_owners: whose the held-out ones are, as far as that is known.

    Returns:
        What the ledger must say, where an overlap was allowed: subjects and texts.

    Raises:
        ConfigurationError: there is an overlap that was not allowed, or that would steer whitening.
    """
    if not held_out:
        return []
    whitens = config.lora_method == "whitened"
    try:
        require_apart(
            private=_sequences(private),
            held_out=_sequences(held_out),
            what=f"held_out_data={config.held_out_data}",
            remedy="train by another lora_method, for whitening puts them into the weights"
            if whitens
            else "say so with --allow_held_out_overlap true",
            owners=owners or (),
            held_out_owners=held_out_owners,
        )
    except ConfigurationError:
        if not config.allow_held_out_overlap or whitens:
            raise
        return [OVERLAP_NOTE]
    return []


def _sequences(examples: Sequence[Any]) -> list[Any]:
    """The answers of pairs each by itself: none may be private in one and held out in another."""
    return [part for e in examples for part in (parted(e) if SEQUENCE_IDS in e else [e])]
