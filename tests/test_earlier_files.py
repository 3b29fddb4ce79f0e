"""What earlier versions wrote is still read: ledgers, checkpoints, run folders, federations.

`earlier_files` was written by dpacc 0.1.0 before its modules had rooms: a run that ended, one that
died at its fourth update of six, and a federation of one client that stopped after one of two
rounds.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from dpacc_accounting import epsilon, read_ledger
from peft import PeftModel
from transformers import AutoModelForCausalLM

from dpacc.cli.main import dpacc
from dpacc.errors import ConfigurationError
from tests.dpacc.federated.federations import client, server
from tests.recipes.training import as_arguments, settings
from tests.scripts import load_script

ROOT = Path(__file__).parents[1]


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the files, as the place where programs run: they name each other from there."""
    shutil.copytree(ROOT / "tests/earlier_files", tmp_path / "there")
    monkeypatch.chdir(tmp_path / "there")
    return Path()


def test_a_ledger_costs_what_it_cost(there: Path) -> None:
    """The ε of the folder's proof is the ε of its ledger, but for the rounding of sums."""
    proof = json.loads((there / "runs/whole/privacy.json").read_text())
    record = read_ledger(path=there / "runs/whole/ledger.jsonl")
    stated = proof["guarantee"]
    priced = epsilon(event=record.event, delta=stated["delta"], adjacency="add-or-remove")
    assert priced.epsilon == pytest.approx(stated["epsilon"], rel=1e-12)
    assert record.head == proof["ledger"]["head"]


def test_a_run_folder_is_healthy_and_its_adapter_loads(there: Path) -> None:
    """`dpacc doctor` finds nothing, and PEFT puts the adapter on its base."""
    done = CliRunner().invoke(dpacc, ["doctor", "runs/whole", "--json"])
    assert done.exit_code == 0, done.output
    base = AutoModelForCausalLM.from_pretrained(there / "model")
    loaded = PeftModel.from_pretrained(base, "runs/whole")
    trained = [p for name, p in loaded.named_parameters() if "lora_B" in name]
    assert trained
    assert all(p.abs().sum() > 0 for p in trained)


def test_a_run_that_died_goes_on(there: Path) -> None:
    """Checkpoint and journal are taken up, and the two steps that are left are taken, at the rate
    that was the default then; at another the run is refused, which names it."""
    recipe = load_script(ROOT / "recipes/train.py")
    goes_on = {"name": "stopped", "steps": 6, "checkpoint_every": 2, "resume": "runs/stopped"}
    with pytest.raises(ConfigurationError, match=r"started with group 0's initial_lr=0\.005"):
        recipe.main(as_arguments(settings(there, there / "runs") | goes_on))
    goes_on["learning_rate"] = 5e-3
    recipe.main(as_arguments(settings(there, there / "runs") | goes_on))
    record = read_ledger(path=there / "runs/stopped/ledger.jsonl")
    assert [release.step for release in record.releases] == [0, 1, 2, 3, 4, 5]
    assert (there / "runs/stopped/adapter_model.safetensors").exists()


def test_a_federation_goes_on(there: Path) -> None:
    """Server and client take up the first round where they left it, and add the second."""
    one = client(there, 1)
    history = server(there, num_clients=1).train(clients=[one])
    assert [each.number for each in history.rounds] == [1, 2]
    steps = [each.step for each in read_ledger(path=there / "site-1/ledger.jsonl").releases]
    assert steps == list(range(6))
