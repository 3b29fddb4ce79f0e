"""How a run's updates are made: facts of its optimizer and scheduler, which a resume compares."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.scheduler import AcceleratedScheduler
from torch import Tensor, nn

from dpacc.errors import ConfigurationError

_HOW_IT_COMPUTES = {"foreach", "fused", "capturable", "differentiable"}
"""Options of an optimizer that change no update but by rounding."""


class Schedule(Protocol):
    """What a resume needs of a learning-rate scheduler."""

    def step(self) -> None:
        """Go on by one update."""

    def state_dict(self) -> dict[str, Any]:
        """Where it stands."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go back to where it stood."""


def update_rule(
    *,
    optimizer: torch.optim.Optimizer,
    scheduler: Schedule | None,
    adapters: Mapping[str, nn.Parameter],
) -> dict[str, Any]:
    """What a run's updates depend on beside its gradients, as JSON; take it before the first.

    >>> weight = nn.Parameter(torch.zeros(1))
    >>> optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.9)
    >>> rule = update_rule(optimizer=optimizer, scheduler=None, adapters={"weight": weight})
    >>> rule["optimizer"], rule["scheduler"], rule["group 0's momentum"]
    ('SGD', 'none', 0.9)
    """
    if isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    rule: dict[str, Any] = {
        "optimizer": type(optimizer).__name__,
        "scheduler": "none" if scheduler is None else type(_inner(scheduler)).__name__,
        "number of parameter groups": len(optimizer.param_groups),
    }
    names = {parameter: name for name, parameter in adapters.items()}
    for index, group in enumerate(optimizer.param_groups):
        held = [names[parameter] for parameter in group["params"]]
        rule[f"group {index}'s adapters"] = f"{len(held)} of digest {_digest(held)}"
        for option in sorted(group.keys() - _HOW_IT_COMPUTES - {"params"}):
            rule[f"group {index}'s {option}"] = group[option]
    for setting, value in ({} if scheduler is None else scheduler.state_dict()).items():
        rule[f"scheduler's {setting}"] = value
    plain: dict[str, Any] = json.loads(json.dumps(rule, default=_plain))
    return plain


def require_same_rule(*, started: Mapping[str, Any], resumed: Mapping[str, Any]) -> None:
    """Refuse to go on by another rule than a run was started with.

    Raises:
        ConfigurationError: they differ; it names the first fact that does.
    """
    for name in {**resumed, **started}:
        before, now = started.get(name, "absent"), resumed.get(name, "absent")
        if before != now:
            raise ConfigurationError(
                f"the run was started with {name}={before}, and this resume has {name}={now}; "
                "resume with the settings that the run was started with"
            )


class SchedulePace:
    """Holds a scheduler to one step an update, which is how a resume replays it.

    Args:
        scheduler: one that does not say where it stands, or that Accelerate steps once a rank, is
            not held to anything.
    """

    def __init__(self, scheduler: Schedule | None) -> None:
        self._scheduler = scheduler
        self._seen: tuple[int, int] | None = None

    def require(self, step: int) -> None:
        """Compare how far the scheduler and the run came since this was last called.

        Raises:
            ConfigurationError: not equally far.
        """
        if self._scheduler is None or isinstance(self._scheduler, AcceleratedScheduler):
            return
        position = self._scheduler.state_dict().get("last_epoch")
        if not isinstance(position, int):
            return
        if self._seen is not None:
            taken, moved = step - self._seen[0], position - self._seen[1]
            if taken != moved:
                raise ConfigurationError(
                    f"the scheduler was stepped {moved} times in {taken} updates; step it once "
                    "after each update, before engine.checkpoint(), so that a resume can replay it"
                )
        self._seen = (step, position)


def _inner(scheduler: Schedule) -> object:
    """The scheduler that a wrapper steps."""
    return getattr(scheduler, "scheduler", scheduler)


def _digest(names: list[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else type(value).__name__
