"""How much noise a run's mean gradient holds, next to the most that any data could put into it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dpacc.plan import PrivacyPlan

DROWNED = 20.0
"""Between 10, at which 250 sentences were learned from, and 42, at which 60 brought a fifth of that
in loss: docs/plan.md."""


def noise_over_signal(*, plan: PrivacyPlan, trainable: int, correlation: float = 1.0) -> float:
    """√d·e·√(Σₜ(σₜ/Bₜ)²)/T: noise over the clipping norm, in the mean of a run's T gradients.

    A step's mean gradient is no longer than C, whatever the data says, and its noise is about
    σC·√d/B long. Over T steps the one adds up at most T times, the other √T times. Real gradients
    disagree, so that they are shorter; and what they say lies in few directions, while noise
    spreads over all, so that a run may learn although noise is longer.

    Args:
        plan: batch, steps and noise; σ, B and T.
        trainable: parameters that get noise, d.
        correlation: e, the share of the noise that correlation leaves in the end.

    >>> from dpacc.plan import PrivacyPlan
    >>> plan = PrivacyPlan(dataset_size=10_000, expected_batch_size=100, steps=100,
    ...                    noise_multiplier=1.0, max_grad_norm=1.0, target_delta=1e-5)
    >>> noise_over_signal(plan=plan, trainable=1_000_000)
    1.0
    """
    square = sum(
        each.steps * (each.noise_multiplier / each.expected_batch_size) ** 2
        for each in plan.each_phase
    )
    return math.sqrt(trainable * square) * correlation / plan.steps


def in_words(*, ratio: float) -> str:
    """What a run's noise over its largest possible signal means, as far as was measured.

    >>> in_words(ratio=41.7)
    '42 times the longest that the mean gradient of all steps can be: where that was measured, \
little was learned; more records, or fewer trainable parameters, would help'
    """
    told = f"{ratio:.2g} times the longest that the mean gradient of all steps can be"
    if ratio <= DROWNED:
        return told
    return (
        f"{told}: where that was measured, little was learned; more records, or fewer trainable "
        "parameters, would help"
    )


def drowned(*, plan: PrivacyPlan, trainable: int) -> str:
    """A remark for the line with which a run begins; nothing where noise may do, or is correlated.

    >>> from dpacc.plan import PrivacyPlan
    >>> plan = PrivacyPlan(dataset_size=60, expected_batch_size=2, steps=90, noise_multiplier=0.5,
    ...                    max_grad_norm=1.0, target_delta=1e-3)
    >>> drowned(plan=plan, trainable=1_000), drowned(plan=plan, trainable=2_442_240)[:23]
    ('', ' (noise is 41 times the')
    """
    ratio = noise_over_signal(plan=plan, trainable=trainable)
    return f" (noise is {in_words(ratio=ratio)})" if ratio > DROWNED and plan.bands == 1 else ""
