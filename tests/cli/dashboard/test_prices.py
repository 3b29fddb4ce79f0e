"""Courses and attack curves: prices of the ledger that never flatter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from dpacc_accounting import read_ledger, true_positive_rate
from dpacc_accounting.events.event import Gaussian

from dpacc.cli.dashboard import prices
from tests.cli.dashboard.folders import BUDGETED, going_on
from tests.cli.report.folders import FIXED_SEED, finished_run


def test_the_course_ends_in_what_is_claimed(tmp_path: Path) -> None:
    """It begins at 0, does not fall, and each point is the price of so many steps."""
    going_on(tmp_path / "run", steps=5).close()
    record = read_ledger(path=tmp_path / "run/ledger.jsonl")
    claim = prices.price_of(record)
    course = prices.spent_by_step(record=record, claim=claim)
    assert course[0] == (0, 0.0)
    assert course[-1] == (5, claim.epsilon)
    assert dict(course)[2] == BUDGETED.guarantee(steps=2).epsilon
    assert [spent for _, spent in course] == sorted(spent for _, spent in course)


def test_the_attack_curve_bounds_every_attack(tmp_path: Path) -> None:
    """Nowhere below guessing or below a tighter bound, and it does not fall."""
    event = Gaussian(noise_multiplier=1.0)
    claim = replace(BUDGETED.guarantee(), epsilon=4.5, delta=1e-5)
    curve = prices.attack_curve(event=event, claim=claim)
    found = [most for _, most in curve]
    assert found == sorted(found)
    for alarms, most in curve:
        least = true_positive_rate(event=event, false_positives=alarms)
        assert most >= max(alarms, least - 1e-9)
    assert curve[0][0] == 0
    assert curve[-1] == (1.0, 1.0)


def test_a_claim_of_more_than_the_event_is_taken_at_its_word() -> None:
    """As of a search, whose ε is more than its last trial's: the pair alone bounds attackers."""
    event = Gaussian(noise_multiplier=1.0)
    own = BUDGETED.guarantee()
    priced = prices._priced(event, own.delta, own.adjacency, own.unit)
    more = replace(priced, epsilon=2 * priced.epsilon)
    both = (dict(prices.attack_curve(event=event, claim=each))[0.01] for each in (priced, more))
    exact, loose = both
    assert loose > 2 * exact


def test_nothing_is_drawn_where_nothing_is_claimed(tmp_path: Path) -> None:
    """A fixed seed leaves no course and no curve."""
    folder = finished_run(tmp_path / "void", notes=[FIXED_SEED])
    record = read_ledger(path=folder / "ledger.jsonl")
    claim = prices.price_of(record)
    assert prices.spent_by_step(record=record, claim=claim) == ()
    assert prices.attack_curve(event=record.event, claim=claim) == ()


def test_a_plan_without_a_delta_has_no_price(tmp_path: Path) -> None:
    """It is refused in words, and not priced at a δ of ours."""
    folder = finished_run(tmp_path / "run")
    record = read_ledger(path=folder / "ledger.jsonl")
    short = {name: value for name, value in record.plan.items() if name != "target_delta"}
    with pytest.raises(ValueError, match="target_delta"):
        prices.price_of(replace(record, plan=short))
