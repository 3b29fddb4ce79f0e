"""A rehearsal leaves nothing behind that was learned from the private data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from dpacc_accounting import create_budget, read_budget

from dpacc.doctor.script import script_findings
from dpacc.errors import ConfigurationError
from dpacc.randomness.gaussian_noise import standard_normals
from dpacc.randomness.run_secret import RunSecret
from tests.dpacc.step.engine_runs import LENGTHS, noiseless, received
from tests.tiny_models import examples, tiny_model

WEIGHTS = """
import sys
from pathlib import Path
import torch
from accelerate import Accelerator
from dpacc import PrivacyEngine, PrivacyPlan, causal_lm_losses
from tests.tiny_models import collate, examples, tiny_model

data = examples([7, 3, 12, 1, 9, 5, 5, 20, 2, 11])
plan = PrivacyPlan(dataset_size=10, expected_batch_size=10, steps=3, noise_multiplier=0.1,
                   max_grad_norm=1e-2, target_delta=1e-3)
model = tiny_model("llama")
adapters = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.SGD(adapters, lr=1.0)
engine = PrivacyEngine(Accelerator(cpu=True), plan, ledger="ledger.jsonl", fixed_seed=5)
model, optimizer = engine.prepare(model, optimizer)
for step in engine.steps(data, collate):
    for batch in step:
        step.backward(causal_lm_losses(model, batch))
    step.update()
    torch.save(torch.cat([p.detach().flatten() for p in adapters]), sys.argv[1])
"""

TRAINER = """
import sys
from transformers import TrainingArguments
from dpacc import PrivacyArguments, PrivateTrainer
from tests.tiny_models import collate, examples, tiny_model

trainer = PrivateTrainer(
    args=TrainingArguments(output_dir=sys.argv[1], per_device_train_batch_size=5, max_steps=3,
                           save_steps=1, learning_rate=0.1, report_to=[], disable_tqdm=True),
    privacy=PrivacyArguments(noise_multiplier=1.0, target_delta=1e-3),
    model=tiny_model("llama"),
    train_dataset=examples([7, 3, 12, 4, 9, 5] * 2),
    data_collator=collate,
)
trainer.train()
"""


def rehearsed(folder: Path, text: str, *words: object, steps: int = 2) -> dict[str, bool]:
    script = folder / "script.py"
    script.write_text(text)
    found = script_findings(script=script, arguments=[str(word) for word in words], steps=steps)
    return {finding.subject: finding.healthy for finding in found}


def test_the_sum_is_not_recovered_from_a_checkpoint_that_the_script_saved(tmp_path: Path) -> None:
    """Neither as it is nor without the noise of the seeds that a rehearsal once had.

    Ten examples weigh more than the noise of σ = 0.1, so that an update of the sum would show.
    """
    found = rehearsed(tmp_path, WEIGHTS, tmp_path / "weights.pt")
    assert all(found.values()), found
    start = [p.detach().flatten() for p in tiny_model("llama").parameters() if p.requires_grad]
    moved = (torch.cat(start) - torch.load(tmp_path / "weights.pt")) * len(LENGTHS)
    plan = noiseless(len(LENGTHS))
    clean = received(plan, examples(LENGTHS), tmp_path / "clean.jsonl")[0]
    for seed in (0, 5):
        secret = RunSecret.from_fixed_seed(seed)
        words = standard_normals(secret=secret, step=0, count=len(moved), threads=1)
        guess = moved - 0.1 * plan.max_grad_norm * torch.from_numpy(np.asarray(words))
        assert float((guess - clean).norm() / clean.norm()) > 0.5
    assert abs(float(torch.cosine_similarity(moved, clean, dim=0))) < 0.1
    spread = float(moved.std()) / (0.1 * plan.max_grad_norm)
    assert spread == pytest.approx(1.0, abs=0.1)


def test_two_rehearsals_share_no_noise(tmp_path: Path) -> None:
    """What moves the weights is drawn anew, from a secret that is thrown away."""
    kept = []
    for number in range(2):
        rehearsed(tmp_path, WEIGHTS, tmp_path / f"{number}.pt")
        kept.append(torch.load(tmp_path / f"{number}.pt"))
    start = [p.detach().flatten() for p in tiny_model("llama").parameters() if p.requires_grad]
    first, second = (each - torch.cat(start) for each in kept)
    assert abs(float(torch.cosine_similarity(first, second, dim=0))) < 0.1


def test_a_rehearsal_reserves_nothing(tmp_path: Path) -> None:
    """It asks nothing of the budget that the script names, and runs although that is too small."""
    budget = tmp_path / "budget.jsonl"
    create_budget(path=budget, name="notes", epsilon=0.1, delta=1e-5)
    text = WEIGHTS.replace("fixed_seed=5", f"budget={str(budget)!r}")
    found = rehearsed(tmp_path, text, tmp_path / "weights.pt")
    assert all(found.values()), found
    assert read_budget(path=budget).shares == {}


@pytest.mark.parametrize(
    ("changed", "becomes"),
    [
        (
            "expected_batch_size=10, steps=3",
            "expected_batch_size=5, steps=3, sampling='cyclic-poisson', "
            "noise_coefficients=(0.8, 0.6)",
        ),
        ("fixed_seed=5", "dynamic_rank=1"),
        (
            "expected_batch_size=10, steps=3",
            "expected_batch_size=5, steps=3, sampling='allocated'",
        ),
    ],
    ids=["correlated", "changing ranks", "allocated"],
)
def test_noise_of_other_shapes_is_told_from_what_is_wrong(
    tmp_path: Path, changed: str, becomes: str
) -> None:
    """Correlated between steps, on the rows alone that learn, or on another kind of draw."""
    assert changed in WEIGHTS
    text = WEIGHTS.replace(changed, becomes)
    found = rehearsed(tmp_path, text, tmp_path / "weights.pt", steps=3)
    assert all(found.values()), found


def test_a_trainer_that_saves_is_rehearsed_and_says_so_in_what_it_saves(tmp_path: Path) -> None:
    """Its checkpoints appear, hold noise alone, and their statement says that they do."""
    found = rehearsed(tmp_path, TRAINER, tmp_path / "run", steps=3)
    assert all(found.values()), found
    assert not (tmp_path / "run/ledger.jsonl").exists()
    assert not (tmp_path / "run/_private_steps").exists()
    saved = tmp_path / "run/checkpoint-1"
    assert json.loads((saved / "privacy.json").read_text())["ledger"]
    assert "noise alone" in (saved / "README.md").read_text()


def test_norms_of_private_gradients_are_not_told(tmp_path: Path) -> None:
    """A healthy finding says that all weigh at most C, not how much the largest does."""
    script = tmp_path / "script.py"
    script.write_text(WEIGHTS.replace("max_grad_norm=1e-2", "max_grad_norm=1e3"))
    found = script_findings(script=script, arguments=[str(tmp_path / "w.pt")], steps=1)
    (clip,) = (finding for finding in found if finding.subject == "clip")
    assert clip.healthy
    assert not any(sign.isdigit() for sign in clip.words)


def test_a_script_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """In one line, before anything runs."""
    with pytest.raises(ConfigurationError, match="no such script"):
        script_findings(script=tmp_path / "none.py", arguments=[], steps=1)
