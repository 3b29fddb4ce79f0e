"""`dpacc explain` writes the privacy statement of a ledger or a plan."""

import json
from pathlib import Path

import pytest
from dpacc_accounting import Gaussian, Ledger, PoissonSampled, read_ledger, statement

PLAN = {
    "dataset_size": 10_000,
    "expected_batch_size": 100,
    "steps": 3,
    "noise_multiplier": 0.8,
    "max_grad_norm": 1.0,
    "target_epsilon": None,
    "target_delta": 1e-5,
    "unit": "patient",
    "adjacency": "replace-one",
    "sampling": "poisson",
    "clipping": "automatic",
}


def _ledger(folder: Path) -> Path:
    step = PoissonSampled(probability=0.01, event=Gaussian(noise_multiplier=0.8))
    with Ledger.open(path=folder / "ledger.jsonl", plan=PLAN) as ledger:
        for number in range(3):
            ledger.charge(step=number, event=step)
    return folder / "ledger.jsonl"


def test_it_prints_the_statement(dpacc, tmp_path: Path) -> None:
    """Away from a terminal the Markdown comes as it is, ready for a model card."""
    path = _ledger(tmp_path)
    words = statement(plan=PLAN, record=read_ledger(path=path))
    outcome = dpacc("explain", path)
    assert outcome == (0, words, "")
    assert "one patient" in words


def test_json(dpacc, tmp_path: Path) -> None:
    """A script gets the words, the plan and the hash that pins the ledger's end."""
    path = _ledger(tmp_path)
    found = json.loads(dpacc("explain", path, "--json").out)
    record = read_ledger(path=path)
    assert found["statement"] == statement(plan=PLAN, record=record)
    assert found["plan"] == PLAN
    assert found["head"] == record.head


SETTINGS = """\
dataset_size: 67349
expected_batch_size: 256
epochs: 3
target_epsilon: 8
target_delta: 1e-5
max_grad_norm: 1.0
"""


def test_a_plan_is_a_promise(dpacc, tmp_path: Path) -> None:
    """A plan in YAML, with or without its noise, is explained as what would be released."""
    (tmp_path / "plan.yaml").write_text(SETTINGS)
    found = json.loads(dpacc("explain", tmp_path / "plan.yaml", "--json").out)
    assert "this plan would release" in found["statement"]
    assert found["plan"]["steps"] == 790
    assert 0.4634 < found["plan"]["noise_multiplier"] < 0.4640
    assert found["head"] is None
    (tmp_path / "plan.json").write_text(json.dumps(found["plan"]))
    assert json.loads(dpacc("explain", tmp_path / "plan.json", "--json").out) == found


def test_a_plan_of_correlated_noise_is_one_too(dpacc, tmp_path: Path) -> None:
    """Calibrated for a number of bands or the best one; its JSON, with coefficients, reads back."""
    (tmp_path / "plan.yaml").write_text(f"{SETTINGS}correlation: banded\nbands: 8\n")
    found = json.loads(dpacc("explain", tmp_path / "plan.yaml", "--json").out)
    plan = found["plan"]
    assert len(plan["noise_coefficients"]) == 8
    assert plan["sampling"] == "cyclic-poisson"
    assert 0.594 < plan["noise_multiplier"] < 0.596
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    assert json.loads(dpacc("explain", tmp_path / "plan.json", "--json").out) == found
    verified = dpacc("verify", tmp_path / "plan.json", "--json")
    assert verified.code == 0, verified.err
    assert json.loads(verified.out)["agree"]


def test_a_run_s_proof_holds_its_plan(dpacc, tmp_path: Path) -> None:
    """A document with a plan under "plan", as a run leaves behind, is explained by that plan."""
    (tmp_path / "privacy.json").write_text(json.dumps({"plan": PLAN, "other": 1}))
    assert "one patient" in dpacc("explain", tmp_path / "privacy.json").out


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs: 3", "epoch: 3", "line 3: epoch is not a known field of a plan; did you mean"),
        ("max_grad_norm: 1.0", "", "lacks max_grad_norm"),
        ("target_epsilon: 8", "", "epochs is not a known field"),
        ("256", "512000", "exceeds"),
        ("256", "many", "line 2: expected_batch_size must be a number"),
        ("epochs: 3", "level: example", "dpacc compose"),
        ("epochs: 3", "epochs: 3\nbands: 8", "correlation='banded'"),
        ("epochs: 3", "epochs: 3\ncorrelation: bandid", "must be one of none, banded"),
        ("epochs: 3", "epochs: 3\nworkload: sgd", "workload is not a known field"),
        ("epochs: 3", "epochs: 3\nnoise_coefficients: [0.8]", "not a known field"),
        (
            "epochs: 3",
            "steps: 9\nnoise_multiplier: 1\nnoise_coefficients: 0.8",
            "line 5: noise_coefficients must be a list of numbers",
        ),
        (
            "epochs: 3",
            "steps: 9\nnoise_multiplier: 1\nnoise_coefficients: [0.8, x]",
            "whose squares add up to at most 1",
        ),
    ],
)
def test_a_wrong_plan_is_one_line(dpacc, tmp_path: Path, old: str, new: str, message: str) -> None:
    """A mistake in a plan is one line with the field, where that is known, and code 2."""
    assert old in SETTINGS
    (tmp_path / "plan.yaml").write_text(SETTINGS.replace(old, new))
    outcome = dpacc("explain", tmp_path / "plan.yaml")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert message in outcome.err
