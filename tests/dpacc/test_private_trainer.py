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
    AutoTokenizer,
    EarlyStoppingCallback,
    TrainerCallback,
    TrainingArguments,
)

from dpacc import PrivacyArguments, PrivateTrainer
from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.losses import causal_lm_losses
from tests.dpacc.test_engine import LENGTHS, RecordingOptimizer, received
from tests.tiny_models import collate, examples, save_tiny_llama, tiny_base, tiny_model

PRIVATE = examples(LENGTHS)
HELD_OUT = examples([6, 4], seed=5)


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
def test_the_trainer_gets_the_engines_noised_gradients(
    tmp_path: Path, cut: tuple[int, int]
) -> None:
    """For the same seed, however the batch is cut: what the open loop hands to its optimizer."""
    model = tiny_model("llama")
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    run = trainer(
        tmp_path / "run",
        model=model,
        optimizers=(optimizer, None),
        per_device_train_batch_size=cut[0],
        gradient_accumulation_steps=cut[1],
        privacy=private(max_grad_norm=1e-2),
    )
    done = run.train()
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
        activation_checkpointing=True,
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
        units=["ann", "bob", "eve", "joe", "kim"] * 2,
        privacy=private(unit="patient"),
        num_train_epochs=1,
    )
    before = adapters(run.model).clone()
    run.train()
    assert (run.plan.dataset_size, run.plan.unit, run.plan.steps) == (5, "patient", 2)
    assert not torch.equal(adapters(run.model), before)


# --- refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"max_grad_norm": 0.5}, r"PrivacyArguments\(max_grad_norm"),
        ({"auto_find_batch_size": True}, "per_device_train_batch_size"),
        ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha"),
        ({"use_liger_kernel": True}, "use_liger_kernel"),
        ({"torch_compile": True}, "torch_compile"),
        ({"include_num_input_tokens_seen": "all"}, "include_num_input_tokens_seen"),
        ({"skip_memory_metrics": False}, "skip_memory_metrics"),
        ({"debug": "underflow_overflow"}, "debug"),
        ({"optim": "adalomo"}, "adamw_torch"),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"},
            "follows steps",
        ),
        (
            {"load_best_model_at_end": True, "save_strategy": "epoch", "eval_strategy": "epoch"},
            "eval_data_is_public",
        ),
        ({"callbacks": [EarlyStoppingCallback()]}, "eval_data_is_public"),
        ({"eval_dataset": PRIVATE}, "private train_dataset"),
        ({"eval_dataset": {"a": HELD_OUT, "b": PRIVATE}}, "private train_dataset"),
        ({"train_dataset": iter(PRIVATE)}, "length"),
        ({"train_dataset": None}, "length"),
        ({"units": [0] * 10}, r"PrivacyArguments\(unit"),
        ({"privacy": private(noise_multiplier=None)}, "exactly one"),
        ({"privacy": private(target_epsilon=8.0)}, "exactly one"),
        ({"privacy": private(noise_multiplier=0.0)}, "no privacy"),
        ({"per_device_train_batch_size": 100}, "lower the batch size"),
    ],
)
def test_what_would_break_the_guarantee_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], remedy: str
) -> None:
    """Before any training, with what to do instead; no ledger is begun."""
    with pytest.raises(ValueError, match=remedy):
        trainer(tmp_path / "run", **change)
    assert not (tmp_path / "run/ledger.jsonl").exists()


def test_steering_that_comes_later_is_refused_too(tmp_path: Path) -> None:
    """A callback added after the trainer was made, or a scheduler of one's own that listens."""
    run = trainer(tmp_path / "run")
    run.add_callback(EarlyStoppingCallback())
    with pytest.raises(ConfigurationError, match="eval_data_is_public"):
        run.train()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(ConfigurationError, match="follows a metric"):
        trainer(tmp_path / "run", optimizers=(optimizer, plateau))
    assert not (tmp_path / "run/ledger.jsonl").exists()


def test_what_does_no_harm_is_not_refused(tmp_path: Path) -> None:
    """Averaging of tokens over devices, and the default max_grad_norm, have nothing to act on."""
    run = trainer(tmp_path / "run", average_tokens_across_devices=True, max_steps=1)
    assert run.args.max_grad_norm == 1.0
    assert run.train().global_step == 1


def test_a_loss_of_ones_own_is_refused(tmp_path: Path) -> None:
    """compute_loss and compute_loss_func would be ignored, or mix examples."""

    class Own(PrivateTrainer):
        def compute_loss(self, *arguments: Any, **options: Any) -> Any:
            raise AssertionError

    given: dict[str, Any] = {
        "model": tiny_model("llama"),
        "args": arguments(tmp_path / "run"),
        "train_dataset": PRIVATE,
        "privacy": private(),
    }
    with pytest.raises(ConfigurationError, match="losses="):
        Own(**given)
    with pytest.raises(ConfigurationError, match="losses="):
        PrivateTrainer(**given, compute_loss_func=lambda *_: None)
    with pytest.raises(ConfigurationError, match="model="):
        PrivateTrainer(**given | {"model": None}, model_init=lambda: tiny_model("llama"))


def test_a_budget_is_spent_once(tmp_path: Path) -> None:
    """A second train(), a rerun in the same folder, and a search are refused with the remedy."""
    run = trainer(tmp_path / "run", max_steps=1)
    with pytest.raises(ConfigurationError, match="merge ledgers"):
        run.hyperparameter_search()
    run.train()
    with pytest.raises(ConfigurationError, match="new one"):
        run.train()
    with pytest.raises(ConfigurationError, match="resume_from_checkpoint=True"):
        trainer(tmp_path / "run", max_steps=1).train()


def test_only_the_end_of_the_ledger_can_be_resumed(tmp_path: Path) -> None:
    """An older checkpoint, or none, is refused: what was released cannot be taken back."""
    run = trainer(tmp_path / "run", save_strategy="steps", save_steps=2)
    run.train()
    again = trainer(tmp_path / "run", save_strategy="steps", save_steps=2)
    with pytest.raises(ConfigurationError, match="taken back"):
        again.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-2"))
    with pytest.raises(ConfigurationError, match="not the last"):
        trainer(tmp_path / "new").train(resume_from_checkpoint=True)
    assert again.train(resume_from_checkpoint=True).global_step == 6


# --- TRL ---------------------------------------------------------------------------------


def sft_trainer(folder: Path, **changes: Any) -> Any:
    """TRL's trainer made private, on prompts and completions, with an optimizer that records."""
    trl = pytest.importorskip("trl")
    words = ["the", "film", "was", "good", "bad", "very", "a", "not", "and", "it"]
    save_tiny_llama(folder / "base", words=words)

    class PrivateSFTTrainer(PrivateTrainer, trl.SFTTrainer):  # type: ignore[misc]
        pass

    model = tiny_model("llama")
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    return PrivateSFTTrainer(
        model=model,
        optimizers=(optimizer, None),
        processing_class=AutoTokenizer.from_pretrained(folder / "base"),
        args=trl.SFTConfig(
            output_dir=str(folder / "run"),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            num_train_epochs=2,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            bf16=False,
            use_cpu=True,
            disable_tqdm=True,
            **changes,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": "the film was", "completion": f" {word}"} for word in words]
        ),
        privacy=private(max_grad_norm=1e-2),
    )


def test_trls_trainer_is_made_private_by_mixing_it_in(tmp_path: Path) -> None:
    """On TRL's own prepared examples: the open loop's gradients, and nothing else logged."""
    run = sft_trainer(tmp_path)
    recorder = run.optimizer
    run.train()
    prepared = [
        {name: each[name] for name in ("input_ids", "labels")} for each in run.train_dataset
    ]
    expected = received(run.plan, prepared, tmp_path / "ledger.jsonl")
    assert len(expected) == run.plan.steps == 6
    torch.testing.assert_close(torch.stack(recorder.received) * 4, expected, rtol=1e-4, atol=1e-6)
    logged = set().union(*run.state.log_history)
    assert "epsilon" in logged
    assert not {"loss", "mean_token_accuracy", "entropy", "num_tokens"} & logged


@pytest.mark.parametrize(
    "option", [{"packing": True}, {"padding_free": True}, {"loss_type": "dft"}]
)
def test_trls_options_that_join_examples_are_refused(
    tmp_path: Path, option: dict[str, Any]
) -> None:
    """Packing and padding-free rows hold several examples; dft is another loss."""
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        sft_trainer(tmp_path, **option)
