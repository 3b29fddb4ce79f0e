"""`dpacc doctor`: a run's folder, a plan, or a script on the operating table."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dpacc_accounting import Gaussian, Ledger, read_ledger, statement
from dpacc_accounting.ledger.writer import record_saved
from safetensors.torch import save_file

from dpacc.artifacts.proof import adapter_checksums, privacy_document
from dpacc.doctor.run_folder import ledger_findings
from dpacc.randomness import correlated_noise
from tests.cli.conftest import Run
from tests.cli.test_audit import PLAN
from tests.test_docs_loops import programs
from tests.tiny_models import save_tiny_llama

SCRIPT = """
import sys
from pathlib import Path
import torch
from accelerate import Accelerator
from dpacc import PrivacyEngine, PrivacyPlan, causal_lm_losses
from tests.tiny_models import collate, examples, tiny_model

data = examples([5, 9, 3, 7] * 10)
plan = PrivacyPlan(dataset_size=40, expected_batch_size=10, steps=6, noise_multiplier=1.0,
                   max_grad_norm=0.1, target_delta=1e-3, clipping=sys.argv[2])
model = tiny_model("llama")
adapters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.SGD(adapters, lr=float(sys.argv[3]))
engine = PrivacyEngine(Accelerator(cpu=True), plan, ledger=sys.argv[1],
                       per_example_gradients=sys.argv[4])
model, optimizer = engine.prepare(model, optimizer)
for step in engine.steps(data, collate):
    for batch in step:
        losses = causal_lm_losses(model, batch)
        step.backward(losses / len(losses) if "mean" in sys.argv else losses)
    step.update()
print("finished")
Path(sys.argv[1]).write_text("finished")
"""

MATERIAL = """
from tests.tiny_models import collate, examples, tiny_model

model = tiny_model("llama")
train, held_out = examples([7, 3, 12, 4, 9, 5] * 5), examples([5, 6], seed=8)
"""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run's folder."""
    folder = tmp_path / "run"
    folder.mkdir()
    with Ledger.open(path=folder / "ledger.jsonl", plan=PLAN.to_json()) as book:
        for step in range(PLAN.steps):
            book.charge(step=step, event=PLAN.charge(step))
    save_file(
        {"q.lora_A": torch.ones(2), "q.lora_B": torch.ones(2)},
        folder / "adapter_model.safetensors",
    )
    state(folder)
    return folder


def state(folder: Path) -> None:
    """Write what a finished run states of itself, from its ledger."""
    ledger = folder / "ledger.jsonl"
    record_saved(ledger=ledger, files=adapter_checksums(folder=folder))
    record = read_ledger(path=ledger)
    (folder / "privacy.json").write_bytes(privacy_document(record=record, ledger=ledger.name))
    (folder / "README.md").write_text(f"# Mine\n\n{statement(plan=record.plan, record=record)}")


def examined(dpacc: Any, *words: object) -> tuple[int, dict[str, bool]]:
    outcome = dpacc("doctor", "--json", *words)
    assert outcome.code in (0, 1), outcome.err
    document = json.loads(outcome.out)
    assert document["healthy"] is (outcome.code == 0)
    return outcome.code, {each["subject"]: each["healthy"] for each in document["findings"]}


def test_a_healthy_run(dpacc, run: Path) -> None:
    """Ledger, charges, secret, proof, card, adapter, its origin, sampling, noise, sensitivity."""
    outcome = dpacc("doctor", run)
    assert outcome.code == 0
    assert outcome.out.count("ok ") == 10
    assert "healthy" in outcome.out
    code, found = examined(dpacc, run)
    assert code == 0
    assert all(found.values())


def test_a_plan_is_examined_too(dpacc, tmp_path: Path) -> None:
    """Without a run, the engine alone."""
    (tmp_path / "plan.json").write_text(json.dumps(PLAN.to_json()))
    code, found = examined(dpacc, tmp_path / "plan.json")
    assert code == 0
    assert [*found] == ["sampling", "noise", "sensitivity"]


def test_what_is_wrong_in_a_folder_is_named(dpacc, run: Path) -> None:
    """A replaced ledger, adapters that never moved, another event, a fixed seed."""
    save_file(
        {"q.lora_A": torch.ones(2), "q.lora_B": torch.zeros(2)},
        run / "adapter_model.safetensors",
    )
    (run / "ledger.jsonl").unlink()
    with Ledger.open(path=run / "ledger.jsonl", plan=PLAN.to_json()) as book:
        book.note(subject="fixed-seed", text="sampling and noise came from the fixed seed 1")
        book.charge(step=0, event=Gaussian(noise_multiplier=9.0))
    code, found = examined(dpacc, run)
    assert code == 1
    ailing = {subject for subject, healthy in found.items() if not healthy}
    assert ailing == {"charges", "secret", "proof", "card", "origin", "adapter"}


def in_the_proof(*place: str, value: Any) -> Callable[[Path], None]:
    """Edit one number of `privacy.json`."""

    def forge(folder: Path) -> None:
        document = json.loads((folder / "privacy.json").read_text())
        inner = document
        for name in place[:-1]:
            inner = inner[name]
        assert inner[place[-1]] != value
        inner[place[-1]] = value
        (folder / "privacy.json").write_text(json.dumps(document))

    return forge


def in_the_card(old: str, new: str) -> Callable[[Path], None]:
    """Edit the card's words."""

    def forge(folder: Path) -> None:
        words = (folder / "README.md").read_text()
        changed = re.sub(old, new, words, count=1)
        assert changed != words
        (folder / "README.md").write_text(changed)

    return forge


def another_runs_adapter(folder: Path) -> None:
    """Copy in weights that this run never saved."""
    weights = {"q.lora_A": torch.ones(2), "q.lora_B": torch.full((2,), 2.0)}
    save_file(weights, folder / "adapter_model.safetensors")


def a_step_more(folder: Path) -> None:
    """Go on with the ledger and leave what was stated."""
    with Ledger.open(path=folder / "ledger.jsonl", plan=PLAN.to_json()) as book:
        book.charge(step=PLAN.steps, event=PLAN.charge(PLAN.steps))


FORGERIES = {
    "epsilon in the proof": (in_the_proof("guarantee", "epsilon", value=0.1), "proof"),
    "delta in the proof": (in_the_proof("guarantee", "delta", value=1e-9), "proof"),
    "unit in the proof": (in_the_proof("guarantee", "unit", value="patient"), "proof"),
    "attacks in the proof": (in_the_proof("attack_risk", "true_positives", value=0.01), "proof"),
    "plan in the proof": (in_the_proof("plan", "noise_multiplier", value=9.0), "proof"),
    "adapter in the proof": (in_the_proof("adapter", value={}), "proof"),
    "epsilon in the card": (in_the_card(r"\(ε = [^,]*,", "(ε = 0.1,"), "card"),
    "a limit less in the card": (in_the_card(r"- \*\*Held-out data.*\n", ""), "card"),
    "a claim above the card": (in_the_card("# Mine", "# Mine, at ε = 0.1"), "card"),
    "another run's adapter": (another_runs_adapter, "origin"),
    "a ledger that went on": (a_step_more, "proof"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_folder_is_unhealthy(run: Path, name: str) -> None:
    """Whatever is edited afterwards is found by computing it anew from the ledger."""
    forge, subject = FORGERIES[name]
    findings = {each.subject: each for each in ledger_findings(folder=run)}
    assert all(each.healthy for each in findings.values()), findings
    forge(run)
    findings = {each.subject: each for each in ledger_findings(folder=run)}
    assert not findings[subject].healthy


def test_an_adapter_that_no_ledger_names_is_unhealthy(run: Path) -> None:
    """Without a record of what was saved it may be anyone's; an earlier save is the run's own."""
    another_runs_adapter(run)
    state(run)
    first = {"q.lora_A": torch.ones(2), "q.lora_B": torch.ones(2)}
    save_file(first, run / "adapter_model.safetensors")
    (told,) = [each for each in ledger_findings(folder=run) if each.subject == "origin"]
    assert (told.healthy, "save 1 of 2" in told.words) == (True, True)
    (run / "ledger.jsonl").unlink()
    with Ledger.open(path=run / "ledger.jsonl", plan=PLAN.to_json()) as book:
        book.charge(step=0, event=PLAN.charge(0))
    (told,) = [each for each in ledger_findings(folder=run) if each.subject == "origin"]
    assert (told.healthy, "may be another run's" in told.words) == (False, True)


def test_a_broken_engine_makes_every_run_unhealthy(
    dpacc, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is in order, and the engine beside it adds a tenth less noise than it charges."""
    honest = correlated_noise.standard_normals
    monkeypatch.setattr(correlated_noise, "standard_normals", lambda **words: 0.9 * honest(**words))
    code, found = examined(dpacc, run)
    assert code == 1
    assert [subject for subject, healthy in found.items() if not healthy] == ["noise"]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A training script that takes its ledger, clipping, learning rate and strategy as words."""
    path = tmp_path / "train.py"
    path.write_text(SCRIPT)
    return path


@pytest.mark.parametrize("strategy", ["materialize", "ghost"])
@pytest.mark.parametrize("clipping", ["flat", "adaptive"])
def test_a_healthy_script_is_stopped_in_time(
    dpacc, script: Path, tmp_path: Path, clipping: str, strategy: str
) -> None:
    """Three steps are watched; the script's own ledger is never written, nor its end reached."""
    ledger = tmp_path / "ledger.jsonl"
    code, found = examined(dpacc, script, ledger, clipping, "0.1", strategy)
    assert code == 0, found
    assert {*found} == {"coupling", "sampling", "clip", "noise", "coverage", "ledger"}
    assert not ledger.exists()


@pytest.mark.parametrize("number", [0, 1], ids=["plain loop", "Trainer"])
def test_loops_and_trainers_of_the_docs_are_healthy(
    dpacc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Sampling, noise, clipping and coverage are seen from within the same engine."""
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "script.py"
    program = programs("loops_and_trainers.md")[number]
    script.write_text(MATERIAL + program)
    code, found = examined(dpacc, script)
    assert code == 0, found
    assert {"sampling", "clip", "noise", "coverage", "ledger"} <= found.keys()
    assert not (tmp_path / "run/ledger.jsonl").exists()


def test_a_script_that_couples_examples_is_unhealthy(dpacc, script: Path, tmp_path: Path) -> None:
    """The engine's refusal becomes the finding."""
    outcome = dpacc("doctor", script, tmp_path / "l.jsonl", "flat", "0.1", "materialize", "mean")
    assert outcome.code == 1
    assert "with the examples" in " ".join(outcome.out.split())


def test_a_script_that_moves_nothing_or_leaks_is_unhealthy(
    dpacc, script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A learning rate of zero leaves adapters where they were; half of the noise is seen."""
    _, found = examined(dpacc, script, tmp_path / "l.jsonl", "flat", "0", "materialize")
    assert [subject for subject, healthy in found.items() if not healthy] == ["coverage"]
    honest = correlated_noise.standard_normals
    monkeypatch.setattr(correlated_noise, "standard_normals", lambda **words: 0.5 * honest(**words))
    _, found = examined(dpacc, script, tmp_path / "l.jsonl", "flat", "0.1", "materialize")
    assert [subject for subject, healthy in found.items() if not healthy] == ["noise"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("print('hello')", "without a step"),
        ("import sys; sys.exit(3)", "exit code 3"),
    ],
)
def test_a_script_without_an_engine_is_refused(
    dpacc, tmp_path: Path, text: str, message: str
) -> None:
    """One line that says why, and code 2; as for a file that is not there."""
    path = tmp_path / "other.py"
    path.write_text(text)
    outcome = dpacc("doctor", path)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err
    assert dpacc("doctor", tmp_path / "absent.py").code == 2
    assert dpacc("doctor", tmp_path).code == 2


def test_it_looks_through_the_data_of_a_configuration(
    dpacc: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its findings, that they are not private, and code 1; a script's own --data stays its own."""
    secret = "w1 w2 w3 w4"
    save_tiny_llama(tmp_path / "model", words=secret.split())
    capsys.readouterr()  # what libraries say when they are imported first
    (tmp_path / "t.jsonl").write_text(f'{{"text": "{secret}"}}\n' * 2)
    (tmp_path / "c.yaml").write_text(
        f"model: {tmp_path}/model\ntrain_data: nowhere.jsonl\nepsilon: 8\n"
        "expected_batch_size: 1\nsteps: 1\n"
    )
    asked = ("doctor", tmp_path / "c.yaml", "--data", "--train_data", tmp_path / "t.jsonl")
    outcome = dpacc(*asked, "--json")
    assert outcome.code == 1
    said = json.loads(outcome.out)
    assert [each["subject"] for each in said["findings"] if not each["healthy"]] == [
        "the same text twice"
    ]
    assert "without noise" in said["not_private"]
    table = dpacc(*asked)
    assert "for the owner's eyes" in " ".join(table.out.split())
    assert secret not in outcome.out + table.out
    refused = dpacc("doctor", tmp_path / "s.py", "--data")
    assert refused.code == 2
    assert "after a --" in refused.err
