"""The mean of a run's last adapters, which noise moved in different directions.

Every iterate of a private run is released already, so their mean costs nothing: it is
post-processing. Noise that pushed one iterate aside is mostly gone from the mean of many
(Polyak & Juditsky 1992).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from dpacc.errors import ConfigurationError

_SUM, _TAKEN = "iterate_sum", "steps_taken"
USUAL_SHARE = 0.5


class IterateAverage:
    """Adds up the parameters after each of the last steps of an optimizer.

    The sums live in the optimizer's state, so a checkpoint holds them, and steps that a resumed
    run replays count as they did the first time.

    Args:
        optimizer: before its first step; of whole parameters, not cut over ranks.
        steps: T, how many steps the run has.
        share: of them, the last ⌈share · T⌉ are averaged.

    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> optimizer = torch.optim.SGD([weight], lr=1.0)
    >>> average = IterateAverage(optimizer, steps=4, share=0.5)
    >>> for _ in range(4):
    ...     weight.grad = torch.tensor([-1.0])
    ...     optimizer.step()
    >>> weight.item()
    4.0
    >>> average.put_in_place()
    >>> weight.item()
    3.5
    """

    def __init__(self, optimizer: torch.optim.Optimizer, *, steps: int, share: float) -> None:
        self._optimizer = optimizer
        # Rounded first: 0.9 * 10 is a little more than 9.
        self._before = steps - math.ceil(round(share * steps, 9))
        self._depth = 0
        optimizer.register_step_pre_hook(self._enter)
        optimizer.register_step_post_hook(self._leave)

    @torch.no_grad()
    def put_in_place(self) -> None:
        """Give the parameters their mean; those that took no step keep their values."""
        for parameter, state in self._states():
            averaged = int(state[_TAKEN]) - self._before
            if averaged > 0:
                parameter.copy_(state[_SUM] / averaged)

    def _enter(self, *_: Any) -> None:
        self._depth += 1

    def _leave(self, *_: Any) -> None:
        # A class that extends another's step runs the hooks once for each; one step was taken.
        self._depth -= 1
        if self._depth == 0:
            self._add()

    @torch.no_grad()
    def _add(self) -> None:
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                state = self._optimizer.state[parameter]
                if _TAKEN not in state:
                    state[_TAKEN] = torch.zeros(())
                    state[_SUM] = torch.zeros_like(parameter)
                state[_TAKEN] += 1
                if state[_TAKEN] > self._before:
                    state[_SUM] += parameter

    def _states(self) -> list[tuple[Tensor, dict[str, Tensor]]]:
        return [(p, state) for p, state in self._optimizer.state.items() if _TAKEN in state]


def require_share(share: float) -> None:
    """Refuse what is no share of a run's steps.

    Raises:
        ConfigurationError: it is not from 0 to 1.

    >>> require_share(0.5)
    """
    if not 0 <= share <= 1:
        raise ConfigurationError(
            f"average_iterates={share:g} must be a share of the steps, from 0 (none) to 1 (all)"
        )


def share_for(share: float | None, *, accelerator: Accelerator) -> float:
    """The share that a setting means: none is a half, where the optimizer's state is whole.

    >>> share_for(None, accelerator=Accelerator(cpu=True))
    0.5
    """
    if share is not None:
        return share
    return 0.0 if _is_cut(accelerator) else USUAL_SHARE


def _is_cut(accelerator: Accelerator) -> bool:
    return getattr(accelerator.state, "deepspeed_plugin", None) is not None


def average_of(
    optimizer: torch.optim.Optimizer, *, steps: int, share: float, accelerator: Accelerator
) -> IterateAverage | None:
    """The average that a run's settings ask for; None where `share` is 0.

    Raises:
        ConfigurationError: `share` is none, or the launch cuts the optimizer's state over the
            ranks.
    """
    require_share(share)
    if not share:
        return None
    if _is_cut(accelerator):
        raise ConfigurationError(
            f"average_iterates={share:g} under DeepSpeed, which cuts the optimizer's state over "
            "the ranks: set it to 0, or launch with launch_configs/ddp.yaml or fsdp2.yaml"
        )
    return IterateAverage(optimizer, steps=steps, share=share)
