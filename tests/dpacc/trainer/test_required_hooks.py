"""A private Trainer trains by the private step, or says that it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from dpacc_accounting import read_ledger
from transformers import Trainer, TrainerCallback

from dpacc import PrivacyArguments, PrivateTrainer
from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.trainer.required_hooks import LOWEST_TRANSFORMERS, STANDS_FOR, hold_in_full_precision
from tests.dpacc.step.engine_runs import LENGTHS
from tests.dpacc.trainer.test_private_trainer import private, trainer
from tests.tiny_models import collate, examples, tiny_model


@pytest.mark.parametrize("hook", STANDS_FOR)
def test_a_library_without_a_method_that_the_private_step_stands_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    """Such as transformers 5.0, whose train() would end after 0 steps without a word."""
    monkeypatch.delattr(Trainer, hook)
    with pytest.raises(ConfigurationError, match=rf"no Trainer\.{hook}.*install transformers>="):
        trainer(tmp_path)


def test_a_loop_that_calls_nothing_private_is_refused_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A train() of the library that does all by itself leaves no charge, and no silence."""

    def alone(self: Any, **options: Any) -> None:
        self.state.global_step = 5

    monkeypatch.setattr(Trainer, "train", alone)
    with pytest.raises(PrivacyError, match="counts 5 steps, the engine 0"):
        trainer(tmp_path).train()


def test_steps_without_a_charge_are_refused_when_training_ends(tmp_path: Path) -> None:
    """A training step of one's own that skips the private one for some batches."""

    class Skips(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 2:
                state.global_step += 1

    with pytest.raises(PrivacyError, match="something else than the private step"):
        trainer(tmp_path, callbacks=[Skips()]).train()


def test_a_run_that_stops_early_has_as_many_charges_as_steps(tmp_path: Path) -> None:
    """Fewer than the plan's, and no error."""

    class Stops(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step == 2

    trainer(tmp_path, callbacks=[Stops()]).train()
    assert len(read_ledger(path=tmp_path / "ledger.jsonl").releases) == 2


def test_adapters_in_16_bits_are_held_in_float32_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As TRL makes those of a quantized base; noise would be lost in their rounding."""
    model = tiny_model("llama")
    adapters = [p for p in model.parameters() if p.requires_grad]
    for parameter in adapters:
        parameter.data = parameter.data.to(torch.bfloat16)
    run = trainer(tmp_path, model=model, max_steps=1)
    assert {p.dtype for p in adapters} == {torch.float32}
    assert "held in float32 now" in caplog.text
    run.train()
    assert hold_in_full_precision(model) == 0


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ({"unit_ids": [1]}, "units="),
        ({"probe_example": []}, "probe_examples="),
        ({"tokeniser": None}, "no tokeniser="),
    ],
)
def test_an_unknown_argument_of_the_trainer_is_refused_by_name(
    tmp_path: Path, words: dict[str, Any], remedy: str
) -> None:
    """Before the library's own TypeError, with what was meant."""
    given = {"args": trainer(tmp_path).args, "privacy": private(), **words}
    with pytest.raises(ConfigurationError, match=remedy):
        PrivateTrainer(**given)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ({"target_epsilon": 8.0}, "target_delta="),
        ({"target_delta": 1e-5, "epsilon": 8.0}, "target_epsilon="),
        ({"target_delta": 1e-5, "secure_mode": True}, "leave it out"),
    ],
)
def test_an_unknown_privacy_argument_is_refused_by_name(words: dict[str, Any], remedy: str) -> None:
    """And a missing one is named."""
    with pytest.raises(ConfigurationError, match=remedy):
        PrivacyArguments(**words)


def test_examples_for_the_probe_may_be_given(tmp_path: Path) -> None:
    """They reach the collator before any of the private ones does."""
    seen: list[list[int]] = []

    def noting(batch: Any) -> Any:
        seen.append(batch[0]["input_ids"])
        return collate(batch)

    given = examples([5, 8, 11], seed=9)
    run = PrivateTrainer(
        args=trainer(tmp_path).args,
        model=tiny_model("llama"),
        train_dataset=examples(LENGTHS),
        data_collator=noting,
        privacy=private(),
        probe_examples=given,
    )
    run.train()
    assert seen[0] in [each["input_ids"] for each in given]


def test_the_version_that_is_asked_for_is_the_one_that_is_declared() -> None:
    """Whoever installs by the declaration has every method that the private step stands for."""
    declared = (Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'"transformers>={LOWEST_TRANSFORMERS}"' in declared
