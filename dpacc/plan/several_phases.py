"""The plan of a run in several phases, with just enough noise in all of them together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dpacc_accounting import Adjacency, Phase, calibrate_phases

from dpacc.plan.privacy_plan import PrivacyPlan
from dpacc.plan.settings import Clipping, Noise


def phased_plan(
    *,
    dataset_size: int,
    phases: Sequence[Phase],
    target_epsilon: float,
    target_delta: float,
    max_grad_norm: float,
    clipping: Clipping = "flat",
    noise: Noise = "gaussian",
    unit: str = "example",
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
) -> PrivacyPlan:
    """The plan of several phases with the least noise that keeps ε ≤ target_epsilon in all.

    Args:
        dataset_size: N.
        phases: steps, batch and relative noise of each, in order: as noise multipliers compare
            here, so they will in the plan.
        target_epsilon: ε of the whole run.
        target_delta: δ at which it holds, below 1/N.
        max_grad_norm: C.
        clipping: as in the plan.
        noise: as in the plan.
        unit: the privacy unit in words.
        adjacency: as in the plan.

    Raises:
        ValueError: an argument is out of range.

    Source: composition as in [`calibrate_phases`][dpacc_accounting.calibrate_phases].

    >>> plan = phased_plan(
    ...     dataset_size=5000, target_epsilon=8.0, target_delta=1e-5, max_grad_norm=1.0,
    ...     phases=(Phase(steps=30, expected_batch_size=100, noise_multiplier=2.0),
    ...             Phase(steps=70, expected_batch_size=200, noise_multiplier=1.0)))
    >>> plan.steps, plan.at(29).expected_batch_size, plan.at(30).expected_batch_size
    (100, 100, 200)
    >>> plan.guarantee().epsilon <= 8.0
    True
    """
    found = calibrate_phases(
        dataset_size=dataset_size,
        phases=phases,
        epsilon=target_epsilon,
        delta=target_delta,
        adjacency=adjacency,
        unit=unit,
    ).phases
    return PrivacyPlan(
        dataset_size=dataset_size,
        expected_batch_size=found[0].expected_batch_size,
        steps=sum(phase.steps for phase in found),
        noise_multiplier=found[0].noise_multiplier,
        max_grad_norm=max_grad_norm,
        target_delta=target_delta,
        target_epsilon=target_epsilon,
        clipping=clipping,
        noise=noise,
        unit=unit,
        adjacency=adjacency,
        phases=found,
    )


def with_noise(plan: PrivacyPlan, *, noise_multiplier: float) -> PrivacyPlan:
    """A plan with another σ, and that of its later phases in proportion.

    >>> one = PrivacyPlan(dataset_size=100, expected_batch_size=10, steps=5, noise_multiplier=1.0,
    ...                   max_grad_norm=1.0, target_delta=1e-3)
    >>> with_noise(one, noise_multiplier=2.0).noise_multiplier
    2.0
    """
    if not plan.phases:
        return replace(plan, noise_multiplier=noise_multiplier)
    factor = noise_multiplier / plan.noise_multiplier
    first, *later = plan.phases
    louder = [replace(each, noise_multiplier=factor * each.noise_multiplier) for each in later]
    phases = (replace(first, noise_multiplier=noise_multiplier), *louder)
    return replace(plan, noise_multiplier=noise_multiplier, phases=phases)
