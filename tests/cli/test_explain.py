"""`dpacc explain` writes the privacy statement of a ledger."""

import json
from pathlib import Path

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
