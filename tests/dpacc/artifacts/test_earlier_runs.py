"""A second run of one name says what both cost, and one that can be resumed is offered."""

from __future__ import annotations

from pathlib import Path

import pytest
from dpacc_accounting import Ledger, epsilon
from dpacc_accounting.ledger.record import LedgerError

from dpacc.artifacts.earlier_runs import (
    begin_run,
    cost_with_earlier_runs,
    finished_run,
    run_to_go_on,
    spent_by_client,
)
from dpacc.errors import ConfigurationError
from dpacc.plan import PrivacyPlan
from dpacc.recipe.config import TrainingConfig

PLAN = PrivacyPlan(
    dataset_size=100,
    expected_batch_size=10,
    steps=4,
    noise_multiplier=1.0,
    max_grad_norm=1.0,
    target_delta=1e-4,
)


def spend(folder: Path, *, steps: int, plan: PrivacyPlan = PLAN, note: str | None = None) -> None:
    folder.mkdir(parents=True)
    with Ledger.open(path=folder / "ledger.jsonl", plan=plan.to_json()) as ledger:
        if note is not None:
            ledger.note(subject=note, text="it was noted")
        for step in range(steps):
            ledger.charge(step=step, event=plan.charge(step))


def test_all_runs_of_one_name_are_priced_together(tmp_path: Path) -> None:
    """Two ledgers of 4 and 2 steps and a plan of 4 cost what 10 steps cost."""
    spend(tmp_path / "run", steps=4)
    spend(tmp_path / "run-2", steps=2)
    together = epsilon(event=PLAN.event(steps=10), delta=1e-4)
    said: list[str] = []
    folder = begin_run(output_dir=tmp_path, name="run", plan=PLAN, say=said.append)
    assert folder == tmp_path / "run-3"
    (told,) = said
    assert told.startswith(f"{tmp_path}/run and {tmp_path}/run-2 have spent a budget already")
    assert told.endswith(f": {together}")


def test_nothing_is_said_where_nothing_was_spent(tmp_path: Path) -> None:
    """No folder, one without a ledger, and one whose ledger has no release."""
    assert cost_with_earlier_runs(output_dir=tmp_path, name="run", plan=PLAN) is None
    (tmp_path / "run").mkdir()
    spend(tmp_path / "run-2", steps=0)
    assert cost_with_earlier_runs(output_dir=tmp_path, name="run", plan=PLAN) is None


def test_a_run_that_can_go_on_is_offered_and_no_second_budget_spent(tmp_path: Path) -> None:
    """A job that is queued again would else begin anew: its checkpoints say where it stands."""
    spend(tmp_path / "run", steps=2)
    (tmp_path / "run/checkpoints").mkdir()
    with pytest.raises(ConfigurationError, match=r"2 of 4 steps: go on with --resume .*/run, or"):
        begin_run(output_dir=tmp_path, name="run", plan=PLAN, say=print)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    begin_run(output_dir=tmp_path, name="other", plan=PLAN, say=print)


def test_what_qualifies_an_earlier_run_stands_beside_the_sum(tmp_path: Path) -> None:
    """The notes of all ledgers, each with its run; of two that say the same, both."""
    for name, note in (("run", "whitening"), ("run-2", None), ("run-3", "non-private-metrics")):
        spend(tmp_path / name, steps=4, note=note)
    told = cost_with_earlier_runs(output_dir=tmp_path, name="run", plan=PLAN)
    assert told is not None
    assert "add-or-remove adjacency, unit: example, PLD; qualified: " in told
    for name, spoken in (("run", True), ("run-2", False), ("run-3", True)):
        assert (f"{tmp_path / name}: it was noted" in told) is spoken


def test_a_run_without_privacy_leaves_no_sum_and_says_why(tmp_path: Path) -> None:
    """Whoever's data a run by a fixed seed used has no guarantee, whatever else is run on it."""
    spend(tmp_path / "run", steps=4, note="fixed-seed")
    spend(tmp_path / "run-2", steps=4, note="whitening")
    told = cost_with_earlier_runs(output_dir=tmp_path, name="run", plan=PLAN)
    assert told is not None
    assert "ε = " not in told
    assert f"NOT private, no ε may be claimed: {tmp_path / 'run'}: it was noted" in told


def test_costs_that_cannot_be_added_are_named_without_a_number(tmp_path: Path) -> None:
    """Another privacy unit: no one ε covers both."""
    spend(tmp_path / "run", steps=4, plan=PrivacyPlan.from_json(PLAN.to_json() | {"unit": "ward"}))
    told = cost_with_earlier_runs(output_dir=tmp_path, name="run", plan=PLAN)
    assert told is not None
    assert told.endswith("run has spent a budget already, whose costs add to this run's")


def test_a_clients_earlier_federations_are_priced_together(tmp_path: Path) -> None:
    """Together, alone and pooled ledgers of 4, 2 and 3 steps cost what 9 cost; others' none."""
    spend(tmp_path / "fed/north", steps=4)
    spend(tmp_path / "fed/alone/north/north", steps=2)
    spend(tmp_path / "fed-2/pooled/everything", steps=3)
    spend(tmp_path / "fed/south", steps=4)
    (tmp_path / "fed-2").mkdir(exist_ok=True)
    told = spent_by_client(output_dir=tmp_path, name="fed", client="north")
    assert told is not None
    assert told.startswith("north: 3 ledgers")
    cost = epsilon(event=PLAN.event(steps=9), delta=1e-4).epsilon
    shown = float(told.split("ε = ")[1].split(",")[0].split()[0])
    assert cost <= shown < cost * 1.001
    assert spent_by_client(output_dir=tmp_path, name="other", client="north") is None


def test_a_void_ledger_gives_a_client_no_price(tmp_path: Path) -> None:
    """Noise that came from a fixed seed protects nothing, so no ε is said."""
    spend(tmp_path / "fed/north", steps=4, note="fixed-seed")
    told = spent_by_client(output_dir=tmp_path, name="fed", client="north")
    assert told is not None
    assert "ε = " not in told
    assert "NOT private, no ε may be claimed" in told


def told(tmp_path: Path, **changes: object) -> TrainingConfig:
    given = {"model": "m", "train_data": "t", "epsilon": 8.0, "expected_batch_size": 8, "steps": 4}
    given |= {"output_dir": str(tmp_path), "name": "run", "resume": "auto", "checkpoint_every": 2}
    return TrainingConfig(**given | changes)  # type: ignore[arg-type]


def test_auto_finds_the_last_run_of_a_name_or_begins(tmp_path: Path) -> None:
    """None yet, then the last that was charged; a folder that is named is taken as it is."""
    assert run_to_go_on(config=told(tmp_path)) is None
    assert run_to_go_on(config=told(tmp_path, resume="elsewhere")) == "elsewhere"
    for name in ("run", "run-2"):
        spend(tmp_path / name, steps=2)
        (tmp_path / name / "checkpoints").mkdir()
    spend(tmp_path / "run-3", steps=0)
    assert run_to_go_on(config=told(tmp_path)) == str(tmp_path / "run-2")
    assert finished_run(config=told(tmp_path)) is None


def test_auto_begins_nothing_beside_a_ledger_that_it_cannot_read(tmp_path: Path) -> None:
    """What was spent is not known, so nothing more is; a file without a word has spent nothing."""
    spend(tmp_path / "run", steps=2)
    (tmp_path / "run-2").mkdir()
    (tmp_path / "run-2/ledger.jsonl").touch()
    ledger = tmp_path / "run/ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"step":1', '"step":9'))
    for asks in (run_to_go_on, finished_run):
        with pytest.raises(LedgerError):
            asks(config=told(tmp_path))
    ledger.unlink()
    assert run_to_go_on(config=told(tmp_path)) is None


def test_auto_spends_no_second_budget(tmp_path: Path) -> None:
    """One that cannot go on is refused, one that is saved is finished, what begins is kept."""
    with pytest.raises(ConfigurationError, match="would keep none: set --checkpoint_every"):
        run_to_go_on(config=told(tmp_path, checkpoint_every=None))
    spend(tmp_path / "run", steps=2)
    with pytest.raises(
        ConfigurationError, match="kept no checkpoint to go on from: choose another"
    ):
        run_to_go_on(config=told(tmp_path))
    with Ledger.open(path=tmp_path / "run/ledger.jsonl", plan=PLAN.to_json()) as ledger:
        ledger.saved(files={"adapter_model.safetensors": "0" * 64})
    assert finished_run(config=told(tmp_path)) == tmp_path / "run"
    assert finished_run(config=told(tmp_path, resume=None)) is None
