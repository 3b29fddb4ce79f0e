"""A statement says what was priced, what was not, and never claims more than is true."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from dpacc_accounting import (
    Adjacency,
    Gaussian,
    Guarantee,
    Ledger,
    LedgerRecord,
    RandomlyAllocated,
    Repeated,
    epsilon,
    read_ledger,
    statement,
)
from dpacc_accounting.guarantee import rounded_up
from dpacc_accounting.ledger.claims import what_holds

from tests.accounting.ledger.ledgers import PLAN, STEP


def _guarantee(**changes: Any) -> Guarantee:
    fields: dict[str, Any] = {
        "epsilon": 1.99991,
        "delta": 1e-5,
        "adjacency": Adjacency.ADD_OR_REMOVE,
        "unit": "example",
        "method": "pld",
        "slack": 0.0123,
    }
    return Guarantee(**fields | changes)


def _record(folder: Path, *, steps: int = 50, notes: dict[str, str] | None = None) -> LedgerRecord:
    with Ledger.open(path=folder / "ledger.jsonl", plan=PLAN) as ledger:
        for subject, text in (notes or {}).items():
            ledger.note(subject=subject, text=text)
        for step in range(steps):
            ledger.charge(step=step, event=STEP)
    return read_ledger(path=folder / "ledger.jsonl")


def test_a_reviewer_finds_every_assumption() -> None:
    """ε, δ, unit, adjacency, method, slack, sampling, clipping, noise and steps are all stated."""
    words = statement(plan=PLAN, guarantee=_guarantee())
    for fact in (
        "(ε = 2, δ = 1e-05)-differentially private",
        "one example",
        "add-or-remove",
        "PLD",
        "at most 0.0123 lower",
        "probability 100/10000 = 0.01, independently",
        "Poisson",
        "C = 0.5",
        "min(1, C / norm)",
        "σ·C = 0.8 · 0.5 = 0.4",
        "50 steps",
    ):
        assert fact in words


def test_what_is_not_covered_is_said() -> None:
    """The holes that a reader would not think of are listed by name."""
    words = statement(plan=PLAN, guarantee=_guarantee())
    _, _, limits = words.partition("## What it does not cover")
    for hole in (
        "Hyper-parameter tuning",
        "Metrics without noise",
        "Held-out data",
        "Time and machines",
        "pre-training data",
        "Other runs on the same data",
        "Several contributions by one person",
    ):
        assert hole in limits


def test_epsilon_is_never_rounded_down() -> None:
    """The printed ε is at least the true one, whatever its size."""
    for value in (1.00001, 7.99991, 0.0123456, 123.4561, 3.0):
        words = statement(plan=PLAN, guarantee=_guarantee(epsilon=value))
        shown = re.search(r"\(ε = ([^,]+),", words)
        assert shown
        assert value <= float(shown[1]) <= value * 1.001


def test_a_plan_is_a_promise_and_a_ledger_a_fact(tmp_path: Path) -> None:
    """Without a ledger the words speak of what would be released, with one of what was."""
    assert "this plan would release" in statement(plan=PLAN)
    words = statement(plan=PLAN, record=_record(tmp_path, steps=20))
    assert "this run released" in words
    assert "20 of 50 planned steps" in words


def test_the_ledger_is_priced_not_the_plan(tmp_path: Path) -> None:
    """ε is that of the steps really taken, at the plan's δ unless another is asked for."""
    record = _record(tmp_path, steps=20)
    spent, _ = what_holds(plan=PLAN, record=record)
    planned, _ = what_holds(plan=PLAN)
    looser, _ = what_holds(plan=PLAN, record=record, delta=1e-3)
    assert None not in (spent, planned, looser)
    assert spent == epsilon(event=record.event, delta=1e-5)
    assert looser.epsilon < spent.epsilon < planned.epsilon
    assert f"(ε = {rounded_up(spent.epsilon)}, δ = 1e-05)" in statement(plan=PLAN, record=record)


@pytest.mark.parametrize("subject", ["fixed-seed", "not-private"])
def test_a_fixed_seed_voids_the_claim(tmp_path: Path, subject: str) -> None:
    """A run whose noise can be computed again is not private, whatever ε was paid for."""
    record = _record(tmp_path, notes={subject: "the noise came from seed 7"})
    words = statement(plan=PLAN, record=record, guarantee=_guarantee())
    assert "This run is NOT private" in words
    assert "seed 7" in words
    assert "ε =" not in words
    assert "attacker" not in words


def test_no_noise_no_epsilon() -> None:
    """With σ = 0 nothing is claimed, even where a guarantee is handed in."""
    words = statement(plan=PLAN | {"noise_multiplier": 0.0}, guarantee=_guarantee())
    assert "This run is NOT private" in words
    assert "noise multiplier is 0" in words
    assert "ε =" not in words


def test_an_infinite_epsilon_is_no_claim() -> None:
    """An accountant that finds no finite ε leaves no claim standing."""
    words = statement(plan=PLAN, guarantee=_guarantee(epsilon=math.inf, slack=math.inf))
    assert "This run is NOT private" in words
    assert "no finite ε" in words


def test_releases_that_are_not_the_plans_are_told(tmp_path: Path) -> None:
    """A ledger whose releases differ from the plan's mechanism is priced as is, and says so."""
    with Ledger.open(path=tmp_path / "ledger.jsonl", plan=PLAN) as ledger:
        ledger.charge(step=0, event=STEP)
        ledger.charge(step=1, event=Gaussian(noise_multiplier=5.0))
    words = statement(plan=PLAN, record=read_ledger(path=tmp_path / "ledger.jsonl"))
    assert "1 releases are not the plan's step" in words


def test_notes_and_a_torn_end_are_told(tmp_path: Path) -> None:
    """Notes that only qualify the guarantee are listed, as is a line lost in a crash."""
    record = _record(tmp_path, notes={"metrics": "training loss was logged without noise"})
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    words = statement(plan=PLAN, record=read_ledger(path=path))
    assert "Note on metrics: training loss was logged without noise" in words
    assert "tore the last line" in words
    assert record.run in words
    assert "NOT private" not in words


def test_replace_one_is_worded_as_such() -> None:
    """The neighbours are those of the guarantee's own adjacency, and of its unit."""
    words = statement(
        plan=PLAN, guarantee=_guarantee(adjacency=Adjacency.REPLACE_ONE, unit="patient")
    )
    assert "replace-one: datasets of equal size that differ by replacing one patient" in words
    assert (
        "one patient, with all examples that the run was told are its own (their gradients are"
        in words
    )
    assert "must stand in one example" not in words


def test_a_method_without_a_lower_bound_is_told() -> None:
    """RDP states the trivial slack; the words say that nothing is known below ε."""
    words = statement(plan=PLAN, guarantee=_guarantee(method="rdp", slack=1.99991))
    assert "Accountant:** RDP. ε is an upper bound; this method has no lower bound" in words


def test_automatic_clipping_is_worded_as_such() -> None:
    """The scale named is the one that the plan's clipping applies."""
    words = statement(plan=PLAN | {"clipping": "automatic"}, guarantee=_guarantee())
    assert "C / (norm + 0.01)" in words


def test_an_incomplete_plan_is_refused() -> None:
    """A plan that leaves an assumption open cannot be stated; each missing setting is named."""
    with pytest.raises(ValueError, match="lacks adjacency, target_delta, unit"):
        statement(
            plan={k: v for k, v in PLAN.items() if k not in {"unit", "adjacency", "target_delta"}}
        )
    with pytest.raises(ValueError, match="sampling='shuffle'"):
        statement(plan=PLAN | {"sampling": "shuffle"})
    for name, value in (("dataset_size", 0), ("steps", "many"), ("noise_multiplier", -1)):
        with pytest.raises(ValueError, match=f"the plan's {name}={value!r} is not a number"):
            statement(plan=PLAN | {name: value})


def test_epsilon_is_stated_with_and_without_amplification(tmp_path: Path) -> None:
    """Beside the amplified ε stands that of the same noise when every sample is known."""
    bare = epsilon(event=Repeated(event=Gaussian(noise_multiplier=0.8), times=20), delta=1e-5)
    words = statement(plan=PLAN, record=_record(tmp_path, steps=20))
    assert f"the same noise gives ε = {rounded_up(bare.epsilon)} at the same δ" in words
    whole = PLAN | {"expected_batch_size": PLAN["dataset_size"]}
    assert "Amplification by" in words
    assert "Amplification by" not in statement(plan=whole)


def test_random_allocation_is_told_and_priced_as_such() -> None:
    """Exactly one step of an epoch of four, its sources, and what the noise gives without it."""
    plan = PLAN | {"sampling": "allocated", "expected_batch_size": 2500, "steps": 8}
    words = statement(plan=plan)
    assert "An epoch has 4 steps. Each of the 10000 examples is in exactly one of them" in words
    assert "arXiv 2412.16802" in words
    assert "probability 2500/10000" not in words
    event = RandomlyAllocated(steps=4, event=Gaussian(noise_multiplier=0.8))
    priced = epsilon(event=Repeated(event=event, times=2), delta=PLAN["target_delta"])
    assert f"(ε = {rounded_up(priced.epsilon)}, δ = 1e-05)" in words
    known = epsilon(
        event=Repeated(event=Gaussian(noise_multiplier=0.8), times=2), delta=PLAN["target_delta"]
    )
    assert f"the same noise gives ε = {rounded_up(known.epsilon)}" in words
    with pytest.raises(ValueError, match="priced under 'add-or-remove'"):
        statement(plan=plan | {"adjacency": "replace-one"})


def test_books_of_another_mechanism_are_not_taken_for_training_that_lacks_settings(
    tmp_path: Path,
) -> None:
    """A ledger of counts is named as what it is, with the command that prices it."""
    plan = {"mechanism": "counts of labels", "unit": "example", "adjacency": "add-or-remove"}
    path = tmp_path / "ledger.jsonl"
    Ledger.open(path=path, plan={**plan, "target_delta": 1e-5}).close()
    record = read_ledger(path=path)
    with pytest.raises(ValueError, match=r"books are of counts of labels, .*'dpacc spend'"):
        statement(plan=record.plan, record=record)


@pytest.mark.parametrize("missing", [{"unit_cap": None}, {"adjacency": "replace-one"}])
def test_samples_of_examples_are_refused_without_what_prices_them(missing: dict[str, Any]) -> None:
    """A document that names no bound on a unit's examples, or other neighbours, has no price."""
    plan = PLAN | {"sampling": "examples", "unit": "patient", "unit_cap": 4}
    assert "Of each patient at most 4 examples are kept" in statement(plan=plan)
    told = {name: value for name, value in (plan | missing).items() if value is not None}
    with pytest.raises(ValueError, match="needs unit_cap"):
        statement(plan=told)
