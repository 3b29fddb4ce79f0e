"""The Trainer trains with the engine's private gradients, resumes, and keeps its features."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from dpacc_accounting import read_ledger
from peft import PeftModel
from transformers import (
    EarlyStoppingCallback,
    TrainerCallback,
    TrainingArguments,
)

from dpacc import PrivacyArguments, PrivateTrainer
from dpacc.errors import PrivacyError
from dpacc.layers.whitening import whiten
from dpacc.losses.per_example import causal_lm_losses
from dpacc.recipe.models import add_lora
from tests.dpacc.step.engine_runs import LENGTHS, RecordingOptimizer, received
from tests.dpacc.step.test_averaging import averaged_by_an_open_loop
from tests.tiny_models import collate, examples, tiny_base, tiny_model

PRIVATE = examples(LENGTHS)
HELD_OUT = examples([6, 4], seed=5)
PUBLIC = examples([12] * 8, seed=6)


RECOMPUTES = next(
    name
    for name in ("activation_checkpointing", "gradient_checkpointing")  # the older name
    if name in TrainingArguments.__dataclass_fields__
)


def arguments(folder: Path, **changes: Any) -> TrainingArguments:
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    return TrainingArguments(**settings | changes)


def private(**changes: Any) -> PrivacyArguments:
    settings: dict[str, Any] = {"noise_multiplier": 1.0, "target_delta": 1e-3, "fixed_seed": 3}
    return PrivacyArguments(**settings | changes)


def trainer(folder: Path, **changes: Any) -> PrivateTrainer:
    own = ("privacy", "units", "losses", "callbacks", "optimizers", "compute_metrics")
    given: dict[str, Any] = {
        "model": tiny_model("llama"),
        "train_dataset": PRIVATE,
        "eval_dataset": HELD_OUT,
        "data_collator": collate,
        "privacy": private(),
    }
    names = {*own, *given}
    given |= {name: value for name, value in changes.items() if name in names}
    options = {name: value for name, value in changes.items() if name not in names}
    return PrivateTrainer(args=arguments(folder, **options), **given)


def adapters(model: Any) -> torch.Tensor:
    trained = [p.detach().flatten() for p in model.parameters() if p.requires_grad]
    return torch.cat(trained)


@pytest.mark.parametrize("cut", [(4, 1), (1, 4)])
@pytest.mark.parametrize("recomputes", [False, True])
def test_the_trainer_gets_the_engines_noised_gradients(
    tmp_path: Path, cut: tuple[int, int], recomputes: bool
) -> None:
    """For the same seed, however the batch is cut, and whether or not activations are kept or
    computed again: what the open loop hands to its optimizer."""
    model = tiny_model("llama")
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    run = trainer(
        tmp_path / "run",
        model=model,
        optimizers=(optimizer, None),
        per_device_train_batch_size=cut[0],
        gradient_accumulation_steps=cut[1],
        **{RECOMPUTES: recomputes},
        privacy=private(max_grad_norm=1e-2),
    )
    done = run.train()
    assert run.model.base_model.model.model.gradient_checkpointing is recomputes
    expected = received(run.plan, PRIVATE, tmp_path / "ledger.jsonl")
    assert (run.plan.expected_batch_size, run.plan.steps, done.global_step) == (4, 6, 6)
    torch.testing.assert_close(torch.stack(optimizer.received) * 4, expected, rtol=1e-4, atol=1e-6)


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    """Killed after step 3, one past its checkpoint: same adapters, steps, rates and charges."""

    class Killed(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 2}
    whole = trainer(tmp_path / "whole", **saving)
    whole.train()
    broken = trainer(tmp_path / "broken", callbacks=[Killed()], **saving)
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    resumed = trainer(tmp_path / "broken", **saving)
    done = resumed.train(resume_from_checkpoint=True)

    assert done.global_step == 6
    torch.testing.assert_close(adapters(resumed.model), adapters(whole.model), rtol=0, atol=0)
    ledgers = [read_ledger(path=tmp_path / name / "ledger.jsonl") for name in ("whole", "broken")]
    assert [[r.step for r in each.releases] for each in ledgers] == [list(range(6))] * 2
    assert resumed.lr_scheduler.get_last_lr() == whole.lr_scheduler.get_last_lr()
    logged = [log for log in resumed.state.log_history if log["step"] > 3]
    assert logged[0]["epoch"] == pytest.approx(4 / 3)
    for ours, theirs in zip(logged[:3], whole.state.log_history[3:6], strict=True):
        assert ours == theirs


def averaging(folder: Path, **changes: Any) -> PrivateTrainer:
    """A trainer under SGD at a constant rate, that averages the last half of its 6 steps."""
    model = tiny_model("llama")
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad], lr=0.1)
    options: dict[str, Any] = {
        "model": model,
        "optimizers": (optimizer, None),
        "lr_scheduler_type": "constant",
        "save_strategy": "steps",
        "save_steps": 2,
        "privacy": private(average_iterates=0.5),
    }
    return trainer(folder, **options | changes)


def test_the_average_is_the_recipes(tmp_path: Path) -> None:
    """What ends up in the model, its last checkpoint and its folder is the mean of the last half
    of the iterates, as an open loop makes it; checkpoints before hold the iterate itself."""
    run = averaging(tmp_path / "run")
    recorder, start = run.optimizer, adapters(run.model)
    run.train()
    run.save_model()
    iterates = start - 0.1 * torch.stack(recorder.received).cumsum(dim=0)
    expected = averaged_by_an_open_loop(
        run.plan, PRIVATE, tmp_path / "ledger.jsonl", share=0.5, lr=0.1
    )
    torch.testing.assert_close(adapters(run.model), expected, rtol=1e-5, atol=1e-7)
    for folder, held in {
        "": iterates[3:].mean(dim=0),
        "checkpoint-6": iterates[3:].mean(dim=0),
        "checkpoint-4": iterates[3],
    }.items():
        saved = PeftModel.from_pretrained(
            tiny_base("llama"), tmp_path / "run" / folder, is_trainable=True
        )
        torch.testing.assert_close(adapters(saved), held, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("killed_after", [5, 6])
def test_a_resumed_run_averages_what_came_before(tmp_path: Path, killed_after: int) -> None:
    """Killed among the averaged steps, or after the last and before it was saved: the same mean."""

    class Killed(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == killed_after:
                raise KeyboardInterrupt

    whole = averaging(tmp_path / "whole")
    whole.train()
    broken = averaging(tmp_path / "broken", callbacks=[Killed()])
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    resumed = averaging(tmp_path / "broken")
    resumed.train(resume_from_checkpoint=True)
    torch.testing.assert_close(adapters(resumed.model), adapters(whole.model), rtol=0, atol=0)


def whitened(folder: Path, **changes: Any) -> PrivateTrainer:
    """A trainer of adapters whose A learns on inputs that public examples made white."""
    model = add_lora(
        model=tiny_base("llama").requires_grad_(False),
        method="whitened",
        rank=3,
        alpha=6.0,
        target_modules=["q_proj", "v_proj"],
    )
    whiten(model=model, public_examples=PUBLIC, collate=collate)
    return trainer(folder, model=model, save_strategy="steps", save_steps=2, **changes)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        given: torch.Tensor = model.eval()(**collate(HELD_OUT)).logits
    return given


def test_whitened_adapters_are_trained_saved_and_resumed(tmp_path: Path) -> None:
    """Plain PEFT loads what was trained, and a killed run ends where an unbroken one does."""

    class Killed(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    whole = whitened(tmp_path / "whole")
    untrained = logits(whole.model)
    whole.train()
    whole.save_model()
    loaded = PeftModel.from_pretrained(tiny_base("llama"), tmp_path / "whole")
    torch.testing.assert_close(logits(loaded), logits(whole.model), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(untrained, logits(loaded), atol=1e-3)
    with pytest.raises(KeyboardInterrupt):
        whitened(tmp_path / "broken", callbacks=[Killed()]).train()
    resumed = whitened(tmp_path / "broken")
    resumed.train(resume_from_checkpoint=True)
    torch.testing.assert_close(adapters(resumed.model), adapters(whole.model), rtol=0, atol=0)


def test_the_best_whitened_adapter_is_loaded_at_the_end(tmp_path: Path) -> None:
    """load_best_model_at_end brings back the numbers of the best checkpoint, in the coordinates
    that are trained."""
    kept: dict[int, torch.Tensor] = {}

    class Keep(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            kept[state.global_step] = adapters(given["model"]).clone()

    scores = iter([1.0, 2.0, 0.0])
    run = whitened(
        tmp_path / "run",
        callbacks=[Keep()],
        compute_metrics=lambda prediction: {"score": next(scores)},
        privacy=private(eval_data_is_public=True),
        eval_strategy="steps",
        eval_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="score",
    )
    run.train()
    assert str(run.state.best_model_checkpoint).endswith("checkpoint-4")
    torch.testing.assert_close(adapters(run.model), kept[4], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(kept[6], kept[4], atol=1e-4)


def test_nothing_without_noise_is_logged_or_saved(tmp_path: Path) -> None:
    """No loss, norm or operation count in logs, state or result: ε is there in their place."""
    run = trainer(tmp_path / "run", save_strategy="epoch", eval_strategy="epoch")
    done = run.train()
    assert math.isnan(done.training_loss)
    assert not {"train_loss", "total_flos"} & done.metrics.keys()
    saved = json.loads((tmp_path / "run/checkpoint-6/trainer_state.json").read_text())
    assert saved["total_flos"] == 0
    for history in (run.state.log_history, saved["log_history"]):
        assert len(history) >= 8
        assert all("epsilon" in log for log in history)
        assert not {"loss", "grad_norm", "train_loss"} & set().union(*history)
    assert [log["eval_loss"] for log in run.state.log_history if "eval_loss" in log]


def test_what_is_logged_without_noise_is_in_the_ledger_and_the_statement(tmp_path: Path) -> None:
    """log_non_private_metrics shows the mean loss of the drawn examples, and says that it did."""
    run = trainer(
        tmp_path / "run",
        privacy=private(log_non_private_metrics=True, noise_multiplier=2.0),
        per_device_train_batch_size=10,
        gradient_accumulation_steps=1,
        num_train_epochs=1,
        save_strategy="epoch",
    )
    with torch.no_grad():
        expected = causal_lm_losses(run.model.train(), collate(PRIVATE)).mean()
    run.train()
    (logged,) = [log["loss"] for log in run.state.log_history if "loss" in log]
    assert logged == pytest.approx(float(expected), rel=1e-4)
    notes = read_ledger(path=tmp_path / "run/ledger.jsonl").notes
    assert "non-private-metrics" in {note.subject for note in notes}
    assert "without noise, were logged" in (tmp_path / "run/checkpoint-1/README.md").read_text()


def test_saved_adapters_carry_their_privacy(tmp_path: Path) -> None:
    """`privacy.json` and one statement a card, for what was released when they were saved."""
    run = trainer(
        tmp_path / "run",
        privacy=private(fixed_seed=None, target_epsilon=8.0, noise_multiplier=None),
        save_strategy="steps",
        save_steps=3,
    )
    run.train()
    for _ in range(2):
        run.save_model()
    half, whole = (
        json.loads((tmp_path / "run" / name).read_text())["guarantee"]["epsilon"]
        for name in ("checkpoint-3/privacy.json", "privacy.json")
    )
    assert half < whole <= 8.0
    card = (tmp_path / "run/README.md").read_text()
    assert card.count("# Privacy statement") == 1
    assert "PEFT" in card
    again = PeftModel.from_pretrained(tiny_base("llama"), tmp_path / "run", is_trainable=True)
    torch.testing.assert_close(adapters(again), adapters(run.model))


def test_what_a_trainer_offers_still_works(tmp_path: Path) -> None:
    """A datasets.Dataset, its own metrics, early stopping, FFA, and activation checkpointing."""
    seen: list[str] = []

    class Watch(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any, **_: Any) -> None:
            seen.extend(logs)

    data = Dataset.from_list([{**each, "note": "not for the model"} for each in PRIVATE])
    run = trainer(
        tmp_path / "run",
        train_dataset=data,
        callbacks=[EarlyStoppingCallback(early_stopping_patience=1), Watch()],
        compute_metrics=lambda prediction: {"always": 1.0},
        privacy=private(eval_data_is_public=True, method="ffa"),
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="always",
        **{RECOMPUTES: True},
    )
    done = run.train()
    assert done.global_step == 2
    assert len(read_ledger(path=tmp_path / "run/ledger.jsonl").releases) == 2
    assert {"eval_always", "eval_loss", "learning_rate", "epsilon"} <= set(seen)
    assert run.state.best_model_checkpoint.endswith("checkpoint-1")
    assert {n.split(".")[-3] for n, p in run.model.named_parameters() if p.requires_grad} == {
        "lora_B"
    }


def test_bf16_autocast_is_allowed_and_coupling_is_still_seen(tmp_path: Path) -> None:
    """Rounding to 16 bits depends on padding by a little; a mean over the batch by far more."""
    run = trainer(tmp_path / "run", bf16=True, use_cpu=True, max_steps=2, eval_strategy="epoch")
    assert run.train().global_step == 2

    def coupled(model: Any, batch: Any) -> torch.Tensor:
        losses = causal_lm_losses(model, batch)
        return losses / len(losses)

    run = trainer(tmp_path / "coupled", bf16=True, use_cpu=True, losses=coupled)
    with pytest.raises(PrivacyError, match="beside it"):
        run.train()


def test_units_and_classifiers(tmp_path: Path) -> None:
    """The head says which loss, and `units` whom the guarantee is for."""
    run = trainer(
        tmp_path / "run",
        model=tiny_model("bert"),
        train_dataset=examples(LENGTHS, family="bert"),
        eval_dataset=None,
        units=torch.arange(5).repeat(2),
        privacy=private(unit="patient"),
        num_train_epochs=1,
    )
    before = adapters(run.model).clone()
    run.train()
    assert (run.plan.dataset_size, run.plan.unit, run.plan.steps) == (5, "patient", 2)
    assert not torch.equal(adapters(run.model), before)
