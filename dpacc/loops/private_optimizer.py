"""Optimizers whose `step` is the engine's: they update when a logical batch is whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.loops.virtual_batches import Turns


class UpdateSchedule:
    """Steps a learning-rate scheduler once an update, and makes the loop's own calls do nothing.

    A loop would step it once a batch, and how many batches a logical one takes is private.

    Raises:
        ConfigurationError: it follows a metric, which no resume could replay.
    """

    def __init__(self, scheduler: LRScheduler) -> None:
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ConfigurationError(
                "scheduler=ReduceLROnPlateau follows a metric, which a resume cannot replay; give "
                "one that follows the number of steps"
            )
        kind = type(scheduler)
        self.scheduler = scheduler
        self._advance: Callable[[], None] = partial(kind.step, scheduler)
        # By its class, for what lies on the instance would be part of its state.
        scheduler.__class__ = type(kind.__name__, (kind,), {"step": _do_nothing})

    def step(self) -> None:
        """Advance it."""
        self._advance()

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's own."""
        return self.scheduler.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Into the scheduler."""
        self.scheduler.load_state_dict(state_dict)


class PrivateOptimizer(torch.optim.Optimizer):
    """Stands for an optimizer that only the engine steps, with nothing but private gradients.

    Args:
        optimizer: the one that was given; its groups and state are shared.
        update: what `step` stands for: the end of a logical step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, update: Callable[[], None]) -> None:
        # Optimizer's own constructor would make groups and state of its own.
        self._optimizer = optimizer
        self._update = update

    def __getattr__(self, name: str) -> Any:
        if name == "_optimizer":
            raise AttributeError(name)
        return getattr(self._optimizer, name)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Reduce, charge, add noise and update.

        Raises:
            PrivacyError: out of turn, with a closure, or beside gradients that were not clipped.
        """
        if closure is not None:
            raise PrivacyError("optimizer.step takes no closure: it would look at examples again")
        self._refuse_gradients()
        self._update()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """There are no gradients to clear."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refused: the engine clips and adds noise to what it knew from the beginning."""
        raise PrivacyError("give the optimizer all its parameters before it is made private")

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's own."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Into the optimizer."""
        self._optimizer.load_state_dict(state_dict)

    def _refuse_gradients(self) -> None:
        """The engine's own appear within an update and are gone after it."""
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    raise PrivacyError(
                        "a trainable parameter holds a gradient that was not clipped: something "
                        "else than model(**batch).loss had a backward, such as a penalty on the "
                        "weights, or .grad was set; leave it out (weight decay is the optimizer's)"
                    )


class PlainLoopOptimizer(PrivateOptimizer):
    """The optimizer of a plain loop: a step that ends no logical batch updates nothing.

    Args:
        optimizer: see [`PrivateOptimizer`][dpacc.loops.private_optimizer.PrivateOptimizer].
        turns: what the loop must do next.
        schedule: stepped after each update.
        updated: called after each update.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        turns: Turns,
        schedule: UpdateSchedule | None,
        updated: Callable[[], None],
    ) -> None:
        super().__init__(optimizer, self._take_turn)
        self._turns = turns
        self._schedule = schedule
        self._updated = updated
        self._settings: list[Mapping[str, Any]] | None = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Say that a new batch begins; there are no gradients to clear."""
        self._turns.clear()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Into the optimizer."""
        super().load_state_dict(state_dict)
        self._settings = None

    def _take_turn(self) -> None:
        self._require_settings_untouched()
        if self._turns.update():
            if self._schedule is not None:
                self._schedule.step()
            self._updated()
            self._settings = _settings(self._optimizer)

    def _require_settings_untouched(self) -> None:
        now = _settings(self._optimizer)
        # The first batch is made up: whatever was set before it knows nothing of the data.
        self._settings = self._settings or now
        changed = sorted(
            {
                name
                for before, after in zip(self._settings, now, strict=True)
                for name in before.keys() | after.keys()
                if before.get(name) != after.get(name)
            }
        )
        if changed:
            raise PrivacyError(
                f"the optimizer's {', '.join(changed)} changed between two updates; the number of "
                "batches in between is private. Give make_private the scheduler=, which is then "
                "stepped once an update"
            )


def _settings(optimizer: torch.optim.Optimizer) -> list[Mapping[str, Any]]:
    return [
        {
            name: float(value) if isinstance(value, Tensor) else value
            for name, value in group.items()
            if name != "params"
        }
        for group in optimizer.param_groups
    ]


def _do_nothing(self: LRScheduler, epoch: int | None = None) -> None:
    """The engine steps it."""
