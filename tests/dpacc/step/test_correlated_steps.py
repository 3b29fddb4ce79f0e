"""The engine with correlated noise: turns, noise, books and resumes are those that were priced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from dpacc_accounting import CyclicPoissonSampled, epsilon, read_ledger, statement

from dpacc.doctor.statistics import noise_finding, uncorrelated
from dpacc.plan import PrivacyPlan
from dpacc.randomness import sampling
from tests.dpacc.step.engine_runs import (
    LENGTHS,
    losses_without,
    noiseless,
    plan_for,
    prepared,
    received,
    steps_after_a_kill,
    taken,
    updated,
)
from tests.tiny_models import examples

COLUMN = (0.75, 0.5, 0.3)
TURNS = {"sampling": "cyclic-poisson", "noise_coefficients": COLUMN, "steps": 7}
SIZE = len(LENGTHS)


def banded(**changes: object) -> PrivacyPlan:
    return plan_for(SIZE, **{"expected_batch_size": 3, **TURNS, **changes})


def test_the_noise_is_the_inverse_of_what_was_charged(tmp_path: Path) -> None:
    """What a run without noise lacks, C times it, is fresh, Gaussian and of scale σC."""
    plan = banded(steps=12)
    clean = banded(steps=12, noise_multiplier=0.0, allow_no_privacy=True)
    data = examples(LENGTHS)
    noise = received(plan, data, tmp_path / "a") - received(clean, data, tmp_path / "b")
    spread = plan.noise_multiplier * plan.max_grad_norm
    restored = uncorrelated(noise=noise.numpy(), coefficients=COLUMN)
    assert noise_finding(noise=restored, standard_deviation=spread).healthy
    assert not noise_finding(noise=noise.numpy(), standard_deviation=spread).healthy


@pytest.mark.parametrize("clipping", ["flat", "adaptive"])
def test_neighbours_whole_sequences_differ_by_what_was_charged(
    ledgers: Iterator[Path], clipping: str
) -> None:
    """‖C·(G − G′)‖ is at most C·√turns in every step's norm, for every second one left out."""
    column = (0.8, 0.6)
    changes = {"noise_coefficients": column, "expected_batch_size": 5, "clipping": clipping}
    plan = banded(noise_multiplier=0.0, allow_no_privacy=True, **changes)
    if clipping == "adaptive":
        # C stays, so that both runs are compared at one.
        plan = banded(
            noise_multiplier=0.0, allow_no_privacy=True, quantile_learning_rate=0.0, **changes
        )
    data = examples(LENGTHS)
    whole = received(plan, data, next(ledgers))
    turns = plan.participation.event(steps=plan.steps)
    assert isinstance(turns, CyclicPoissonSampled)
    moved_at_all = 0
    for left_out in range(0, SIZE, 2):
        rest = received(plan, data, next(ledgers), losses=losses_without(data[left_out]))
        difference = whole - rest
        image = uncorrelated(noise=difference.numpy(), coefficients=column)
        most = plan.max_grad_norm * turns.turns**0.5
        norm = float((image**2).sum() ** 0.5)
        assert norm <= most * (1 + 1e-4)
        moved_at_all += norm > 0.4 * plan.max_grad_norm
    assert moved_at_all >= SIZE // 4


def test_the_books_hold_cycles_and_are_right_after_every_step(tmp_path: Path) -> None:
    """The first step of a cycle pays; ε after any step is that of the worst group, as stated."""
    plan = banded(noise_multiplier=2.0)
    engine, model, _ = prepared(plan, tmp_path / "ledger.jsonl", seed=None)
    for done, _ in enumerate(updated(engine, model, examples(LENGTHS)), start=1):
        record = read_ledger(path=engine.ledger)
        priced = epsilon(event=record.event, delta=plan.target_delta)
        assert priced == engine.guarantee() == plan.guarantee(steps=done)
    engine.close()
    assert [release.step for release in record.releases] == list(range(7))
    said = statement(plan=record.plan, record=record)
    assert "cyclic Poisson sampling" in said
    assert "3·3/10 = 0.9" in said
    assert "first column is 0.75, 0.5, 0.3" in said
    assert "not the plan's step" not in said


@pytest.mark.parametrize(("killed_after", "goes_on_at"), [(1, 3), (3, 3), (4, 6)])
def test_a_new_process_begins_a_cycle_of_its_own(
    tmp_path: Path, killed_after: int, goes_on_at: int
) -> None:
    """Its secret draws other groups: it waits for the next cycle, so that ε stays the plan's."""
    plan = banded(noise_multiplier=2.0)
    ledger = tmp_path / "ledger.jsonl"
    went_on = steps_after_a_kill(plan, ledger, killed_after=killed_after)
    assert went_on == list(range(goes_on_at, 7))
    spent = epsilon(event=read_ledger(path=ledger).event, delta=plan.target_delta).epsilon
    assert spent <= plan.guarantee().epsilon


def test_a_new_process_correlates_with_nothing_before_it(tmp_path: Path) -> None:
    """C is block-diagonal over secrets: the first row after a kill is z / c_0 and no more."""
    plan = banded(noise_multiplier=2.0)
    ledger, data = tmp_path / "ledger.jsonl", examples(LENGTHS)
    engine, model, before = prepared(plan, ledger, seed=1)
    taken(engine, model, data, at_most=4)
    engine, model, after = prepared(plan, ledger, seed=2)
    taken(engine, model, data)
    engine, model, whole = prepared(plan, tmp_path / "other.jsonl", seed=2)
    taken(engine, model, data)
    assert len(before.received) == 4
    assert not torch.equal(after.received[0], whole.received[6])
    fresh = sampling.RunSecret.from_fixed_seed(2)
    from dpacc.randomness.gaussian_noise import standard_normals

    clean = received(noiseless(SIZE, expected_batch_size=3, **TURNS), data, tmp_path / "c", seed=2)[
        6
    ]
    scale = plan.noise_multiplier * plan.max_grad_norm
    drawn = standard_normals(secret=fresh, step=6, count=len(clean)) / COLUMN[0] * scale
    seen = after.received[0] * plan.expected_batch_size - clean
    assert torch.allclose(seen, torch.from_numpy(drawn), atol=1e-4 * scale)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"sampling": "poisson"}, "takes sampling='cyclic-poisson'"),
        ({"noise_coefficients": (1.0,)}, "independent noise 'poisson'"),
        ({"noise_coefficients": (0.9, 0.6)}, "add up to at most 1"),
        ({"noise_coefficients": (0.0, 1.0)}, "first is above 0"),
        ({"noise_coefficients": (0.5, float("nan"))}, "no numbers"),
        ({"noise_coefficients": ()}, "no numbers"),
        ({"expected_batch_size": 4}, "do not fit"),
        ({"steps": 2}, "do not fit"),
        ({"noise": "discrete_gaussian"}, "not drawn on a grid"),
        ({"sampling": "shuffled"}, "must be one of"),
    ],
)
def test_a_plan_that_promises_what_is_not_so_is_refused(
    wrong: dict[str, object], told: str
) -> None:
    """Each by the setting at fault, with the remedy."""
    with pytest.raises(ValueError, match=told):
        banded(**wrong)


def test_a_plan_survives_its_document_and_older_ones_stay_as_they_are() -> None:
    """Coefficients are in JSON and in the fingerprint; a plan without any looks as it did."""
    plan = banded()
    assert PrivacyPlan.from_json(plan.to_json()) == plan
    assert plan.fingerprint != banded(noise_coefficients=(0.75, 0.5, 0.29)).fingerprint
    assert "noise_coefficients" not in plan_for(SIZE).to_json()


def test_a_calibrated_plan_keeps_its_budget_with_less_noise_in_the_end() -> None:
    """As many bands as were asked for, or the best number; ε is the target's, from below."""
    asked = {"dataset_size": 8192, "expected_batch_size": 128, "steps": 128, "target_epsilon": 8.0}
    shared = {**asked, "target_delta": 1e-5, "max_grad_norm": 1.0, "correlation": "banded"}
    plan = PrivacyPlan.calibrate(**shared, bands=4)  # type: ignore[arg-type]
    assert (plan.bands, plan.sampling) == (4, "cyclic-poisson")
    assert 7.99 < plan.guarantee().epsilon <= 8.0
    assert PrivacyPlan.calibrate(**shared).bands == 64  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="correlation='banded'"):
        PrivacyPlan.calibrate(**{**shared, "correlation": "none"}, bands=4)  # type: ignore[arg-type]
