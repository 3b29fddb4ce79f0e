"""How a run's updates are made: facts that a resume compares, and an Adam under known noise."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.scheduler import AcceleratedScheduler
from dpacc_accounting.factorization.banded import inverse_series
from torch import Tensor, nn

from dpacc.errors import ConfigurationError
from dpacc.layers.dynamic_rank import RankOf
from dpacc.plan import PrivacyPlan

# So many steps ago such an Adam's averages began: what they are scaled by is 1.
_LONG_AGO = 1e6
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


def what_learns(*, dynamic_rank: int | RankOf | None, subspace_rank: int | None) -> dict[str, Any]:
    """Which directions learn in which step, as facts that a resume compares.

    Raises:
        ConfigurationError: two ways of choosing them are asked for at once.

    >>> what_learns(dynamic_rank=None, subspace_rank=4)
    {'rank of the subspace': 4}
    """
    if dynamic_rank is not None and subspace_rank is not None:
        raise ConfigurationError(
            f"subspace_rank={subspace_rank} with dynamic_rank={dynamic_rank}: a subspace is of all "
            "rows of an adapter; choose one of the two"
        )
    seed = "none, by ranks of its own" if callable(dynamic_rank) else dynamic_rank
    named = {"seed of the dynamic rank": seed, "rank of the subspace": subspace_rank}
    return {name: value for name, value in named.items() if value is not None}


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


# --- an Adam that knows how large one step's noise is -------------------------------------


def step_noise(*, plan: PrivacyPlan) -> float:
    """The standard deviation of one step's noise in the private gradient, σC‖d‖/B.

    d is a row of C⁻¹, whose mean square over the run's steps is taken; 1 for independent noise.

    >>> plan = PrivacyPlan(dataset_size=100, expected_batch_size=10, steps=5, noise_multiplier=2.0,
    ...                    max_grad_norm=1.0, target_delta=1e-3)
    >>> step_noise(plan=plan)
    0.2
    """
    column = np.zeros(plan.steps)
    column[: plan.bands] = plan.noise_coefficients
    rows = np.square(inverse_series(column)).cumsum()
    noise = plan.gradient_noise_multiplier * plan.max_grad_norm / plan.expected_batch_size
    return noise * math.sqrt(float(rows.mean()))


@torch.no_grad()
def begin_at_known_noise(
    optimizer: torch.optim.Optimizer, *, plan: PrivacyPlan, cut: bool = False
) -> None:
    """Let an Adam that took no step yet begin at one step's noise, where that is correlated.

    What one step's noise added, later steps take back only where every step moves the parameters
    by the same multiple of its gradient. Adam's first steps do not: its averages begin at zero and
    are scaled up, so that its first step moves each coordinate by the whole learning rate, whatever
    its gradient. The variance of the noise is public, so the second moment may as well begin there,
    and the averages be taken as they are.

    Args:
        optimizer: of any kind; others than torch's Adam and AdamW are left as they are.
        plan: says how large the noise is.
        cut: whether the launch cuts the optimizer's state over the ranks.

    Raises:
        ConfigurationError: it would have to, and its state is cut.
    """
    if isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    if plan.bands == 1 or not isinstance(optimizer, torch.optim.Adam | torch.optim.AdamW):
        return
    if cut:
        raise ConfigurationError(
            f"{type(optimizer).__name__} with correlated noise must begin at that noise's size, "
            "and DeepSpeed cuts its state: set optimizer=sgd, leave correlation out, or launch "
            "with launch_configs/ddp.yaml or fsdp2.yaml"
        )
    variance = step_noise(plan=plan) ** 2
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if "step" in state:
                continue
            on_device = group.get("fused") or group.get("capturable")
            device = parameter.device if on_device else "cpu"
            state["step"] = torch.tensor(_LONG_AGO, device=device)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.full_like(parameter, variance)
            if group["amsgrad"]:
                state["max_exp_avg_sq"] = torch.full_like(parameter, variance)


def _inner(scheduler: Schedule) -> object:
    """The scheduler that a wrapper steps."""
    return getattr(scheduler, "scheduler", scheduler)


def _digest(names: list[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else type(value).__name__
