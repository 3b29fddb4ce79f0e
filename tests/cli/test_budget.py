"""`dpacc budget` keeps one total for a data set, over all runs on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from dpacc_accounting import Ledger, read_ledger

from dpacc.plan import PrivacyPlan

PLAN = {
    "dataset_size": 1000,
    "expected_batch_size": 50,
    "steps": 4,
    "noise_multiplier": 1.0,
    "max_grad_norm": 1.0,
    "target_delta": 1e-5,
}
INIT = ("--name", "notes", "--epsilon", "1.6", "--delta", "1e-5", "--data", "train.jsonl")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the data and a plan are."""
    (tmp_path / "train.jsonl").write_text('{"text": "Ann has the flu"}\n')
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_budget_from_its_making_to_its_end(dpacc, folder: Path) -> None:
    """Made, reserved, spent in part, committed, given back: each says what is held and spent."""
    made = json.loads(dpacc("budget", "init", "b.jsonl", *INIT, "--json").out)
    assert (made["held"]["epsilon"], made["runs"], made["within_total"]) == (0, [], True)
    for run in ("one", "two"):
        reserved = dpacc("budget", "reserve", "b.jsonl", "plan.json", "--ledger", f"{run}.jsonl")
        assert reserved.code == 0, reserved.err
        assert "with " in reserved.out
    plan = PrivacyPlan(**PLAN)
    with Ledger.open(path="one.jsonl", plan=plan.to_json()) as ledger:
        ledger.charge(step=0, event=plan.charge(0))
    held = json.loads(dpacc("budget", "show", "b.jsonl", "--json").out)["held"]["epsilon"]
    assert held == PrivacyPlan(**PLAN | {"steps": 8}).guarantee().epsilon
    found = json.loads(dpacc("budget", "commit", "b.jsonl", "one.jsonl", "--json").out)
    assert found["spent"]["epsilon"] == plan.guarantee(steps=1).epsilon
    assert found["run"] == read_ledger(path="one.jsonl").run
    second = read_ledger(path="two.jsonl").run
    given_back = dpacc("budget", "release", "b.jsonl", second[:8])
    assert given_back.code == 0, given_back.err
    words = " ".join(dpacc("budget", "show", "b.jsonl").out.split())
    for said in ("committed", "released", "total ε = 1.6 at δ = 1e-05", "keyed fingerprint"):
        assert said in words
    assert "Ann" not in (folder / "b.jsonl").read_text()


def test_a_head_noted_earlier_is_asked_for(dpacc, folder: Path) -> None:
    """A budget that lacks it is refused; a short word is no head."""
    head = json.loads(dpacc("budget", "init", "b.jsonl", *INIT, "--json").out)["head"]
    dpacc("budget", "reserve", "b.jsonl", "plan.json", "--ledger", "one.jsonl")
    assert dpacc("budget", "show", "b.jsonl", "--head", head[:32]).code == 0
    for word in (head[:8], "0" * 64):
        outcome = dpacc("budget", "show", "b.jsonl", "--head", word)
        assert (outcome.code, outcome.out) == (2, "")
        assert "was shortened or replaced" in outcome.err


def test_bad_input_is_one_line_and_leaves_nothing(dpacc, folder: Path) -> None:
    """Exit 2, no file more than before, and no line more in the budget."""
    dpacc("budget", "init", "b.jsonl", *INIT)
    dpacc("budget", "reserve", "b.jsonl", "plan.json", "--ledger", "one.jsonl")
    (folder / "much.json").write_text(json.dumps(PLAN | {"steps": 4000}))
    (folder / "user.json").write_text(json.dumps(PLAN | {"unit": "user"}))
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run = read_ledger(path="one.jsonl").run
    for words, message in [
        (["init", "b.jsonl", *INIT], "exists"),
        (["init", "c.jsonl", *INIT], "has a budget already"),
        (["init", "c.jsonl", *INIT[:-1], "absent.jsonl"], "absent.jsonl"),
        (["init", "c.jsonl", *INIT[:3], "-1", *INIT[4:6]], "epsilon"),
        (["init", "c.jsonl"], "Missing option"),
        (["show", "absent.jsonl"], "cannot read budget absent.jsonl"),
        (["show", "train.jsonl"], "line 1"),
        (["reserve", "b.jsonl", "much.json", "--ledger", "two.jsonl"], "allows ε = 1.6"),
        (["reserve", "b.jsonl", "user.json", "--ledger", "two.jsonl"], "unit"),
        (["reserve", "b.jsonl", "plan.json"], "--ledger"),
        (["reserve", "b.jsonl", "one.jsonl", "--ledger", "two.jsonl"], "--ledger"),
        (["reserve", "absent.jsonl", "plan.json", "--ledger", "two.jsonl"], "cannot read budget"),
        (["commit", "b.jsonl", "absent.jsonl"], "cannot read ledger"),
        (["commit", "b.jsonl"], "LEDGERS"),
        (["release", "b.jsonl", "ffff"], "0 open reservations"),
        (["release", "b.jsonl", run, "--ledger", "absent.jsonl"], "missing, so nobody knows"),
    ]:
        outcome = dpacc("budget", *words)
        assert (outcome.code, outcome.out) == (2, ""), words
        assert outcome.err.count("\n") == 1, outcome.err
        assert message in outcome.err
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before, words
