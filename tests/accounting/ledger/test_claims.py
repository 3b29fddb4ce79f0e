"""One place says what may be claimed of a run, and what an attacker gains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dpacc_accounting import (
    Gaussian,
    Ledger,
    LedgerError,
    PoissonSampled,
    Repeated,
    Selected,
    attack_risk,
    epsilon,
    read_ledger,
    statement,
)
from dpacc_accounting.attacks.tradeoff import advantage_bound, detection_bound
from dpacc_accounting.guarantee import Note
from dpacc_accounting.ledger.claims import attack_bounds, claim_of, what_holds

from tests.accounting.ledger.ledgers import PLAN, STEP

SST2: dict[str, Any] = PLAN | {
    "dataset_size": 67_349,
    "expected_batch_size": 256,
    "steps": 790,
    "noise_multiplier": 0.464,
    "target_epsilon": 8.0,
}


def test_explain_states_what_attack_risk_finds() -> None:
    """8.9% at 1% false alarms of a plan at ε = 8, where the pair (ε, δ) would allow 99.97%."""
    step = PoissonSampled(probability=256 / 67_349, event=Gaussian(noise_multiplier=0.464))
    event = Repeated(event=step, times=790)
    exact = attack_risk(event=event, false_positives=0.01)
    assert exact.true_positives == pytest.approx(0.089, abs=1e-3)
    words = statement(plan=SST2)
    assert "a true-positive rate of at most 8.895%" in words
    assert "at most 26.3 percentage points" in words
    assert detection_bound(guarantee=epsilon(event=event, delta=1e-5), false_alarms=0.01) > 0.999


def test_a_claim_that_covers_more_is_taken_at_its_word() -> None:
    """A guarantee larger than the event's own price is bounded by its (ε, δ) alone."""
    event = Repeated(event=STEP, times=50)
    own = epsilon(event=event, delta=1e-5)
    larger = replace(own, epsilon=own.epsilon + 2)
    found = attack_bounds(event=event, claim=larger)
    assert found is not None
    assert found.true_positives == detection_bound(guarantee=larger, false_alarms=0.01)
    assert found.advantage == advantage_bound(guarantee=larger)
    by_curve = attack_bounds(event=event, claim=own)
    assert by_curve is not None
    assert by_curve.advantage < found.advantage


@pytest.mark.parametrize("false_positives", [0.0, 0.01, 0.5, 1.0])
def test_bounds_are_the_least_of_curve_and_pair(false_positives: float) -> None:
    """Neither alone is always the better: a search's curve says nothing, its pair does."""
    search = Selected(event=Repeated(event=STEP, times=50), mean_runs=10, shape=1.0)
    claim = epsilon(event=search, delta=1e-5)
    found = attack_bounds(event=search, claim=claim, false_positives=false_positives)
    assert found is not None
    assert found.true_positives <= detection_bound(guarantee=claim, false_alarms=false_positives)
    assert found.advantage < 1


def test_nothing_is_bounded_where_nothing_is_claimed() -> None:
    """Beside a fixed seed there is no bound on attacks."""
    claim = epsilon(event=STEP, delta=1e-5).noted([Note("fixed-seed", "seed 7")])
    assert attack_bounds(event=STEP, claim=claim) is None


def _ledger(path: Path, plan: dict[str, Any]) -> Path:
    ledger = Ledger.open(path=path, plan=plan)
    ledger.charge(step=0, event=STEP)
    ledger.close()
    return path


def test_settings_beside_a_ledger_are_said(tmp_path: Path) -> None:
    """What the first line lacks can be given beside it; the claim and the statement say so."""
    with pytest.warns(UserWarning, match="add them now"):
        path = _ledger(tmp_path / "ledger.jsonl", {"steps": 1, "unit": "example"})
    record = read_ledger(path=path)
    with pytest.raises(
        ValueError, match=r"the ledger's plan lacks adjacency, .*completed\(settings"
    ):
        claim_of(plan=record.plan, record=record)
    whole = record.completed(settings={k: v for k, v in PLAN.items() if k != "steps"})
    claim = claim_of(plan=whole.plan, record=whole)
    assert claim.epsilon == epsilon(event=STEP, delta=1e-5).epsilon
    assert "given beside it" in claim.qualified_by[0]
    assert "unit" not in claim.qualified_by[0]
    assert "given beside it" in statement(plan=whole.plan, record=whole)
    with pytest.raises(LedgerError, match="unit='example', not 'patient'"):
        record.completed(settings={"unit": "patient"})


def test_a_plan_that_contradicts_the_ledger_is_refused(tmp_path: Path) -> None:
    """The words speak of the ledger's own plan, whatever plan is handed in beside it."""
    record = read_ledger(path=_ledger(tmp_path / "ledger.jsonl", PLAN))
    with pytest.raises(ValueError, match="unit='patient' and the ledger 'example'"):
        statement(plan=PLAN | {"unit": "patient"}, record=record)


def test_few_settings_price_a_ledger(tmp_path: Path) -> None:
    """Unit, adjacency and δ suffice; the releases say the rest."""
    few = {name: PLAN[name] for name in ("unit", "adjacency", "target_delta")}
    record = read_ledger(path=_ledger(tmp_path / "ledger.jsonl", few))
    found, faults = what_holds(plan=record.plan, record=record)
    assert faults == []
    assert found == epsilon(event=STEP, delta=1e-5)


def test_what_was_read_off_the_data_and_its_size_are_said() -> None:
    """Set-up statistics are not covered, and N is public wherever add-or-remove stands."""
    words = statement(plan=PLAN)
    limits = words.partition("## What it does not cover")[2]
    for each in ("Class weights", "vocabularies", "label names", "normalisation", "length caps"):
        assert each in limits
    (adjacency,) = [line for line in words.splitlines() if "**Adjacency:**" in line]
    assert "adding or removing one example" in adjacency
    assert "N = 10000 is nevertheless printed here" in adjacency
    assert "treated as public" in adjacency
    replaced = statement(plan=PLAN | {"adjacency": "replace-one"})
    assert "nevertheless" not in replaced
