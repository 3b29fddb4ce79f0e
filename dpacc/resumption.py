"""Going on with a run that died: its last checkpoint, then its journal, then new steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from dpacc import ranks
from dpacc.accumulation import AdaptiveBound
from dpacc.backends import Backend
from dpacc.books import Books
from dpacc.checkpoint import Checkpoint, Checkpoints, JournalEntry, adopt
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan


class Resumption:
    """Saves and restores everything a run's future depends on but its secret, which is new.

    Args:
        accelerator: the launch's Accelerator.
        backend: replays journalled gradients.
        checkpoints: where the state is kept.
        books: which run it is, and what was charged.
        plan: what the run promised.
        adapters: name and trainable parameter.
        optimizer: whose state is kept.
        scheduler: likewise, if there is one; it is stepped once a replayed update.
        bound: the clipping norm, which may have adapted.
    """

    def __init__(
        self,
        *,
        accelerator: Accelerator,
        backend: Backend,
        checkpoints: Checkpoints,
        books: Books,
        plan: PrivacyPlan,
        adapters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler | None,
        bound: AdaptiveBound,
    ) -> None:
        self._accelerator = accelerator
        self._backend = backend
        self._checkpoints = checkpoints
        self._books = books
        self._plan = plan
        self._adapters = adapters
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._bound = bound

    def save(self, step: int) -> None:
        """Write a checkpoint that holds the effects of the steps before `step`."""
        ranks.on_main_process(self._accelerator, lambda: self._save_here(step))

    def restore(self) -> None:
        """Load the last checkpoint on every rank and replay the journal after it."""
        checkpoint, entries = self._read_on_main()
        adopt(self._adapters, checkpoint.state["adapters"])
        self._optimizer.load_state_dict(checkpoint.state["optimizer"])
        if self._scheduler is not None:
            self._scheduler.load_state_dict(checkpoint.state["scheduler"])
        self._bound.value = checkpoint.state["bound"]
        for entry in entries:
            self._replay(entry)

    def _save_here(self, step: int) -> None:
        state = {
            "adapters": dict(self._adapters),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict() if self._scheduler else None,
            "bound": self._bound.value,
        }
        self._checkpoints.save(step=step, facts=self._facts(), state=state)

    def _facts(self) -> dict[str, Any]:
        return {"run": self._books.run, "plan": self._plan.fingerprint}

    def _read_on_main(self) -> tuple[Checkpoint, list[JournalEntry]]:
        found: list[tuple[Checkpoint, list[JournalEntry]]] = []
        ranks.on_main_process(self._accelerator, lambda: found.append(self._read_here()))
        shared: tuple[Checkpoint, list[JournalEntry]] = ranks.share_from_main(
            found[0] if found else None
        )
        return shared

    def _read_here(self) -> tuple[Checkpoint, list[JournalEntry]]:
        checkpoint = self._checkpoints.latest()
        if dict(checkpoint.facts) != self._facts():
            raise ConfigurationError(
                f"the checkpoints belong to another run than {self._books.path}; resume with the "
                "folder and the settings that the run was started with"
            )
        entries = list(self._checkpoints.journalled(since=checkpoint.step))
        done = checkpoint.step + len(entries)
        if done > self._books.steps_charged:
            raise ConfigurationError(
                f"{done} steps were released and {self._books.path} holds only "
                f"{self._books.steps_charged}: the ledger was cut or replaced; restore it"
            )
        return checkpoint, entries

    def _replay(self, entry: JournalEntry) -> None:
        gradient = entry.gradient.to(self._accelerator.device)
        self._backend.update(list(self._adapters.values()), gradient)
        if self._scheduler is not None:
            self._scheduler.step()
        self._bound.value = entry.bound
