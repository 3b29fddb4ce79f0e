"""A private search of hyper-parameters: what it costs, and how often it tries.

How many trials there are is drawn in secret from a geometric law, each trial draws its settings at
random, and only the best is kept. Everything that the search releases then costs little more than
a single trial (Papernot & Steinke 2022, arXiv 2110.03620).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

from dpacc_accounting import Guarantee, Selected, epsilon
from dpacc_accounting.calibration.noise import least_noise

from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan
from dpacc.plan.several_phases import with_noise

Choice = TypeVar("Choice")

_GEOMETRIC = 1.0


@dataclass(frozen=True, kw_only=True)
class PrivateSearch:
    """The best of a geometric number of trials, each under one plan.

    Args:
        plan: that of every trial.
        mean_trials: how many there are on average, at least 1.
    """

    plan: PrivacyPlan
    mean_trials: float

    @classmethod
    def calibrate(cls, *, plan: PrivacyPlan, mean_trials: float) -> Self:
        """The search whose choice, not only one trial, keeps the plan's ε and δ.

        Args:
            plan: of one run, calibrated to the budget by itself.
            mean_trials: how many trials there are on average.

        Raises:
            ConfigurationError: the plan has no target, or `mean_trials` is below 1.

        >>> plan = PrivacyPlan.calibrate(
        ...     dataset_size=5000, expected_batch_size=250, steps=60,
        ...     target_epsilon=8.0, target_delta=1e-5, max_grad_norm=1.0)
        >>> search = PrivateSearch.calibrate(plan=plan, mean_trials=10)
        >>> search.plan.noise_multiplier > plan.noise_multiplier
        True
        >>> 7.99 < search.guarantee().epsilon <= 8.0
        True
        """
        if plan.target_epsilon is None:
            raise ConfigurationError("a search needs a plan with target_epsilon")
        if not mean_trials >= 1:
            raise ConfigurationError(f"trials={mean_trials:g} must be at least 1")

        def price(noise_multiplier: float) -> float:
            tried = with_noise(plan, noise_multiplier=noise_multiplier)
            return cls(plan=tried, mean_trials=mean_trials).guarantee().epsilon

        start = (plan.noise_multiplier * 1.3, 1.5)
        noise_multiplier = least_noise(price, target=plan.target_epsilon, start=start)
        louder = with_noise(plan, noise_multiplier=noise_multiplier)
        return cls(plan=louder, mean_trials=mean_trials)

    @property
    def event(self) -> Selected:
        """All that the search releases."""
        trial = self.plan.event()
        return Selected(event=trial, mean_runs=self.mean_trials, shape=_GEOMETRIC)

    def guarantee(self) -> Guarantee:
        """(ε, δ) of the choice."""
        return epsilon(
            event=self.event,
            delta=self.plan.target_delta,
            adjacency=self.plan.adjacency,
            unit=self.plan.unit,
        )

    def draw_trials(self, choices: Sequence[Choice]) -> list[Choice]:
        """The settings of every trial, drawn in secret before any of them runs.

        The number K has P(K = k) = γ(1 − γ)^(k − 1) with γ = 1/mean_trials.

        Raises:
            ConfigurationError: there is nothing to choose from.
        """
        if not choices:
            raise ConfigurationError("a search needs settings to choose from")
        coin = secrets.SystemRandom()
        drawn = [coin.choice(choices)]
        while coin.random() >= 1 / self.mean_trials:
            drawn.append(coin.choice(choices))
        return drawn
