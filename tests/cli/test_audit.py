"""`dpacc audit`: a file of scores from anybody, or a plan that the engine carries out."""

from __future__ import annotations

import json
import sys
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import Ledger

from dpacc.audit.records import write_scores
from dpacc.plan import PrivacyPlan
from dpacc.randomness import correlated_noise

PLAN = PrivacyPlan(
    dataset_size=400,
    expected_batch_size=400,
    steps=2,
    noise_multiplier=2.0,
    max_grad_norm=1.0,
    target_delta=1e-5,
)


def scores_file(folder: Path, *, leak: float, **fields: Any) -> Path:
    """A trainer that claims ε = 1 and whose scores differ by `leak` standard deviations."""
    rng = np.random.default_rng(0)
    included = rng.random(400) < 0.5
    document = {
        "included": included.astype(int).tolist(),
        "scores": (leak * included + rng.standard_normal(400)).tolist(),
        "epsilon": 1.0,
        "delta": 1e-5,
    }
    path = folder / "scores.json"
    path.write_text(json.dumps(document | fields))
    return path


def test_a_claim_that_scores_refute_exits_with_1(dpacc, tmp_path: Path) -> None:
    """The bound stands above the claim, with its confidence, in words, JSON and a picture."""
    path = scores_file(tmp_path, leak=4.0)
    outcome = dpacc("audit", path)
    assert outcome.code == 1
    assert "REFUTED" in outcome.out
    assert "0.95" in outcome.out
    picture = tmp_path / "audit.png"
    outcome = dpacc("audit", path, "--json", "--plot", picture, "--confidence", "0.9")
    assert outcome.code == 1
    found = json.loads(outcome.out)
    assert found["refuted"] is True
    assert found["confidence"] == 0.9
    assert found["epsilon_at_least"] > found["claim"]["epsilon"] == 1.0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_claim_that_stands_exits_with_0(dpacc, tmp_path: Path) -> None:
    """No leak, or a claim so weak that the leak is within it."""
    outcome = dpacc("audit", scores_file(tmp_path, leak=0.0))
    assert outcome.code == 0
    assert "not refuted" in outcome.out
    weak = dpacc("audit", scores_file(tmp_path, leak=4.0), "--epsilon", 30, "--delta", "1e-3")
    assert weak.code == 0
    assert "30 at δ = 0.001" in weak.out


def of_run(folder: Path, number: int, **fields: Any) -> Path:
    """One of several runs that claim ε = 1, too few canaries in each to prove anything."""
    rng = np.random.default_rng(number)
    included = rng.random(12) < 0.5
    path = folder / f"{number}.json"
    scored = {"included": included.tolist(), "scores": (9 * included + rng.random(12)).tolist()}
    path.write_text(json.dumps({"epsilon": 1.0, "delta": 1e-5} | scored | fields))
    return path


def test_runs_of_one_plan_are_judged_together(dpacc, tmp_path: Path) -> None:
    """What none of them shows by itself, all of them do: their coins are counted together."""
    runs = [of_run(tmp_path, number) for number in range(8)]
    assert [dpacc("audit", run).code for run in runs] == [0] * 8
    together = dpacc("audit", *runs, "--json")
    assert together.code == 1
    assert json.loads(together.out)["canaries"] == 96


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"epsilon": 2.0}, "claim different things"),
        ({}, "given twice"),
        ({"scores": ["a"] * 12}, "one number for each canary"),
    ],
)
def test_runs_that_are_not_one_audit_are_refused(
    dpacc, tmp_path: Path, fields: dict[str, Any], complaint: str
) -> None:
    """Other claims, or the same coins once more: one line, exit 2."""
    first = of_run(tmp_path, 0)
    second = first.rename(tmp_path / "copy.json")
    outcome = dpacc("audit", of_run(tmp_path, 0, **fields), second)
    assert outcome.code == 2
    assert complaint in " ".join(outcome.err.split())


def test_a_plan_is_audited_alone(dpacc, tmp_path: Path) -> None:
    """Beside scores it would be unclear what is judged."""
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(PLAN.to_json()))
    outcome = dpacc("audit", of_run(tmp_path, 0), plan)
    assert outcome.code == 2
    assert "a plan or a ledger alone" in " ".join(outcome.err.split())


def test_recorded_scores_carry_their_plan(dpacc, tmp_path: Path) -> None:
    """What a recipe wrote is judged by its plan's whole curve, at its δ or another."""
    rng = np.random.default_rng(1)
    included = rng.random(400) < 0.5
    write_scores(
        path=tmp_path / "scores.json",
        included=included,
        scores=included + rng.standard_normal(400) * 2**0.5,
        plan=PLAN,
        threshold=0.5,
    )
    found = json.loads(dpacc("audit", tmp_path / "scores.json", "--json").out)
    assert found["claim"]["epsilon"] == PLAN.guarantee().epsilon
    assert found["epsilon_at_least_if_independent"] > 0
    other = json.loads(dpacc("audit", tmp_path / "scores.json", "--json", "--delta", "1e-3").out)
    assert other["claim"]["delta"] == 1e-3


def test_a_plan_or_a_ledger_is_rehearsed_by_the_engine(
    dpacc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The honest engine passes; one with half the noise does not, whatever its books say."""
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(PLAN.to_json()))
    with Ledger.open(path=tmp_path / "ledger.jsonl", plan=PLAN.to_json()) as book:
        book.charge(step=0, event=PLAN.charge(0))
        book.note(subject="fixed-seed", text="sampling came from seed 7")
    words = ["--json", "--confidence", "0.999999"]
    noted = dpacc("audit", tmp_path / "ledger.jsonl", *words[1:]).out
    assert "NOT private the ledger notes: sampling came from seed 7" in " ".join(noted.split())
    for source in (plan, tmp_path / "ledger.jsonl"):
        outcome = dpacc("audit", source, *words)
        assert outcome.code == 0, outcome
        found = json.loads(outcome.out)
        assert found["canaries"] == 400
        assert bool(found["ledger_notes"]["void_because"]) is (source != plan)
    honest = correlated_noise.standard_normals
    monkeypatch.setattr(correlated_noise, "standard_normals", lambda **known: 0.3 * honest(**known))
    assert dpacc("audit", plan, *words).code == 1


def test_a_plan_of_correlated_noise_is_rehearsed(dpacc, tmp_path: Path) -> None:
    """As its JSON is written, coefficients and all, or with a number of bands to calibrate for."""
    asked = PLAN.to_json() | {"correlation": "banded", "bands": 2, "target_epsilon": 4.0}
    del asked["noise_multiplier"], asked["sampling"], asked["allow_no_privacy"]
    settings = {"expected_batch_size": 200, "steps": 4}
    kept = {*signature(PrivacyPlan.calibrate).parameters}
    asked = {name: value for name, value in (asked | settings).items() if name in kept}
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    made = json.loads(dpacc("explain", tmp_path / "asked.json", "--json").out)["plan"]
    assert len(made["noise_coefficients"]) == 2
    (tmp_path / "made.json").write_text(json.dumps(made))
    for name in ("asked.json", "made.json"):
        outcome = dpacc("audit", tmp_path / name, "--json", "--confidence", "0.999999")
        assert outcome.code == 0, outcome
        assert json.loads(outcome.out)["claim"]["epsilon"] <= 4


@pytest.mark.parametrize(
    ("fields", "words", "message"),
    [
        ({"scores": [1.0]}, [], "one score for each"),
        ({"scores": ["a"] * 400}, [], "'scores' must be a list"),
        ({"included": [2] * 400}, [], "0 or 1"),
        ({"epsilon": None}, [], "nothing is claimed"),
        ({"epsilon": -1}, [], "epsilon=-1"),
        ({"noise": 1}, [], "'noise' is not a field"),
        ({"plan": {"steps": 3}}, [], "not a privacy plan"),
        ({}, ["--canaries", "5"], "--canaries is for plans"),
        ({}, ["--confidence", "1"], "1"),
    ],
)
def test_bad_scores_are_one_line(
    dpacc, tmp_path: Path, fields: dict[str, Any], words: list[str], message: str
) -> None:
    """Each names the field and the remedy, with exit code 2."""
    outcome = dpacc("audit", scores_file(tmp_path, leak=1.0, **fields), *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err


def test_a_plan_keeps_its_own_epsilon(dpacc, tmp_path: Path) -> None:
    """Another ε for a plan would test something else than the plan: refused."""
    (tmp_path / "plan.json").write_text(json.dumps(PLAN.to_json()))
    outcome = dpacc("audit", tmp_path / "plan.json", "--epsilon", "3")
    assert outcome.code == 2
    assert "its own ε" in outcome.err


@pytest.mark.parametrize("command", ["audit", "doctor"])
def test_without_the_training_stack_the_remedy_is_told(
    dpacc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """A light install judges scores; what needs torch says so in one line."""
    (tmp_path / "plan.json").write_text(json.dumps(PLAN.to_json()))
    for name in [each for each in sys.modules if each.startswith(("dpacc.audit", "dpacc.doctor"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "accelerate", None)
    outcome = dpacc(command, tmp_path / "plan.json")
    assert (outcome.code, outcome.out) == (2, "")
    assert "pip install" in outcome.err
    if command == "audit":
        assert dpacc("audit", scores_file(tmp_path, leak=0.0)).code == 0
