"""Auditing anybody's trainer: a function from canaries to scores is all that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from dpacc.audit.claims import Claim
from dpacc.audit.verdict import Audit, Coins, Scores, judge

Trainer = Callable[[Coins], npt.ArrayLike]
"""Trains once with the canaries that are marked, and returns a score for every canary."""


def audit_trainer(
    *,
    train: Trainer,
    canaries: int,
    claim: Claim,
    confidence: float = 0.95,
    threshold: float | None = None,
    seed: int | None = None,
) -> Audit:
    """Flip a coin for each canary, train once, and judge the scores.

    Args:
        train: gets [m] booleans, trains with the canaries that are marked, and returns [m] scores,
            the higher the more a canary looks as if it had been in: `projections` of released
            gradients, or how far each canary's loss fell. It must not look at the booleans
            otherwise, and canaries that are absent should leave the dataset's size as it is.
        canaries: m.
        claim: what should hold.
        confidence: the chance that a trainer which keeps its claim is not accused.
        threshold: see [`judge`][dpacc.audit.verdict.judge]; only for independent scores.
        seed: of the coins; by default they cannot be predicted.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> def leaky(included):  # claims σ = 1 and adds σ = 0.2
    ...     return included + 0.2 * rng.standard_normal(len(included))
    >>> from dpacc_accounting import Gaussian
    >>> claim = Claim.of_event(event=Gaussian(noise_multiplier=1.0), delta=1e-5)
    >>> audit_trainer(train=leaky, canaries=500, claim=claim, seed=0).refuted
    True
    """
    included = np.random.default_rng(seed).random(canaries) < 0.5
    scores = np.asarray(train(included), dtype=np.float64)
    return judge(
        included=included,
        scores=scores,
        claim=claim,
        confidence=confidence,
        threshold=threshold,
    )


def projections(
    *, gradients: Iterable[npt.ArrayLike], directions: npt.NDArray[np.floating]
) -> Scores:
    """White-box scores: each canary's direction times the sum of what every step released.

    ``score_i = Σ_t ⟨g_t, d_i⟩``; for canaries whose own gradient is d_i and that point away from
    one another, nothing else a step releases says more.

    Args:
        gradients: [width] each, the noised gradient of every step.
        directions: [m, width], one a canary.

    >>> projections(gradients=[[1.0, 2.0], [3.0, 4.0]], directions=np.eye(2)).tolist()
    [4.0, 6.0]
    """
    scores = np.zeros(len(directions))
    for gradient in gradients:
        scores += directions @ np.asarray(gradient, dtype=np.float64)
    return scores
