"""A search keeps the budget as a whole, and draws its trials as the accountant assumes."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from dpacc_accounting import epsilon

from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan
from dpacc.search.private_search import PrivateSearch

PLAN = PrivacyPlan.calibrate(
    dataset_size=5000,
    expected_batch_size=250,
    steps=60,
    target_epsilon=4.0,
    target_delta=1e-5,
    max_grad_norm=1.0,
)


@pytest.mark.parametrize("mean_trials", [1, 3, 20])
def test_the_whole_search_keeps_the_budget(mean_trials: float) -> None:
    """The price of the selected run meets ε; more trials need more noise; one trial is a run."""
    search = PrivateSearch.calibrate(plan=PLAN, mean_trials=mean_trials)
    found = search.guarantee()
    assert 3.99 < found.epsilon <= 4.0
    assert found.delta == PLAN.target_delta
    one = search.plan.event(steps=search.plan.steps)
    alone = epsilon(event=one, delta=PLAN.target_delta).epsilon
    assert alone == pytest.approx(4.0, rel=2e-3) if mean_trials == 1 else alone < 3.9


def test_the_number_of_trials_is_geometric() -> None:
    """Its mean and its share of single trials are those of the law, within 5 standard errors."""
    search = PrivateSearch(plan=PLAN, mean_trials=4.0)
    counts = [len(search.draw_trials("ab")) for _ in range(20_000)]
    assert sum(counts) / 20_000 == pytest.approx(4.0, abs=5 * math.sqrt(12 / 20_000))
    ones = sum(count == 1 for count in counts) / 20_000
    assert ones == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 20_000))


def test_every_setting_is_as_likely() -> None:
    """No trial depends on an earlier one's settings, nor favours any."""
    search = PrivateSearch(plan=PLAN, mean_trials=2.0)
    drawn = Counter(choice for _ in range(10_000) for choice in search.draw_trials("abcd"))
    total = sum(drawn.values())
    for choice in "abcd":
        assert drawn[choice] / total == pytest.approx(0.25, abs=5 * math.sqrt(0.1875 / total))


def test_what_cannot_be_searched_is_refused() -> None:
    """No budget, fewer than one trial, or no settings: each is said."""
    with pytest.raises(ConfigurationError, match="at least 1"):
        PrivateSearch.calibrate(plan=PLAN, mean_trials=0.5)
    with pytest.raises(ConfigurationError, match="settings to choose from"):
        PrivateSearch(plan=PLAN, mean_trials=2).draw_trials([])
