"""The engine with random allocation: draws, books and resumes are those that were priced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from dpacc_accounting import Adjacency, RandomlyAllocated, Repeated, epsilon, read_ledger, statement

from dpacc.plan import PrivacyPlan
from tests.dpacc.step.engine_runs import (
    LENGTHS,
    losses_without,
    plan_for,
    prepared,
    received,
    steps_after_a_kill,
    updated,
)
from tests.tiny_models import examples

SIZE = len(LENGTHS)
EPOCH = 4


def allocated(**changes: object) -> PrivacyPlan:
    shared = {"expected_batch_size": 3, "steps": 10, "sampling": "allocated"}
    return plan_for(SIZE, **{**shared, **changes})


@pytest.mark.parametrize("changes", [{}, {"clipping": "adaptive"}, {"noise": "discrete_gaussian"}])
def test_neighbours_differ_in_one_step_of_each_epoch_by_at_most_c(
    ledgers: Iterator[Path], changes: dict[str, object]
) -> None:
    """One of three examples left out: a sum of four moves, epoch after epoch, and by C at most."""
    changes = {"steps": 8, "quantile_learning_rate": 0.0, **changes}
    if "noise" in changes:
        plan = allocated(noise_multiplier=1e-6, **changes)
    else:
        plan = allocated(noise_multiplier=0.0, allow_no_privacy=True, **changes)
    data = examples(LENGTHS)
    whole = received(plan, data, next(ledgers))
    places = set()
    for left_out in (0, 4, 7):
        rest = received(plan, data, next(ledgers), losses=losses_without(data[left_out]))
        difference = whole - rest
        moved = difference.norm(dim=1).numpy() / plan.max_grad_norm
        assert (moved <= 1 + 1e-3).all()
        assert [(moved[at : at + EPOCH] > 1e-3).sum() for at in (0, EPOCH)] == [1, 1]
        places.add(tuple(np.flatnonzero(moved > 1e-3) % EPOCH))
    assert any(first != second for first, second in places)


def test_the_books_hold_epochs_and_are_right_after_every_step(tmp_path: Path) -> None:
    """The first step of an epoch pays for it, the last epoch for the two steps that it has."""
    plan = allocated(noise_multiplier=2.0)
    engine, model, _ = prepared(plan, tmp_path / "ledger.jsonl", seed=None)
    spent = []
    for done, _ in enumerate(updated(engine, model, examples(LENGTHS)), start=1):
        record = read_ledger(path=engine.ledger)
        priced = epsilon(event=record.event, delta=plan.target_delta)
        assert priced == engine.guarantee() == plan.guarantee(steps=done)
        spent.append(priced.epsilon)
    engine.close()
    assert [release.step for release in record.releases] == list(range(10))
    assert [spent.index(each) for each in dict.fromkeys(spent)] == [0, 4, 8]
    said = statement(plan=record.plan, record=record)
    assert "An epoch has 4 steps" in said
    assert "random allocation" in said
    assert "not the plan's step" not in said


@pytest.mark.parametrize(("killed_after", "goes_on_at"), [(1, 4), (4, 4), (6, 8)])
def test_a_new_process_waits_for_the_next_epoch(
    tmp_path: Path, killed_after: int, goes_on_at: int
) -> None:
    """Its secret allocates anew: in the rest of the epoch a unit might be a second time."""
    plan = allocated(noise_multiplier=2.0)
    ledger = tmp_path / "ledger.jsonl"
    went_on = steps_after_a_kill(plan, ledger, killed_after=killed_after)
    assert went_on == list(range(goes_on_at, 10))
    spent = epsilon(event=read_ledger(path=ledger).event, delta=plan.target_delta).epsilon
    assert spent == plan.guarantee().epsilon


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"adjacency": Adjacency.REPLACE_ONE}, "priced under 'add-or-remove'"),
        ({"noise_coefficients": (0.8, 0.6)}, "takes sampling='cyclic-poisson'"),
        ({"sampling": "shuffled"}, "must be one of .*allocated"),
    ],
)
def test_a_plan_that_has_no_price_is_refused(wrong: dict[str, object], told: str) -> None:
    """Each by the setting at fault, with the remedy."""
    with pytest.raises(ValueError, match=told):
        allocated(**wrong)


def test_a_plan_survives_its_document_and_is_another_than_poissons() -> None:
    """The way of drawing is in JSON and in the fingerprint, by which ranks and resumes agree."""
    plan = allocated()
    assert PrivacyPlan.from_json(plan.to_json()) == plan
    assert plan.fingerprint != allocated(sampling="poisson").fingerprint
    assert plan.next_start(steps_charged=9) == 10


def test_a_calibrated_plan_keeps_its_budget_over_whole_epochs() -> None:
    """Two epochs of four steps, though 2·10/3 are seven; correlated noise beside it is refused."""
    asked = {"dataset_size": 1000, "expected_batch_size": 300, "target_epsilon": 4.0}
    shared = {**asked, "target_delta": 1e-4, "max_grad_norm": 1.0, "epochs": 2}
    plan = PrivacyPlan.calibrate(**shared, sampling="allocated")  # type: ignore[arg-type]
    assert (plan.steps, plan.sampling) == (8, "allocated")
    assert 3.99 < plan.guarantee().epsilon <= 4.0
    event = plan.event()
    assert isinstance(event, Repeated)
    assert isinstance(event.event, RandomlyAllocated)
    poisson = PrivacyPlan.calibrate(**shared)  # type: ignore[arg-type]
    assert plan.noise_multiplier < 0.9 * poisson.noise_multiplier
    for wrong, told in (
        ({"correlation": "banded"}, "side by side"),
        ({"sampling": "shuffled"}, "must be one of"),
        ({"adjacency": Adjacency.REPLACE_ONE}, "add-or-remove"),
    ):
        with pytest.raises(ValueError, match=told):
            PrivacyPlan.calibrate(**{**shared, "sampling": "allocated", **wrong})  # type: ignore[arg-type]
