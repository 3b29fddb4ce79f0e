"""A client's own records, read by its own settings and nobody else's."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dpacc.data.privacy_units import count_units
from dpacc.layers.frozen_activations import Collate
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.examples import load_training_examples, load_units, pad_examples
from dpacc.recipe.models import Base, load_base

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class ClientData:
    """Examples, whose they are, and how a batch is made of them.

    Args:
        examples: tokens and labels.
        units: whose each example is; None where each is its own unit.
        collate: makes a batch.
    """

    examples: Sequence[Any]
    units: Sequence[Hashable] | None
    collate: Collate

    @property
    def size(self) -> int:
        """N, in privacy units."""
        return count_units(examples=len(self.examples), units=self.units)


def read_client_data(*, config: TrainingConfig, tokenizer: PreTrainedTokenizerBase) -> ClientData:
    """Every record that the configuration names.

    Raises:
        ConfigurationError: a record cannot be read as it says.
    """
    return ClientData(
        examples=load_training_examples(config=config, tokenizer=tokenizer),
        units=load_units(config=config),
        collate=partial(pad_examples, pad_token_id=tokenizer.pad_token_id),
    )


def load_own_base(config: TrainingConfig) -> Base:
    """The model and tokenizer that a client's own settings name.

    Raises:
        ConfigurationError: they cannot be read.
    """
    return load_base(model=config.model, task=config.task, labels=config.labels, seed=config.seed)
