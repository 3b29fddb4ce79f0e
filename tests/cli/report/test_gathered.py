"""What is read from a run's folder, and what of it is believed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from dpacc_accounting import epsilon, read_ledger
from dpacc_accounting.ledger.claims import claim_of
from dpacc_accounting.ledger.record import LedgerError

from dpacc.artifacts.proof import RUN_FILE
from dpacc.cli.report.gathered import RunFacts, gather, read_recorded
from dpacc.errors import ConfigurationError
from tests.cli.report.folders import FIXED_SEED, PLAN, finished_run, nobody_asked


def test_epsilon_comes_from_the_ledger_alone(facts: RunFacts) -> None:
    """The claim, and its course, are prices of the ledger; run.json's own ε of 9 stands nowhere."""
    priced = epsilon(event=PLAN.event(), delta=1e-5)
    assert facts.claim.epsilon == priced.epsilon
    spent = [(each.step, each.epsilon) for each in facts.course]
    assert spent[0] == (0, 0.0)
    assert spent[-1] == (6, priced.epsilon)
    assert [at for at, _ in spent] == [0, 1, 2, 3, 4, 5, 6]
    assert [e for _, e in spent] == sorted(e for _, e in spent)
    third = epsilon(event=PLAN.event(steps=3), delta=1e-5).epsilon
    assert dict(spent)[3] == third


def test_independent_accountants_are_asked(facts: RunFacts) -> None:
    """Ours by Rényi divergence, and dp-accounting's two, agree with the claim."""
    assert facts.agreement is not None
    assert facts.agreement.holds
    names = " ".join(each.other.accountant for each in facts.agreement.comparisons)
    assert "dpacc RDP" in names
    assert "dp-accounting PLD" in names


def test_a_void_run_has_no_bounds_and_no_course(tmp_path: Path) -> None:
    """Beside a fixed seed nothing is drawn, bounded or compared: only why is said."""
    folder = finished_run(tmp_path / "void", notes=[FIXED_SEED])
    found = gather(ledger=folder / "ledger.jsonl")
    assert found.void == (FIXED_SEED[1],)
    assert math.isinf(found.claim.epsilon)
    assert (found.bounds, found.course, found.agreement) == ((), (), None)


def test_another_delta_is_priced_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ε, course and bounds follow --delta."""
    nobody_asked(monkeypatch)
    folder = finished_run(tmp_path / "run")
    record = read_ledger(path=folder / "ledger.jsonl")
    found = gather(ledger=folder / "ledger.jsonl", delta=1e-3)
    assert found.claim == claim_of(plan=record.plan, record=record, delta=1e-3)
    assert found.course[-1].epsilon == found.claim.epsilon


def test_quality_and_settings_are_read(facts: RunFacts) -> None:
    """From run.json, where the recipe wrote it."""
    assert [(each.step, each.quality) for each in facts.recorded.measured] == [(0, 120), (6, 80)]
    assert facts.recorded.settings["lora_rank"] == 8
    assert {"python", "dpacc"} <= facts.recorded.versions.keys()


def test_many_measurements_are_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every one is priced: a few, with the first and the last."""
    nobody_asked(monkeypatch)
    monkeypatch.setattr("dpacc.cli.report.gathered._POINTS", 12)
    folder = finished_run(tmp_path / "run")
    path = folder / RUN_FILE
    said = json.loads(path.read_text())
    said["course"] = [
        {"step": 0, "epsilon": 0, "quality": 100.0 - at, "metric": "perplexity"} for at in range(99)
    ]
    path.write_text(json.dumps(said))
    found = gather(ledger=folder / "ledger.jsonl")
    assert len(found.recorded.measured) == 99
    assert len(found.course) <= 14


@pytest.mark.parametrize(
    "said",
    [
        "{",
        "[]",
        '{"settings": {}, "versions": {}}',
        '{"settings": {}, "versions": {}, "course": [{"step": 1, "quality": 1}]}',
        '{"settings": {}, "versions": {}, "course": [{"step": 1, "quality": 1, "metric": "<b>"}]}',
        '{"settings": {}, "versions": {}, "course": '
        '[{"step": 1, "quality": NaN, "metric": "accuracy"}]}',
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, said: str) -> None:
    """It is named, and nothing is guessed."""
    path = tmp_path / RUN_FILE
    path.write_text(said)
    with pytest.raises(ConfigurationError, match=r"run\.json is damaged"):
        read_recorded(path=path)


def test_a_damaged_ledger_is_refused(tmp_path: Path) -> None:
    """As `verify` and `spend` refuse it: with the line."""
    ledger = finished_run(tmp_path / "run") / "ledger.jsonl"
    ledger.write_text(ledger.read_text().replace('"step":2', '"step":3'))
    with pytest.raises(LedgerError, match="line"):
        gather(ledger=ledger)


def test_a_run_that_released_nothing_is_refused(tmp_path: Path) -> None:
    """There is no ε to report, and 0 would flatter."""
    folder = finished_run(tmp_path / "run")
    ledger = folder / "ledger.jsonl"
    ledger.write_text(ledger.read_text().splitlines()[0] + "\n")
    with pytest.raises(ConfigurationError, match="no release"):
        gather(ledger=ledger)
