"""A client's share of a round under client-level privacy: ordinary local training, no noise."""

from __future__ import annotations

import random

import torch

from dpacc.federated.clients.client_data import ClientData
from dpacc.federated.clients.local_adapter import LocalAdapter
from dpacc.federated.updates.layout import Arrays, load_arrays, trainable_arrays
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.objective import losses_for


class PlainTraining:
    """One client's model and data; its optimizer starts anew in every round.

    What it returns is as private as its data: it may leave only for a server that is trusted to
    clip it and to add noise before anything is released.

    Args:
        config: learning rate, task, and the size of a batch.
        adapter: the model with the shared adapter.
        data: what it learns from.
        local_epochs: passes over the data in one round.
    """

    def __init__(
        self,
        *,
        config: TrainingConfig,
        adapter: LocalAdapter,
        data: ClientData,
        local_epochs: float,
    ) -> None:
        base = adapter.base
        self._examples, self._collate = data.examples, data.collate
        self._losses_of = losses_for(config=config, model=base.model, tokenizer=base.tokenizer)
        assert config.learning_rate is not None  # A client's settings name it.
        self._rate, self._batch_size = config.learning_rate, config.expected_batch_size
        self._local_epochs = local_epochs
        self._model = adapter.model

    def run_round(self, start: Arrays) -> Arrays:
        """Train from `start` over shuffled batches; the adapter afterwards."""
        load_arrays(self._model, start)
        self._model.train()
        adapters = [p for p in self._model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(adapters, lr=self._rate, weight_decay=0.0)
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
        size = self._batch_size
        return [
            self._collate([self._examples[at] for at in order[first : first + size]])
            for first in range(0, len(order), size)
        ]
