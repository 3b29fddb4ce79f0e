"""How many examples of one person count, and which: a draw that nobody's data has a part in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dpacc_accounting import MixtureOfGaussians, read_ledger, statement
from scipy import stats

from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan
from dpacc.randomness.run_secret import RunSecret
from dpacc.step.unit_members import Members
from tests.dpacc.step.engine_runs import noiseless, prepared, taken
from tests.tiny_models import collate, examples

UNITS = [[0, 3, 4, 6, 7], [1], [2, 5]]


def members(*, cap: int | None, singly: bool = False, seed: int = 0) -> Members:
    return Members(of_units=UNITS, cap=cap, singly=singly, secret=RunSecret.from_fixed_seed(seed))


def test_each_step_takes_other_examples_of_a_unit() -> None:
    """At most two of each, ascending, and over many steps each of five as often as the others."""
    drawn = members(cap=2)
    taken: Counter[int] = Counter()
    for step in range(500):
        for unit, owned in enumerate(UNITS):
            kept = list(drawn.in_step(unit, step=step))
            assert len(kept) == min(2, len(owned))
            assert set(kept) <= set(owned)
            assert kept == sorted(kept)
            assert kept == list(drawn.in_step(unit, step=step))
        taken.update(drawn.in_step(0, step=step))
    assert stats.chisquare([taken[i] for i in UNITS[0]]).pvalue > 1e-3
    assert len(drawn) == 3


def test_without_a_cap_or_below_it_all_count() -> None:
    """A unit that owns no more than the cap is whole in every step."""
    for cap in (None, 5, 9):
        assert [list(members(cap=cap).in_step(u, step=3)) for u in range(3)] == UNITS


def test_kept_examples_are_drawn_one_by_one_and_hold_for_the_run() -> None:
    """Singly, two of five, one of one and two of two are kept, the same in each step."""
    for seed in range(20):
        drawn = members(cap=2, singly=True, seed=seed)
        kept = [list(drawn.in_step(number, step=0)) for number in range(len(drawn))]
        assert kept == [list(drawn.in_step(number, step=7)) for number in range(len(drawn))]
        flat = [example for (example,) in kept]
        assert flat == sorted(flat)
        assert [len(set(flat) & set(owned)) for owned in UNITS] == [2, 1, 2]


def test_which_are_kept_is_as_likely_for_all() -> None:
    """Over secrets, each of five examples is kept in two of five runs."""
    kept: Counter[int] = Counter()
    for seed in range(500):
        drawn = members(cap=2, singly=True, seed=seed)
        kept.update(drawn.in_step(number, step=0)[0] for number in range(len(drawn)))
    assert stats.chisquare([kept[i] for i in UNITS[0]]).pvalue > 1e-3


def test_nobody_elses_examples_have_a_part_in_it() -> None:
    """The choice among a unit's places is the same whoever owns the other places."""
    secret = RunSecret.from_fixed_seed(5)
    others = [[[1, 2, 5]], [[1], [2], [5]], [[2, 5], [1]]]
    chosen = {
        tuple(
            Members(of_units=[UNITS[0], *rest], cap=2, singly=False, secret=secret).in_step(
                0, step=4
            )
        )
        for rest in others
    }
    assert len(chosen) == 1


def total(
    keep: list[int], ledger: Path, *, steps: int = 1, **changes: Any
) -> tuple[torch.Tensor, PrivacyPlan]:
    """The clipped sum of each step without noise, everybody and everything being drawn."""
    data = examples([5, 7, 6, 9, 4, 8, 3, 11])
    users = ["ann", "bob", "eve", "ann", "ann", "eve", "ann", "ann"]
    owned = Counter(users[i] for i in keep)
    cap = changes["unit_cap"]
    singly = changes.get("sampling") == "examples"
    size = sum(min(n, cap) for n in owned.values()) if singly else len(owned)
    plan = noiseless(size, steps=steps, max_grad_norm=0.05, unit="user", **changes)
    engine, model, optimizer = prepared(plan, ledger, micro_batch_tokens=30)
    taken(engine, model, [data[i] for i in keep], units=[users[i] for i in keep])
    return torch.stack(optimizer.received) * plan.expected_batch_size, plan


def test_a_capped_user_weighs_at_most_c(ledgers: Iterator[Path]) -> None:
    """ULS: whoever owns five examples moves the sum by C; which two count changes by the step."""
    everyone, _ = total(list(range(8)), next(ledgers), steps=3, unit_cap=2)
    without, _ = total([1, 2, 5], next(ledgers), steps=3, unit_cap=2)
    moved = (everyone - without).norm(dim=1)
    assert bool((moved <= 0.05 * (1 + 1e-5)).all())
    assert bool((moved > 0.5 * 0.05).all())
    assert not torch.allclose(everyone[0], everyone[1], rtol=1e-3)


def test_a_user_whose_examples_are_drawn_weighs_at_most_k_times_c(ledgers: Iterator[Path]) -> None:
    """ELS: five alike examples of one user move the sum by C each, and no more than two count."""
    everyone, plan = total(list(range(8)), next(ledgers), unit_cap=2, sampling="examples")
    without, _ = total([1, 2, 5], next(ledgers), unit_cap=2, sampling="examples")
    moved = float((everyone - without).norm())
    assert 0.05 < moved <= 2 * 0.05 * (1 + 1e-5)
    assert plan.dataset_size == 5


def test_the_ledger_charges_all_of_a_users_examples(ledgers: Iterator[Path]) -> None:
    """Each step costs the mixture of 0, 1 and 2 examples, and the statement says whose it is."""
    ledger = next(ledgers)
    _, plan = total(list(range(8)), ledger, steps=2, unit_cap=2, sampling="examples")
    record = read_ledger(path=ledger)
    for release in record.releases:
        assert isinstance(release.event, MixtureOfGaussians)
        assert release.event == plan.charge(release.step)
        assert release.event.sensitivities == (0.0, 1.0, 2.0)
    calibrated = PrivacyPlan.calibrate(
        dataset_size=500,
        expected_batch_size=50,
        steps=20,
        target_epsilon=4.0,
        target_delta=1e-4,
        max_grad_norm=1.0,
        unit="user",
        unit_cap=4,
        sampling="examples",
    )
    told = statement(plan=calibrated.to_json())
    assert "Of each user at most 4 examples are kept" in told
    assert "Each drawn example's own gradient" in told
    assert calibrated.guarantee().epsilon <= 4.0
    assert PrivacyPlan.from_json(calibrated.to_json()) == calibrated
    units = PrivacyPlan.from_json({**calibrated.to_json(), "sampling": "poisson"})
    assert "at most 4 of its examples, drawn for the step," in statement(plan=units.to_json())
    assert units.guarantee().epsilon < calibrated.guarantee().epsilon


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unit_cap": 2}, "say what a unit is"),
        ({"unit_cap": 0, "unit": "user"}, "unit_cap=0 must be an integer of at least 1"),
        ({"sampling": "examples", "unit": "user"}, "needs unit_cap"),
        (
            {"sampling": "examples", "unit": "user", "unit_cap": 2, "adjacency": "replace-one"},
            "priced for 'add-or-remove'",
        ),
        (
            {"sampling": "examples", "unit": "user", "unit_cap": 2, "noise": "discrete_gaussian"},
            "and 'gaussian'",
        ),
    ],
)
def test_plans_that_bound_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    """A cap without owners, owners without a cap, and what has no price, each with the remedy."""
    with pytest.raises(ValueError, match=message):
        noiseless(10, **changes)


def test_owners_must_be_told_and_fit_the_plan(ledgers: Iterator[Path]) -> None:
    """A bound needs `units=`; N counts what is kept."""
    data = examples([5, 7, 6])
    engine, _, _ = prepared(noiseless(3, unit="user", unit_cap=1), next(ledgers))
    with pytest.raises(ConfigurationError, match="say whose each example is with units="):
        next(engine.steps(data, collate))
    plan = noiseless(3, unit="user", unit_cap=1, sampling="examples")
    engine, _, _ = prepared(plan, next(ledgers))
    with pytest.raises(ConfigurationError, match="2 examples, at most 1 of a user, and the plan"):
        next(engine.steps(data, collate, units=["ann", "bob", "ann"]))


def test_the_draw_is_a_secret_one() -> None:
    """Other secrets, other examples: no public number says which of a user's count."""
    chosen = {tuple(members(cap=2, seed=seed).in_step(0, step=0)) for seed in range(30)}
    assert len(chosen) > 5
    assert np.prod([len(each) for each in chosen]) == 2 ** len(chosen)
