"""`dpacc spend` prices what a ledger says was released."""

import json
from pathlib import Path

import pytest
from dpacc_accounting import Gaussian, Ledger, PoissonSampled, Repeated, epsilon

PLAN = {
    "dataset_size": 10_000,
    "expected_batch_size": 100,
    "steps": 50,
    "noise_multiplier": 0.8,
    "max_grad_norm": 1.0,
    "target_epsilon": 2.0,
    "target_delta": 1e-5,
    "unit": "example",
    "adjacency": "add-or-remove",
    "sampling": "poisson",
    "clipping": "flat",
}
STEP = PoissonSampled(probability=0.01, event=Gaussian(noise_multiplier=0.8))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ledger with 20 of 50 planned steps."""
    with Ledger.open(path=tmp_path / "ledger.jsonl", plan=PLAN) as ledger:
        for step in range(20):
            ledger.charge(step=step, event=STEP)
    return tmp_path / "ledger.jsonl"


def test_json_prices_the_releases(dpacc, path: Path) -> None:
    """ε is that of the steps taken, not of the plan."""
    spent = json.loads(dpacc("spend", path, "--json").out)
    expected = epsilon(event=Repeated(event=STEP, times=20), delta=1e-5)
    assert spent["private"]
    assert spent["epsilon"] == expected.epsilon
    assert (spent["releases"], spent["planned_steps"]) == (20, 50)
    assert (spent["delta"], spent["adjacency"]) == (1e-5, "add-or-remove")


def test_another_delta(dpacc, path: Path) -> None:
    """ε can be asked for at another δ than the plan's."""
    spent = json.loads(dpacc("spend", path, "--json", "--delta", "1e-3").out)
    assert spent["delta"] == 1e-3
    assert spent["epsilon"] == epsilon(event=Repeated(event=STEP, times=20), delta=1e-3).epsilon


def test_table(dpacc, path: Path) -> None:
    """A person reads how much was released and what it cost."""
    words = " ".join(dpacc("spend", path).out.split())
    for fact in ("20 of 50 planned", "at δ = 1e-05", "add-or-remove", "example", "PLD"):
        assert fact in words


def test_a_fixed_seed_has_no_epsilon(dpacc, path: Path) -> None:
    """No ε is shown for a run that its ledger calls void; the reason is."""
    with Ledger.open(path=path, plan=PLAN) as ledger:
        ledger.note(subject="fixed-seed", text="the noise came from seed 7")
    spent = json.loads(dpacc("spend", path, "--json").out)
    assert spent["private"] is False
    assert spent["epsilon"] is None
    assert spent["void_because"] == ["the noise came from seed 7"]
    shown = dpacc("spend", path).out
    assert "NOT private" in shown
    assert "ε" not in shown


@pytest.mark.parametrize("delta", ["0", "1", "-1e-5", "nan", "inf", "small"])
def test_bad_delta(dpacc, path: Path, delta: str) -> None:
    """A δ that means nothing is one line and code 2."""
    outcome = dpacc("spend", path, "--delta", delta)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert "delta" in outcome.err


@pytest.mark.parametrize("command", ["spend", "explain"])
def test_bad_ledgers(dpacc, path: Path, tmp_path: Path, command: str) -> None:
    """A ledger that is missing, damaged or no ledger is one line and code 2."""
    path.write_bytes(path.read_bytes().replace(b'"step":7', b'"step":9'))
    (tmp_path / "text.txt").write_text("hello\n")
    other = "line 1" if command == "spend" else "not a ledger or a plan"
    for name, culprit in (("ledger.jsonl", "line 9"), ("gone", "No such"), ("text.txt", other)):
        outcome = dpacc(command, tmp_path / name)
        assert (outcome.code, outcome.out) == (2, "")
        assert outcome.err.count("\n") == 1
        assert culprit in outcome.err
    outcome = dpacc(command)
    assert outcome.code == 2
    assert {"spend": "LEDGER", "explain": "SOURCE"}[command] in outcome.err


@pytest.mark.parametrize("command", ["spend", "explain"])
def test_a_plan_without_the_assumptions(dpacc, tmp_path: Path, command: str) -> None:
    """A ledger whose plan lacks what is needed is refused, and the remedy that is named works."""
    path = tmp_path / "ledger.jsonl"
    with pytest.warns(UserWarning, match="add them now"):
        ledger = Ledger.open(path=path, plan={"steps": 3})
    ledger.charge(step=0, event=STEP)
    ledger.close()
    outcome = dpacc(command, path)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert "the ledger's plan lacks adjacency" in outcome.err
    assert "after --settings" in outcome.err
    rest = {name: value for name, value in PLAN.items() if name != "steps"}
    (tmp_path / "rest.json").write_text(json.dumps(rest))
    outcome = dpacc(command, path, "--settings", tmp_path / "rest.json", "--json")
    assert outcome.code == 0, outcome.err
    assert "given beside it" in outcome.out
    (tmp_path / "other.json").write_text(json.dumps(rest | {"steps": 9}))
    outcome = dpacc(command, path, "--settings", tmp_path / "other.json")
    assert outcome.code == 2
    assert "steps=3, not 9" in outcome.err
