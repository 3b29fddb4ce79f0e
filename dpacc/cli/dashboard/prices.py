"""Prices of what ledgers hold, each computed once: the same that `dpacc spend` states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from dpacc_accounting import Adjacency, Event, Guarantee, LedgerRecord, epsilon, tradeoff_curve
from dpacc_accounting.attacks.tradeoff import detection_bound
from dpacc_accounting.ledger.claims import claim_of, void_because
from dpacc_accounting.ledger.plan_settings import require_priceable

_POINTS = 12
_ALARMS = (0.0, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def price_of(record: LedgerRecord) -> Guarantee:
    """What a ledger's releases cost at its plan's δ, with all that voids or qualifies it.

    Raises:
        ValueError: its plan lacks what a price needs, or its releases have none.
    """
    plan = record.plan
    require_priceable(plan=plan, record=record, delta=None)
    stated = _priced(
        record.event, plan["target_delta"], Adjacency(plan["adjacency"]), str(plan["unit"])
    )
    return claim_of(plan=plan, record=record, guarantee=stated)


def spent_by_step(*, record: LedgerRecord, claim: Guarantee) -> tuple[tuple[int, float], ...]:
    """(step, ε) after a few steps, dense where the curve bends; the last is what is claimed.

    Empty where nothing is claimed. The steps before the last do not change while a run goes on, so
    that a growing ledger costs one price at a time.
    """
    if void_because(claim):
        return ()
    done = (record.last_step or 0) + 1 if record.releases else 0
    whole = max(done, _planned(record) or 0)
    marks = {round(whole * (k / _POINTS) ** 2) for k in range(1, _POINTS + 1)} - {0}
    found = [(0, 0.0)]
    for step in sorted(each for each in marks if each < done):
        found.append((step, spent_after(record=record, claim=claim, step=step)))
    return (*found, (done, claim.epsilon)) if done else tuple(found)


def spent_after(*, record: LedgerRecord, claim: Guarantee, step: int) -> float:
    """ε of the first `step` steps, and after the last one what is claimed of all."""
    if record.last_step is not None and step > record.last_step:
        return claim.epsilon
    charged = tuple(each for each in record.releases if each.step < step)
    return _spent(replace(record, releases=charged), claim)


def attack_curve(*, event: Event, claim: Guarantee) -> tuple[tuple[float, float], ...]:
    """(false positives, the most true positives of any attack), from the whole trade-off curve.

    Where an event has no curve, or a claim covers more than the event, (ε, δ) alone bounds it.
    Empty where nothing is claimed.

    Source: Dong, Roth & Su 2019 (arXiv 1905.02383), proposition 2.12.
    """
    if void_because(claim):
        return ()
    by_pair = [detection_bound(guarantee=claim, false_alarms=each) for each in _ALARMS]
    try:
        by_curve = _most_found(event, claim.adjacency)
        whole = _priced(event, claim.delta, claim.adjacency, claim.unit).epsilon
    except ValueError:
        by_curve, whole = (1.0,) * len(_ALARMS), claim.epsilon
    if whole < claim.epsilon:
        by_curve = (1.0,) * len(_ALARMS)
    found = [min(1.0, pair, curve) for pair, curve in zip(by_pair, by_curve, strict=True)]
    return tuple(zip(_ALARMS, _rising(found), strict=True))


def _rising(shares: Sequence[float]) -> list[float]:
    """Bounds that never fall from left to right, as no attack finds less where more is allowed."""
    return [min(shares[at:]) for at in range(len(shares))]


def _planned(record: LedgerRecord) -> int | None:
    steps = record.plan.get("steps")
    return steps if isinstance(steps, int) else None


def _spent(record: LedgerRecord, claim: Guarantee) -> float:
    if not record.releases:
        return 0.0
    return _priced(record.event, claim.delta, claim.adjacency, claim.unit).epsilon


@lru_cache(maxsize=4096)
def _priced(event: Event, delta: float, adjacency: Adjacency, unit: str) -> Guarantee:
    return epsilon(event=event, delta=delta, adjacency=adjacency, unit=unit)


@lru_cache(maxsize=64)
def _most_found(event: Event, adjacency: Adjacency) -> tuple[float, ...]:
    curve = tradeoff_curve(event=event, adjacency=adjacency, points=17)
    return tuple(1 - curve.false_negatives(false_positives=each) for each in _ALARMS)
