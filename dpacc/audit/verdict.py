"""From scores to a verdict: does what was released agree with what is claimed?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from dpacc_accounting.attacks.one_run_audit import (
    Guesses,
    best_number_of_guesses,
    clopper_pearson,
    independent_mu,
    one_run_epsilon,
    one_run_mu,
    refutes,
)
from dpacc_accounting.gaussian import gaussian_epsilon
from dpacc_accounting.guarantee import Guarantee, Note, stated_notes

from dpacc.audit.claims import Claim
from dpacc.errors import ConfigurationError

Coins = npt.NDArray[np.bool_]
Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What one run's canaries prove about ε, next to what was claimed.

    All bounds and the verdict hold together with probability at least `confidence`.

    Args:
        claim: the guarantee under test.
        confidence: the chance that a run which keeps its claim is not accused.
        guesses: how many coins were guessed, and how many rightly.
        epsilon: lower bound on ε at the claim's δ, whatever the mechanism is.
        gaussian_epsilon: the same if the trade-off curve is a Gaussian mechanism's.
        independent_epsilon: the same if also the scores are independent; None if they may not be.
        refuted: whether the claim cannot be true.
        included: [m], the coins.
        scores: [m], what was seen of each canary.
        notes: what the ledger of the plan under test notes: an audit of the plan tests none of it.
    """

    claim: Guarantee
    confidence: float
    guesses: Guesses
    epsilon: float
    gaussian_epsilon: float
    independent_epsilon: float | None
    refuted: bool
    included: Coins = field(compare=False, repr=False)
    scores: Scores = field(compare=False, repr=False)
    notes: tuple[Note, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Everything, as strict JSON."""
        return {
            "claim": self.claim.to_json(),
            "ledger_notes": stated_notes(self.notes),
            "confidence": self.confidence,
            "canaries": self.guesses.canaries,
            "guesses": self.guesses.made,
            "correct": self.guesses.correct,
            "epsilon_at_least": self.epsilon,
            "epsilon_at_least_if_gaussian": self.gaussian_epsilon,
            "epsilon_at_least_if_independent": self.independent_epsilon,
            "refuted": self.refuted,
        }


def judge(
    *,
    included: Coins,
    scores: Scores,
    claim: Claim,
    confidence: float = 0.95,
    threshold: float | None = None,
) -> Audit:
    """Guess from scores which canaries took part, and hold the guesses against the claim.

    Args:
        included: [m], which canaries were in the data, by independent fair coins.
        scores: [m], the higher the more a canary looks as if it had been in.
        claim: what should hold.
        confidence: 1 − β; each of the three or four tests gets an equal part of β.
        threshold: set where scores are known to be independent: the score above which a canary is
            taken for present, chosen without looking at the scores.

    Raises:
        ConfigurationError: the lengths differ, or scores are not finite.

    Source: Steinke, Nasr & Jagielski 2023 (arXiv 2305.08846); Mahloujifar, Melis & Chaudhuri 2024
    (arXiv 2410.22235); Nasr et al. 2023 (arXiv 2302.07956) for independent scores.
    """
    _require_scores(included, scores)
    tests = 3 if threshold is None else 4
    each = 1 - (1 - confidence) / tests
    made = best_number_of_guesses(canaries=len(scores), mu=claim.mu, confidence=each)
    guesses = guess_extremes(included=included, scores=scores, made=made)
    delta = claim.guarantee.delta
    whatever = one_run_epsilon(guesses=guesses, delta=delta, confidence=each)
    gaussian = _gaussian_epsilon(one_run_mu(guesses=guesses, confidence=each), delta)
    refuted = whatever > claim.guarantee.epsilon
    refuted |= refutes(guesses=guesses, curve=claim.curve, confidence=each)
    independent = None
    if threshold is not None:
        rates = _rates(included, scores, threshold)
        independent = _gaussian_epsilon(independent_mu(**rates, confidence=each), delta)
        refuted |= _rates_refute(rates, claim, each)
    return Audit(
        claim=claim.guarantee,
        confidence=confidence,
        guesses=guesses,
        epsilon=whatever,
        gaussian_epsilon=gaussian,
        independent_epsilon=independent,
        refuted=bool(refuted),
        included=included,
        scores=scores,
    )


def guess_extremes(*, included: Coins, scores: Scores, made: int) -> Guesses:
    """Call the highest half of `made` scores present and the lowest half absent, and count."""
    order = np.argsort(scores, kind="stable")
    half = made // 2
    right = int(included[order[-half:]].sum() + (~included[order[:half]]).sum())
    return Guesses(correct=right, made=2 * half, canaries=len(scores))


def _rates(included: Coins, scores: Scores, threshold: float) -> dict[str, int]:
    """How often each kind of canary was taken for the other."""
    above = scores > threshold
    return {
        "missed": int((included & ~above).sum()),
        "present": int(included.sum()),
        "false_alarms": int((~included & above).sum()),
        "absent": int((~included).sum()),
    }


def _rates_refute(rates: dict[str, int], claim: Claim, confidence: float) -> bool:
    """Whether even the upper limits of both error rates lie below the claim's curve."""
    each = 1 - (1 - confidence) / 2
    alarms = clopper_pearson(wrong=rates["false_alarms"], tried=rates["absent"], confidence=each)
    misses = clopper_pearson(wrong=rates["missed"], tried=rates["present"], confidence=each)
    return misses < claim.curve(alarms)


def _gaussian_epsilon(mu: float, delta: float) -> float:
    return gaussian_epsilon(mu=mu, delta=delta) if mu > 0 else 0.0


def _require_scores(included: Coins, scores: Scores) -> None:
    if included.shape != scores.shape or scores.ndim != 1:
        raise ConfigurationError(
            f"{included.shape} coins and {scores.shape} scores; give one score for each canary"
        )
    if not np.isfinite(scores).all():
        raise ConfigurationError(
            "some scores are not finite; give each canary a number, the higher the more present"
        )
