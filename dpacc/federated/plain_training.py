"""A client's share of a round under client-level privacy: ordinary local training, no noise."""

from __future__ import annotations

import random
from functools import partial

import torch

from dpacc.config import TrainingConfig
from dpacc.data import load_training_examples, pad_examples
from dpacc.federated.layout import Arrays, layout_hash, load_arrays, trainable_arrays
from dpacc.federated.ranks import adapted_model
from dpacc.models import load_base
from dpacc.objective import losses_for


class PlainTraining:
    """One client's model and data; its optimizer starts anew in every round.

    What it returns is as private as its data: it may leave only for a server that is trusted to
    clip it and to add noise before anything is released.

    Args:
        config: model, data, learning rate, and the size of a batch.
        local_epochs: passes over the data in one round.
    """

    def __init__(self, *, config: TrainingConfig, local_epochs: float) -> None:
        base = load_base(
            model=config.model, task=config.task, labels=config.labels, seed=config.seed
        )
        self._examples = load_training_examples(config=config, tokenizer=base.tokenizer)
        self._collate = partial(pad_examples, pad_token_id=base.tokenizer.pad_token_id)
        self._losses_of = losses_for(config=config, model=base.model, tokenizer=base.tokenizer)
        self._config = config
        self._local_epochs = local_epochs
        self._model = adapted_model(config, base.model)
        self.layout = layout_hash(self._model)
        self.shared = trainable_arrays(self._model)

    def run_round(self, start: Arrays) -> Arrays:
        """Train from `start` over shuffled batches; the adapter afterwards."""
        load_arrays(self._model, start)
        self._model.train()
        adapters = [p for p in self._model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(adapters, lr=self._config.learning_rate, weight_decay=0.0)
        for batch in self._batches():
            optimizer.zero_grad()
            self._losses_of(self._model, batch).mean().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        optimizer.zero_grad()
        return trainable_arrays(self._model)

    def _batches(self) -> list[dict[str, torch.Tensor]]:
        wanted = round(self._local_epochs * len(self._examples))
        order: list[int] = []
        while len(order) < wanted:
            order += random.sample(range(len(self._examples)), len(self._examples))
        order = order[:wanted]
        size = self._config.expected_batch_size
        return [
            self._collate([self._examples[at] for at in order[first : first + size]])
            for first in range(0, len(order), size)
        ]
