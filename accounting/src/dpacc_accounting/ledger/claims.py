"""What may be claimed of a plan or a ledger, with whatever voids or qualifies it.

The one place in which a price meets the ledger's notes: everything that states ε of a run asks
here, so that a fixed seed or a logged loss is told wherever ε is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from dpacc_accounting.attacks.best_attack import attack_advantage, true_positive_rate
from dpacc_accounting.attacks.tradeoff import advantage_bound, detection_bound
from dpacc_accounting.events.event import Event
from dpacc_accounting.events.participation import Phase
from dpacc_accounting.guarantee import Adjacency, Guarantee, Note, rounded_up
from dpacc_accounting.ledger.plan_settings import (
    participation_of,
    require_priceable,
    require_same,
)
from dpacc_accounting.ledger.record import LedgerRecord
from dpacc_accounting.pricing.price import epsilon

_NO_NOISE = Note("no-noise", "the noise multiplier is 0, so no noise was added")


class AttackBounds(NamedTuple):
    """The most that any attack finds out.

    Args:
        false_positives: α, the rate of false alarms at which `true_positives` is stated.
        true_positives: the largest true-positive rate at α.
        advantage: at most by how much true positives exceed false positives, at any rate.
    """

    false_positives: float
    true_positives: float
    advantage: float


def claim_of(
    *,
    plan: Mapping[str, Any],
    record: LedgerRecord | None = None,
    guarantee: Guarantee | None = None,
    delta: float | None = None,
) -> Guarantee:
    """What a plan promises or a ledger's releases cost, with the ledger's notes beside it.

    Args:
        plan: the run's settings; without a ledger, all of `PrivacyPlan`'s that the engine needs.
            With one, `adjacency` and `unit`, and `target_delta` unless `delta` is given.
        record: the ledger to price; without it, the whole plan is.
        guarantee: what pricing gave, where that is known already.
        delta: the δ at which ε is stated; the plan's when left out.

    Returns:
        A guarantee of infinite ε where none may be claimed; its notes say why.

    Raises:
        ValueError: the plan lacks a setting, contradicts the ledger's, or cannot be priced.
    """
    require_priceable(plan=plan, record=record, delta=delta)
    require_same(plan=plan, record=record)
    notes = record.notes if record else ()
    if plan.get("noise_multiplier") == 0 or _has_silent_phase(plan):
        notes = (*notes, _NO_NOISE)
    if guarantee is None:
        guarantee = epsilon(
            event=released(plan=plan, record=record),
            delta=plan["target_delta"] if delta is None else delta,
            adjacency=Adjacency(plan["adjacency"]),
            unit=plan["unit"],
        )
    return guarantee.noted(notes)


def what_holds(
    *,
    plan: Mapping[str, Any],
    record: LedgerRecord | None = None,
    guarantee: Guarantee | None = None,
    delta: float | None = None,
) -> tuple[Guarantee | None, list[str]]:
    """The guarantee that may be claimed, or None and the reasons why none may.

    Arguments and errors as for :func:`claim_of`.
    """
    claim = claim_of(plan=plan, record=record, guarantee=guarantee, delta=delta)
    if faults := void_because(claim):
        return None, faults
    return claim, []


def void_because(claim: Guarantee) -> list[str]:
    """Why nothing may be claimed; empty where ε holds."""
    if claim.void_because:
        return [*claim.void_because]
    if math.isinf(claim.epsilon):
        return [f"no finite ε holds at δ = {rounded_up(claim.delta)}"]
    return []


def attack_bounds(
    *, event: Event, claim: Guarantee, false_positives: float = 0.01
) -> AttackBounds | None:
    """The most that any attack on `event` finds out, by its whole trade-off curve.

    The curve says far more than the one (ε, δ) that is printed: of 67,349 examples, 790 steps and
    ε = 8 an attacker finds 8.9% at 1% false alarms, where (ε, δ) alone would allow 99.97%.

    Args:
        event: what was released, or would be.
        claim: what is claimed of it; one that covers more than `event` is taken at its word.
        false_positives: α.

    Returns:
        None where nothing is claimed.

    Source: Dong, Roth & Su 2019 (arXiv 1905.02383); for the pair alone Kairouz, Oh & Viswanath
    (arXiv 1311.0776) and Humphries et al. (arXiv 2010.12112). The least of both is stated.

    >>> from dpacc_accounting import Gaussian
    >>> once = Gaussian(noise_multiplier=1.0)
    >>> found = attack_bounds(event=once, claim=epsilon(event=once, delta=1e-5))
    >>> round(found.true_positives, 4), round(found.advantage, 4)
    (0.0924, 0.3829)
    """
    if void_because(claim):
        return None
    caught = detection_bound(guarantee=claim, false_alarms=false_positives)
    advantage = advantage_bound(guarantee=claim)
    try:
        by_curve = _by_curve(event, claim.adjacency, claim.delta, false_positives)
    except ValueError:  # Some events have an (ε, δ) and no curve.
        return AttackBounds(false_positives, caught, advantage)
    epsilon_of_event, curve_caught, curve_advantage = by_curve
    if epsilon_of_event < claim.epsilon:
        return AttackBounds(false_positives, caught, advantage)
    return AttackBounds(false_positives, min(caught, curve_caught), min(advantage, curve_advantage))


@lru_cache(maxsize=64)
def _by_curve(
    event: Event, adjacency: Adjacency, delta: float, false_positives: float
) -> tuple[float, float, float]:
    """ε, true positives and advantage: kept, for a folder's card, proof and doctor ask alike."""
    return (
        epsilon(event=event, delta=delta, adjacency=adjacency).epsilon,
        true_positive_rate(event=event, false_positives=false_positives, adjacency=adjacency),
        attack_advantage(event=event, adjacency=adjacency),
    )


def _has_silent_phase(plan: Mapping[str, Any]) -> bool:
    return any(Phase.read(each).noise_multiplier == 0 for each in plan.get("phases", ()))


def released(*, plan: Mapping[str, Any], record: LedgerRecord | None) -> Event:
    """All that the ledger says was released; without one, all that the plan would release."""
    if record is not None:
        return record.event
    return participation_of(plan=plan).event(steps=plan["steps"])
