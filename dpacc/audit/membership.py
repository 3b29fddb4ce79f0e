"""How well losses tell who was in the training data, next to what the guarantee allows.

Members and strangers must be drawn alike, or what is measured is how they differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from dpacc_accounting import Event, Guarantee
from dpacc_accounting.attacks.one_run_audit import clopper_pearson
from dpacc_accounting.ledger.claims import AttackBounds, attack_bounds
from scipy.stats import rankdata

from dpacc.audit.verdict import Scores
from dpacc.errors import ConfigurationError

_RATES = (0.001, 0.01, 0.1)


@dataclass(frozen=True, kw_only=True)
class Promised:
    """What was released, and what is claimed of it.

    Args:
        event: all releases.
        claim: their price, with what voids or qualifies it.
    """

    event: Event
    claim: Guarantee

    def at(self, false_positives: float) -> AttackBounds | None:
        """The most that any attack finds at this rate of false positives; None if nothing holds."""
        return attack_bounds(event=self.event, claim=self.claim, false_positives=false_positives)


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One point of an attack's curve.

    Args:
        false_positives: the rate of strangers taken for members.
        true_positives: the rate of members found, at the threshold with that many false positives.
        at_least: a lower confidence limit of it.
        allowed: the most that the guarantee allows on average over members; None without one.
    """

    false_positives: float
    true_positives: float
    at_least: float
    allowed: float | None


@dataclass(frozen=True, kw_only=True)
class MembershipReport:
    """What a membership-inference attack by thresholds achieves.

    Args:
        members: how many were tried.
        strangers: likewise.
        auc: the chance that a member scores above a stranger; ½ is guessing.
        advantage: the largest true-positive minus false-positive rate over all thresholds; the
            threshold is chosen with hindsight, so that it is above zero even by chance.
        allowed_advantage: the most that the guarantee allows; None without one.
        detections: at low false-positive rates, which matter most (Carlini et al., 2112.03570).
    """

    members: int
    strangers: int
    auc: float
    advantage: float
    allowed_advantage: float | None
    detections: tuple[Detection, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything, as strict JSON."""
        return {
            **{name: value for name, value in vars(self).items() if name != "detections"},
            "detections": [vars(each) for each in self.detections],
        }


def membership_report(
    *,
    members: Scores,
    strangers: Scores,
    promised: Promised | None = None,
    confidence: float = 0.95,
) -> MembershipReport:
    """Attack by thresholds on scores, the higher the more a text looks like a member.

    Args:
        members: [n], scores of texts that were trained on.
        strangers: [k], scores of texts of the same kind that were not.
        promised: what was promised, for the bounds beside.
        confidence: of the lower limits, each for itself.

    Raises:
        ConfigurationError: there are none of one kind, or scores are not finite.

    Source: Yeom et al. 2018 (arXiv 1709.01604); Carlini et al. 2022 (arXiv 2112.03570).

    >>> import numpy as np
    >>> report = membership_report(members=np.arange(5.0) + 10, strangers=np.arange(5.0))
    >>> report.auc, report.advantage
    (1.0, 1.0)
    """
    if not (len(members) and len(strangers)):
        raise ConfigurationError("membership inference needs members and strangers; give both")
    everyone = np.concatenate([members, strangers])
    if not np.isfinite(everyone).all():
        raise ConfigurationError("some scores are not finite, so that nothing can be told apart")
    ranks = rankdata(everyone)
    below = ranks[: len(members)].sum() - len(members) * (len(members) + 1) / 2
    thresholds = np.unique(everyone)
    found = _share_above(members, thresholds) - _share_above(strangers, thresholds)
    bounds = None if promised is None else promised.at(0.01)
    return MembershipReport(
        members=len(members),
        strangers=len(strangers),
        auc=float(below / (len(members) * len(strangers))),
        advantage=float(max(found.max(), 0.0)),
        allowed_advantage=None if bounds is None else bounds.advantage,
        detections=tuple(
            _detection(members, strangers, rate, promised, confidence) for rate in _RATES
        ),
    )


def _detection(
    members: Scores,
    strangers: Scores,
    rate: float,
    promised: Promised | None,
    confidence: float,
) -> Detection:
    allowed = int(rate * len(strangers))
    threshold = np.sort(strangers)[::-1][min(allowed, len(strangers) - 1)]
    found = int((members > threshold).sum())
    missed = len(members) - found
    limit = clopper_pearson(wrong=missed, tried=len(members), confidence=confidence)
    alarms = float((strangers > threshold).mean())
    bounds = None if promised is None else promised.at(alarms)
    return Detection(
        false_positives=alarms,
        true_positives=found / len(members),
        at_least=1 - limit,
        allowed=None if bounds is None else bounds.true_positives,
    )


def _share_above(scores: Scores, thresholds: Scores) -> Scores:
    below = np.searchsorted(np.sort(scores), thresholds, side="right")
    shares: Scores = 1 - below / len(scores)
    return shares
