"""A client's own records, read by its own settings and nobody else's."""

from __future__ import annotations

from collections.abc import Hashable, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dpacc_accounting import Budget
from torch import Tensor

from dpacc.data.privacy_units import count_units
from dpacc.errors import ConfigurationError
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
        public: where the examples are public, frozen activations that this process knows already.
    """

    examples: Sequence[Any]
    units: Sequence[Hashable] | None
    collate: Collate
    public: MutableMapping[str, Tensor] | None = None

    @property
    def size(self) -> int:
        """N, in privacy units."""
        return count_units(examples=len(self.examples), units=self.units)


def read_client_data(*, config: TrainingConfig, tokenizer: PreTrainedTokenizerBase) -> ClientData:
    """Every record that the configuration names.

    Raises:
        ConfigurationError: a record cannot be read as it says.
        BudgetError: the configuration's budget is that of other data.
    """
    if config.budget is not None:
        Budget(path=config.budget).require_data(data=config.train_data)
    return ClientData(
        examples=load_training_examples(config=config, tokenizer=tokenizer),
        units=load_units(config=config),
        collate=partial(pad_examples, pad_token_id=tokenizer.pad_token_id),
    )


class OwnFiles:
    """A client's model and records, each read once, by its own settings alone.

    Args:
        config: the settings.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        self._base: Base | None = None
        self._data: ClientData | None = None

    def require_readable(self) -> int:
        """Read model and records now, if no record was read yet; N, in privacy units.

        Raises:
            ConfigurationError: one cannot be read.
        """
        if self._data is None:
            self._base = self._read_base()
            return self.data(self._base.tokenizer).size
        return self._data.size

    def require_batches_of(self, expected: int) -> None:
        """See that a batch can be drawn from what was read.

        Raises:
            ConfigurationError: there are fewer privacy units than one batch expects.
        """
        if self._data is not None and expected > self._data.size:
            raise ConfigurationError(
                f"expected_batch_size={expected} exceeds the {self._data.size} privacy units of "
                f"{self._config.train_data}; lower it"
            )

    @property
    def size(self) -> int:
        """N, in privacy units.

        Raises:
            ConfigurationError: the records cannot be read.
        """
        self.require_readable()
        assert self._data is not None
        return self._data.size

    def take_base(self) -> Base:
        """The model and its tokenizer, for one adapter: it is changed in place.

        Raises:
            ConfigurationError: they cannot be read.
        """
        base, self._base = self._base or self._read_base(), None
        return base

    def data(self, tokenizer: PreTrainedTokenizerBase) -> ClientData:
        """The records, as the model's tokenizer reads them.

        Raises:
            ConfigurationError: one cannot be read.
        """
        if self._data is None:
            self._data = read_client_data(config=self._config, tokenizer=tokenizer)
        return self._data

    def _read_base(self) -> Base:
        own = self._config
        return load_base(model=own.model, task=own.task, labels=own.labels, seed=own.seed)
